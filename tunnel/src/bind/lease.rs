//! How long a bind stays valid without news.
//!
//! The end is the earliest of: either side's SVID, the policy slice, and the peer's last pass plus what the rule
//! allows. While this node hears the cloud that is the rule's `fresh`, counted from the pass. While it does not,
//! it is the rule's `offline`, counted from the earlier of the pass and the last heartbeat; only then is a boot
//! statement worth anything. Leases run on the boot clock, which nobody can set.

use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};

/// The time, by both clocks, sampled once per step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    pub boot: BootTime,
}

/// Whether this node hears the cloud: a heartbeat within 30 s.
///
/// A node that comes back after an outage should call itself `Online` only once it has itself passed again:
/// peers that were cut off with it need the same moment, and their binds fall back to `fresh` then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudLink {
    Online,
    CutOff { last_heartbeat: Timestamp },
}

/// What policy allows a pair of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When the policy slice ends.
    pub policy_until: Timestamp,
    /// Longest time since a pass while this node hears the cloud.
    pub fresh: Duration,
    /// Longest time since a pass or heartbeat while it does not. Zero: none.
    pub offline: Duration,
}

/// What is known of the peer's evidence and of both certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When the peer's evidence passed.
    pub passed: Timestamp,
    /// The peer's present boot is known by its own statement only.
    pub by_boot_statement: bool,
    /// The earlier end of the two SVIDs.
    pub certificates_until: Timestamp,
}

/// There is no time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    #[error("a boot statement counts only while the cloud cannot be heard")]
    StatementOnline,
    #[error("ended: {0}")]
    Ended(Timestamp),
}

/// When the lease ends.
pub fn lease_end(
    standing: &Standing,
    limits: &Limits,
    link: CloudLink,
    now: Now,
) -> Result<BootTime, NoLease> {
    // A pass that our clock has not reached yet counts as of now, so that a wrong clock cannot lengthen it.
    let passed = standing.passed.min(now.wall);
    let by_evidence = match link {
        CloudLink::Online if standing.by_boot_statement => return Err(NoLease::StatementOnline),
        CloudLink::Online => passed.plus(limits.fresh),
        CloudLink::CutOff { last_heartbeat } => passed.min(last_heartbeat).plus(limits.offline),
    };
    let end = by_evidence
        .min(limits.policy_until)
        .min(standing.certificates_until);
    if end <= now.wall {
        return Err(NoLease::Ended(end));
    }
    Ok(now.boot.plus(end.since(now.wall)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> Now {
        Now {
            wall: NOW,
            boot: BootTime::from_duration(Duration::from_secs(500)),
        }
    }

    fn standing(age: Duration) -> Standing {
        Standing {
            passed: NOW.minus(age),
            by_boot_statement: false,
            certificates_until: NOW.plus(MINUTE * 10_000),
        }
    }

    fn limits() -> Limits {
        Limits {
            policy_until: NOW.plus(MINUTE * 10_000),
            fresh: MINUTE * 10,
            offline: MINUTE * 720,
        }
    }

    fn left(standing: Standing, limits: Limits, link: CloudLink) -> Result<Duration, NoLease> {
        lease_end(&standing, &limits, link, now()).map(|end| end.since(now().boot))
    }

    #[test]
    fn an_old_pass_gives_nothing_to_a_verifier_that_hears_the_cloud() {
        assert!(left(standing(MINUTE * 10), limits(), CloudLink::Online).is_err());
        assert_eq!(
            left(standing(MINUTE * 9), limits(), CloudLink::Online),
            Ok(MINUTE)
        );
    }

    #[test]
    fn a_boot_statement_counts_only_while_cut_off() {
        let stated = Standing {
            by_boot_statement: true,
            ..standing(MINUTE)
        };
        assert_eq!(
            left(stated, limits(), CloudLink::Online),
            Err(NoLease::StatementOnline)
        );
        let link = CloudLink::CutOff {
            last_heartbeat: NOW.minus(MINUTE * 20),
        };
        assert_eq!(left(stated, limits(), link), Ok(MINUTE * 700));
    }

    #[test]
    fn offline_counts_from_the_earlier_of_pass_and_heartbeat() {
        let link = |ago| CloudLink::CutOff {
            last_heartbeat: NOW.minus(ago),
        };
        assert_eq!(
            left(standing(MINUTE * 30), limits(), link(MINUTE)),
            Ok(MINUTE * 690)
        );
        assert_eq!(
            left(standing(MINUTE), limits(), link(MINUTE * 30)),
            Ok(MINUTE * 690)
        );
        assert!(left(standing(MINUTE), limits(), link(MINUTE * 720)).is_err());
        let none = Limits {
            offline: Duration::ZERO,
            ..limits()
        };
        assert!(left(standing(MINUTE), none, link(MINUTE)).is_err());
    }

    #[test]
    fn certificates_and_policy_end_it_earlier() {
        let short = Standing {
            certificates_until: NOW.plus(MINUTE * 2),
            ..standing(MINUTE)
        };
        assert_eq!(left(short, limits(), CloudLink::Online), Ok(MINUTE * 2));
        let policy = Limits {
            policy_until: NOW.plus(MINUTE),
            ..limits()
        };
        assert_eq!(left(short, policy, CloudLink::Online), Ok(MINUTE));
        let ended = Limits {
            policy_until: NOW,
            ..limits()
        };
        assert!(left(short, ended, CloudLink::Online).is_err());
    }

    #[test]
    fn a_pass_from_the_future_counts_as_of_now() {
        let future = Standing {
            passed: NOW.plus(MINUTE * 60),
            ..standing(MINUTE)
        };
        assert_eq!(left(future, limits(), CloudLink::Online), Ok(MINUTE * 10));
    }
}
