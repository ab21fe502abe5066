//! Which traces are recorded.

use super::context::TraceContext;

/// Decides for every request whether its trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sampler {
    /// All, whatever the caller decided.
    Always,
    /// None.
    Never,
    /// A share of them, told by the trace's id, so that every process decides alike.
    Ratio(f64),
    /// As the caller decided; where nobody has decided yet, by the inner rule.
    Parent(Root),
}

/// How the first process of a trace decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Root {
    /// All.
    Always,
    /// None.
    Never,
    /// A share.
    Ratio(f64),
}

impl Sampler {
    /// The sampler of a configured rate.
    ///
    /// # Source
    /// `PKG observability/tracing/provider.go`: a rate of 1 records even what the caller decided not to.
    pub(crate) fn of_rate(rate: f64) -> Self {
        if rate >= 1.0 {
            Self::Always
        } else if rate > 0.0 {
            Self::Parent(Root::Ratio(rate))
        } else {
            Self::Never
        }
    }

    /// The sampler that `OTEL_TRACES_SAMPLER` names; `None` for a name it does not know.
    pub(crate) fn of_name(name: &str, rate: f64) -> Option<Self> {
        Some(match name {
            "always_on" => Self::Always,
            "always_off" => Self::Never,
            "traceidratio" => Self::Ratio(rate),
            "parentbased_always_on" => Self::Parent(Root::Always),
            "parentbased_always_off" => Self::Parent(Root::Never),
            "parentbased_traceidratio" => Self::Parent(Root::Ratio(rate)),
            _ => return None,
        })
    }

    /// Whether a request of `trace` with this `parent` is recorded.
    pub(crate) fn samples(self, trace: &[u8; 16], parent: Option<&TraceContext>) -> bool {
        let share = match (self, parent) {
            (Self::Always | Self::Parent(Root::Always), None) | (Self::Always, Some(_)) => return true,
            (Self::Never | Self::Parent(Root::Never), None) | (Self::Never, Some(_)) => return false,
            (Self::Parent(_), Some(parent)) => return parent.sampled,
            (Self::Ratio(share) | Self::Parent(Root::Ratio(share)), _) => share,
        };
        if share >= 1.0 {
            return true;
        }
        let [.., a, b, c, d, e, f, g, h] = *trace;
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 2^63, as every implementation computes it"
        )]
        let bound = (share.max(0.0) * (1_u64 << 63) as f64) as u64;
        place < bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_decides_unless_all_are_wanted() {
        let trace = [0xff; 16];
        let parent = |sampled| TraceContext { trace, span: [1; 8], sampled };
        for (rate, sampled, expected) in [
            (1.0, Some(false), true),
            (1.0, None, true),
            (0.0, Some(true), false),
            (0.5, Some(true), true),
            (0.5, Some(false), false),
            (0.5, None, false),
        ] {
            let parent = sampled.map(parent);
            let given = Sampler::of_rate(rate).samples(&trace, parent.as_ref());
            assert_eq!(given, expected, "{rate} {sampled:?}");
        }
        assert!(Sampler::of_rate(0.5).samples(&[0x10; 16], None));
    }
}
