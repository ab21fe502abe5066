//! How many instances a function has: one pure decision, in one place, so that an autoscaler can take it over.

use crate::manifest::Scale;

/// What is known about a function's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Whether it was ever asked for anything.
    pub requested: bool,
}

/// The number of instances to have now.
///
/// Before the first request: `min-scale`, or `initial-scale` where it is given and larger. From the first request on at
/// least `initial-scale` (default 1) and at least one. Never more than `max-scale`, unless that is 0.
#[must_use]
pub fn target(scale: &Scale, load: Load) -> u32 {
    let wanted = if load.requested {
        scale.min.max(scale.initial.unwrap_or(1)).max(1)
    } else {
        scale.min.max(scale.initial.unwrap_or(0))
    };
    if scale.max == 0 { wanted } else { wanted.min(scale.max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination() {
        // min, max, initial; before and after the first request.
        let table = [
            (0, 0, None, 0, 1),
            (0, 0, Some(0), 0, 1),
            (0, 0, Some(3), 3, 3),
            (2, 0, None, 2, 2),
            (2, 0, Some(1), 2, 2),
            (0, 2, Some(5), 2, 2),
            (1, 1, None, 1, 1),
            (4, 8, Some(6), 6, 6),
        ];
        for (min, max, initial, before, after) in table {
            let scale = Scale { min, max, initial };
            assert_eq!(target(&scale, Load { requested: false }), before, "{scale:?}");
            assert_eq!(target(&scale, Load { requested: true }), after, "{scale:?}");
        }
    }
}
