//! Which releases of Knative Serving the queue-proxy is known to stand in for.

/// Minor releases of Knative 1 whose queue-proxies get the environment that ours reads, oldest first.
///
/// # Source
/// `knative.dev/serving/pkg/reconciler/revision/resources/queue.go` of v0.48 to v0.51: the same variables, but for those of
/// TLS that came with v0.49 and are optional.
const KNOWN: std::ops::RangeInclusive<u32> = 21..=24;

/// Label that Knative's manifests carry.
pub(super) const LABEL: &str = "app.kubernetes.io/version";

/// Why a release is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing in the cluster says which it is.
    Unlabelled,
    /// Not one of those that were looked at.
    Unknown(String),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (oldest, newest) = (KNOWN.start(), KNOWN.end());
        match self {
            Self::Unlabelled => {
                write!(f, "the cluster does not say which release of Knative Serving it runs")?
            }
            Self::Unknown(version) => write!(f, "Knative Serving {version} is not known")?,
        }
        write!(f, "; this queue-proxy was made for 1.{oldest} to 1.{newest}")
    }
}

/// Checks a release such as `1.23.2`; `accepted` is what the operator vouches for.
pub(super) fn judge(version: Option<&str>, accepted: Option<&str>) -> Result<(), Doubt> {
    let Some(version) = version else {
        return if accepted.is_some() { Ok(()) } else { Err(Doubt::Unlabelled) };
    };
    let bare = version.trim_start_matches('v');
    let mut parts = bare.split(['.', '-', '+']);
    let known = parts.next() == Some("1")
        && parts.next().and_then(|minor| minor.parse().ok()).is_some_and(|minor| KNOWN.contains(&minor));
    if known || accepted.is_some_and(|accepted| accepted.trim_start_matches('v') == bare) {
        return Ok(());
    }
    Err(Doubt::Unknown(version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_releases_pass_and_others_only_by_name() {
        for version in ["1.21.0", "v1.24.3", "1.23.0-rc.1"] {
            assert_eq!(judge(Some(version), None), Ok(()), "{version}");
        }
        for version in ["1.20.9", "1.25.0", "0.51.0", "2.21.0", "devel", "1"] {
            assert_eq!(judge(Some(version), None), Err(Doubt::Unknown(version.into())), "{version}");
            assert_eq!(judge(Some(version), Some(version)), Ok(()));
        }
        assert_eq!(judge(None, None), Err(Doubt::Unlabelled));
        assert_eq!(judge(Some("1.25.0"), Some("1.26.0")), Err(Doubt::Unknown("1.25.0".into())));
        assert!(Doubt::Unlabelled.to_string().contains("1.21 to 1.24"));
    }
}
