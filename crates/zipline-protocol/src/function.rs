//! Names of functions.

use std::fmt;
use std::str::FromStr;

/// A function's name: service and namespace, both DNS labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    service: String,
    namespace: String,
}

/// A text is not `service.namespace`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a function name: write service.namespace, each up to 63 of a-z, 0-9 and -")]
pub struct FunctionNameError {
    /// What was given, cut to 128 characters.
    pub text: String,
}

/// The namespace of names that give none.
const DEFAULT_NAMESPACE: &str = "default";

impl FunctionName {
    /// Checks and joins the two labels.
    ///
    /// # Errors
    /// [`FunctionNameError`] if one is not a DNS label.
    pub fn new(service: &str, namespace: &str) -> Result<Self, FunctionNameError> {
        if is_label(service) && is_label(namespace) {
            Ok(Self { service: service.to_owned(), namespace: namespace.to_owned() })
        } else {
            Err(FunctionNameError { text: format!("{service}.{namespace}").chars().take(128).collect() })
        }
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its cluster-local host name.
    pub fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.service, self.namespace)
    }

    /// Reads a host name, with or without a port, that can only be a function's: `S.N.svc.cluster.local`, `S.N.svc`,
    /// `S.N.localhost`, `S.localhost`. `None` for every other host, a bare `S.N` included: that may be a public name.
    pub fn from_host(host: &str) -> Option<Self> {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let local = name.strip_suffix(".localhost");
        let labels =
            name.strip_suffix(".svc.cluster.local").or_else(|| name.strip_suffix(".svc")).or(local)?;
        match labels.split_once('.') {
            Some((service, namespace)) => Self::new(service, namespace).ok(),
            None if local.is_some() => Self::new(labels, DEFAULT_NAMESPACE).ok(),
            None => None,
        }
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.namespace)
    }
}

impl FromStr for FunctionName {
    type Err = FunctionNameError;

    fn from_str(text: &str) -> Result<Self, FunctionNameError> {
        let (service, namespace) = text
            .split_once('.')
            .ok_or_else(|| FunctionNameError { text: text.chars().take(128).collect() })?;
        Self::new(service, namespace)
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_functions() {
        let recog = FunctionName::new("recog", "vid").unwrap();
        for host in [
            "recog.vid.svc.cluster.local",
            "recog.vid.svc.cluster.local:80",
            "Recog.vid.svc.cluster.local.",
            "recog.vid.svc",
            "recog.vid.localhost:8080",
        ] {
            assert_eq!(FunctionName::from_host(host), Some(recog.clone()), "{host}");
        }
        assert_eq!(FunctionName::from_host("recog.localhost"), FunctionName::new("recog", "default").ok());
    }

    #[test]
    fn hosts_of_others() {
        for host in [
            "example.com",
            "recog.vid",
            "localhost",
            "localhost:80",
            "svc.cluster.local",
            "a.b.c.svc",
            "[::1]:80",
            "",
            "-.x.svc",
        ] {
            assert_eq!(FunctionName::from_host(host), None, "{host}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert!("a.b".parse::<FunctionName>().is_ok());
        for text in ["a", "a.", ".b", "A.b", "a.b.c", "a_b.c", "a-.b"] {
            assert!(text.parse::<FunctionName>().is_err(), "{text}");
        }
    }
}
