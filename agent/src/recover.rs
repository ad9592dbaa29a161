//! The way back without a token: when a node needs it, what it knows then, and how often it asks.
//!
//! A node loses its certificate by time (it was off, or cut off, for longer than the certificate lives), by the cloud's
//! word (superseded by another recovery), or because the TPM was cleared; and a disk that was put back must not go on
//! from where it was. In all of these the EK still says which machine this is. The shells are in [`start`] (before
//! there is a view) and `crate::session` (while the agent runs).

use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};

use crate::enrol::{Known, NotEnrolled};
use crate::state::{NoOrigin, Stored, Unusable};
use edgeward_identity::{DenyList, TrustBundle, TrustView};

pub mod start;

/// First and longest wait between two attempts. A refusal rests on what people do, so waits grow long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Why a node must come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error("the tpm gives the key of the stored state back no more: it was cleared")]
    StateKey,
    #[error("the key of the certificate is not in the tpm any more")]
    SvidKey,
    #[error("the stored state is older than the tpm's epoch: a disk was put back")]
    RolledBack,
    #[error("the certificate has ended")]
    Ended,
    #[error("the cloud does not accept the certificate")]
    Rejected,
}

impl Loss {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::StateKey => "lost_state_key",
            Self::SvidKey => "lost_svid_key",
            Self::RolledBack => "lost_rollback",
            Self::Ended => "lost_svid_ended",
            Self::Rejected => "lost_svid_rejected",
        }
    }
}

/// When to ask the next time. Told the time; draws no randomness itself.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    step: Duration,
    due: BootTime,
}

impl Pace {
    pub fn new(now: BootTime) -> Self {
        Self {
            step: FIRST_WAIT,
            due: now,
        }
    }

    pub fn is_due(&self, now: BootTime) -> bool {
        now >= self.due
    }

    /// How long there is nothing to do.
    pub fn wait(&self, now: BootTime) -> Duration {
        self.due.since(now)
    }

    /// An attempt failed: the next one comes after a wait that doubles, half of it random, never before the cloud asked.
    pub fn failed(&mut self, now: BootTime, asked: Duration, random: u8) {
        let step = self.step;
        self.step = (step * 2).min(LONGEST_WAIT);
        let wait = step / 2 + step / 2 * u32::from(random) / 255;
        self.due = now.plus(wait.max(asked.min(LONGEST_WAIT)));
    }

    pub fn succeeded(&mut self, now: BootTime) {
        *self = Self::new(now);
    }
}

/// What a node knows from its own state, sealed until now.
pub fn known_from(stored: &Stored, now: Timestamp) -> Result<Known, Unusable> {
    let domain = stored.node.trust_domain();
    let bundle = TrustBundle::from_spiffe_json(domain.clone(), &stored.trust_bundle.0)?;
    let deny = crate::accept::key_set(&stored.key_set.0, &bundle, 0, stored.key_set.issued())
        .and_then(|keys| {
            let issued = stored.deny_list.issued();
            crate::accept::deny_list(&stored.deny_list.0, &keys, domain, 0, issued)
        })
        .unwrap_or_else(|error| {
            tracing::warn!(%error, %now, "the stored deny-list does not hold any more");
            DenyList::default()
        });
    Ok(Known {
        node: stored.node.clone(),
        addresses: stored.addresses.clone(),
        trust: TrustView { bundle, deny },
    })
}

/// Why a node did not come back, this time.
#[derive(Debug, thiserror::Error)]
pub enum NotBack {
    #[error(transparent)]
    Origin(#[from] NoOrigin),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    NotEnrolled(#[from] NotEnrolled),
    #[error(
        "its automatic recoveries are used up: it waits for an operator (edgeward node approve {0})"
    )]
    Waits(String),
    #[error("the cloud cannot take it back now: {0}")]
    Later(String),
    #[error("it could not be recorded: {0}")]
    Record(String),
}

impl NotBack {
    /// What an operator can do, where the cause does not say all.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Origin(NoOrigin::Foreign(_)) => Some(
                "another tpm: edgeward node replace-tpm NAME makes a token; then edgeward-agent enrol --force",
            ),
            Self::Origin(NoOrigin::Absent(_)) => {
                Some("become a node with a token: edgeward token create")
            }
            Self::NotEnrolled(error) => crate::enrol::hint(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn attempts_come_ever_later_and_never_before_the_cloud_asked() {
        let mut pace = Pace::new(at(0));
        assert!(pace.is_due(at(0)));
        pace.failed(at(0), Duration::ZERO, 255);
        assert!(!pace.is_due(at(4)) && pace.is_due(at(5)));
        pace.failed(at(5), Duration::from_secs(60), 0);
        assert_eq!(pace.wait(at(5)), Duration::from_secs(60));
        for _ in 0..20 {
            pace.failed(at(100), Duration::from_secs(86_400), 255);
        }
        assert_eq!(pace.wait(at(100)), LONGEST_WAIT);
        pace.succeeded(at(100));
        pace.failed(at(100), Duration::ZERO, 0);
        assert_eq!(pace.wait(at(100)), FIRST_WAIT / 2);
    }

    #[test]
    fn each_loss_has_its_own_code() {
        let all = [
            Loss::StateKey,
            Loss::SvidKey,
            Loss::RolledBack,
            Loss::Ended,
            Loss::Rejected,
        ];
        let codes: std::collections::BTreeSet<_> = all.into_iter().map(Loss::code).collect();
        assert_eq!(codes.len(), all.len());
    }
}
