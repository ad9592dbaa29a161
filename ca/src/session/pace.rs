//! How often a node is spoken to. Pure.
//!
//! Every other node that judges one by `fresh` must hear of a pass within that time, and of a node that went silent no
//! later. So a metered node is asked three times within the strictest `fresh` that touches it, and never more rarely.

use std::time::Duration;

use edgeward_wire::limits::{HEARTBEAT_EVERY, LONGEST_HEARTBEAT};

use crate::config::Attest;

/// How many passes fit into the strictest `fresh`: one may be lost.
const PASSES: u32 = 3;

/// The pace of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) heartbeat: Duration,
    pub(super) attest: Attest,
}

impl Pace {
    pub(super) fn usual(attest: Attest) -> Self {
        Self {
            heartbeat: HEARTBEAT_EVERY,
            attest,
        }
    }

    /// As rarely as the strictest `fresh` of the node's policy lets it be; without any rule nothing depends on it.
    pub(super) fn metered(attest: Attest, strictest: Option<Duration>) -> Self {
        let most = strictest.map_or(LONGEST_HEARTBEAT, |fresh| fresh / PASSES);
        let most = most.min(LONGEST_HEARTBEAT);
        let usual = attest.interval.saturating_add(attest.jitter);
        if most <= usual {
            return Self::usual(attest);
        }
        let jitter = most / 16;
        Self {
            heartbeat: most.max(HEARTBEAT_EVERY),
            attest: Attest {
                interval: most - jitter,
                jitter,
                ..attest
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_metered_node_is_asked_three_times_within_the_strictest_fresh() {
        for fresh in [MINUTE * 10, MINUTE * 60, MINUTE * 179] {
            let pace = Pace::metered(Attest::default(), Some(fresh));
            assert!((pace.attest.interval + pace.attest.jitter) * 3 <= fresh);
            assert!(pace.attest.interval * 4 > fresh, "and hardly more often");
            assert!(pace.heartbeat * 3 <= fresh);
            assert_eq!(pace.attest.deadline, Attest::default().deadline);
        }
    }

    #[test]
    fn a_fresh_that_is_short_leaves_everything_as_it_is() {
        let usual = Pace::usual(Attest::default());
        for fresh in [Duration::ZERO, MINUTE, MINUTE * 3] {
            assert_eq!(Pace::metered(Attest::default(), Some(fresh)), usual);
        }
    }

    #[test]
    fn silence_has_a_bound_whatever_the_policy_says() {
        let without = Pace::metered(Attest::default(), None);
        assert_eq!(without.heartbeat, LONGEST_HEARTBEAT);
        let days = Pace::metered(Attest::default(), Some(MINUTE * 60 * 72));
        assert_eq!(days, without);
    }
}
