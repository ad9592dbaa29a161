//! What evidence makes of a node: trusted, failed, stale.

use std::collections::BTreeSet;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::AttestationResult;
use edgeward_identity::{AttestationState, SpiffeId, SpkiHash, Timestamp};
use edgeward_wire::control::CutReason;

use super::{Hub, HubFault, Kept, Member, SWEEP_EVERY};
use crate::alerts::act::{PROOF, Proof};
use crate::store::evidence::KeptFinding;
use crate::store::results::AttestationRow;

/// How old a pass of a node may be before the node is called stale, where neither its profiles nor its rules say.
const DEFAULT_FRESH: Duration = Duration::from_secs(600);
/// How far in the future a pass may lie before it counts as too old: several clouds never agree to the millisecond.
const MAX_IN_FUTURE: Duration = Duration::from_secs(60);
/// Most codes of findings that one event names.
const MAX_CODES_IN_EVENT: usize = 8;

/// Why a node is not trusted any more.
#[derive(Debug)]
pub(crate) struct Fall {
    pub(crate) state: AttestationState,
    pub(crate) code: String,
    pub(crate) reason: String,
    /// Its TPM signed what it fell by.
    pub(crate) quoted: bool,
    pub(crate) findings: Vec<KeptFinding>,
    /// When what it fell by came: how long until it was cut off can be told from the record.
    pub(crate) received: Timestamp,
}

impl Hub {
    /// A pass: in force at once, written soon. `news`: it says something else than the one before, and peers learn it now.
    pub(crate) fn passed(&self, row: AttestationRow, key: SpkiHash, news: bool) {
        let name = row.node.clone();
        let mut counts = false;
        self.update_member(&name, |member| {
            // Cut off since its evidence came: the cut stands.
            if member.is_active() {
                member.standing = row.clone();
                member.key = Some(key);
                counts = true;
            }
        });
        if counts {
            self.writer.soon(row);
            match news {
                true => self.announce(&name),
                false => self.announce_soon(&name),
            }
        }
    }

    /// A node that failed or went silent: its peers are told first, then it is written. One that says the same again is
    /// not recorded again.
    pub(crate) async fn fell(&self, member: &Member, fall: Fall) {
        let now = self.clock.now();
        let (cut, kind) = match fall.state {
            AttestationState::Stale => (CutReason::Stale, EventKind::AttestationStale),
            _ => (CutReason::Failed, EventKind::AttestationFailed),
        };
        let before = &member.standing;
        let fell_before = before.state == fall.state;
        let same = fell_before
            && before.code.as_deref() == Some(fall.code.as_str())
            && codes(&before.findings) == codes(&fall.findings);
        let row = AttestationRow {
            state: fall.state,
            code: Some(fall.code.clone()),
            changed: if fell_before { before.changed } else { now },
            result: None,
            findings: fall.findings,
            ..before.clone()
        };
        // Before the cut: a session that begins now reads this, one that began before is told.
        self.update_member(&member.row.name, |known| known.standing = row.clone());
        if !fell_before && let Err(error) = self.push_cut(&member.id, cut, now) {
            tracing::error!(node = %member.id, %error, "cut cannot be signed");
        }
        if same {
            self.writer.soon(row);
            return;
        }
        let event = Event::new(now, Actor::Cloud, kind)
            .subject(member.id.clone())
            .denied(&fall.code)
            .detail("reason", fall.reason)
            .detail("received_ms", fall.received.millis());
        let event = match fall.quoted {
            true => event.detail(PROOF, Proof::Quote.as_str()),
            false => event,
        };
        let event = match self.profiles_of(member) {
            profiles if profiles.is_empty() => event,
            profiles => event.detail("profiles", profiles.join(",")),
        };
        let event = with_findings(event, &row.findings);
        if let Err(error) = self.writer.now(&row, &self.audit, event).await {
            tracing::error!(node = %member.id, %error, "fall cannot be recorded");
        }
    }

    /// Names of the profiles that a node must pass.
    fn profiles_of(&self, member: &Member) -> Vec<String> {
        let policies = self.policies.load_full();
        let policy = policies.of(&member.row.name);
        let profiles = policy.map(|policy| policy.profiles_for(&member.row.labels));
        profiles
            .unwrap_or_default()
            .iter()
            .map(|profile| profile.name.clone())
            .collect()
    }

    /// When the last certificate of each active node ends.
    pub(crate) fn ends_of_active(&self) -> Vec<(SpiffeId, Timestamp)> {
        let directory = self.directory.lock();
        let active = directory.all().filter(|member| member.is_active());
        active
            .filter_map(|member| {
                let until = member.keys.iter().map(|(_, until)| *until).max()?;
                Some((member.id.clone(), until))
            })
            .collect()
    }

    /// How many nodes are active.
    pub(crate) fn count_active(&self) -> usize {
        let directory = self.directory.lock();
        directory.all().filter(|member| member.is_active()).count()
    }

    /// Better words for what did not match, once there was time to find them.
    pub(crate) fn explained(&self, name: &str, findings: &[KeptFinding]) {
        let mut explained = None;
        self.update_member(name, |member| {
            if codes(&member.standing.findings) == codes(findings) {
                member.standing.findings = findings.to_vec();
                explained = Some(member.standing.clone());
            }
        });
        if let Some(row) = explained {
            self.writer.soon(row);
        }
    }

    /// Evidence for people to look at: written soon.
    pub(crate) fn keep(&self, kept: Kept) {
        self.writer.evidence_soon(kept);
    }

    /// Signs what the cloud says about a node's evidence; it ends when the node's certificate would.
    pub(crate) fn sign_result(
        &self,
        result: &AttestationResult,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Vec<u8>, HubFault> {
        let number = self.keys.rising_number(now);
        Ok(result.sign(self.keys.results_signer(), number, now.plus(lifetime))?)
    }

    /// Nodes whose last pass is too old: their peers let them age by themselves; here they get their name. A node with a
    /// session is asked, so its pass is only too old if asking went wrong.
    pub(crate) async fn sweep(&self) {
        let now = self.clock.now();
        let attached: BTreeSet<String> = self.sessions.lock().keys().cloned().collect();
        let policies = self.policies.load_full();
        let silent: Vec<Member> = self
            .directory
            .lock()
            .all()
            .filter(|member| may_age(member))
            .filter(|member| {
                let fresh = policies
                    .of(&member.row.name)
                    .and_then(|policy| policy.fresh_for(&member.row.labels))
                    .map_or(DEFAULT_FRESH, edgeward_policy::Seconds::as_duration);
                let fresh = match attached.contains(&member.row.name) {
                    true => fresh.max(self.slowest_round()),
                    false => fresh,
                };
                is_too_old(member.standing.passed, fresh, now)
            })
            .cloned()
            .collect();
        for member in silent {
            self.aged(&member, now).await;
        }
    }

    /// The longest time between two passes of a node that answers.
    fn slowest_round(&self) -> Duration {
        let attest = self.config.attest;
        attest.interval + attest.jitter + 2 * attest.deadline + SWEEP_EVERY
    }

    async fn aged(&self, member: &Member, now: Timestamp) {
        let row = AttestationRow {
            state: AttestationState::Stale,
            code: Some("silent".to_owned()),
            changed: now,
            ..member.standing.clone()
        };
        let mut fell = false;
        self.update_member(&member.row.name, |known| {
            // It may have passed meanwhile.
            if known.standing == member.standing {
                known.standing = row.clone();
                fell = true;
            }
        });
        if !fell {
            return;
        }
        let event = Event::new(now, Actor::Cloud, EventKind::AttestationStale)
            .subject(member.id.clone())
            .denied("silent");
        if let Err(error) = self.writer.now(&row, &self.audit, event).await {
            tracing::error!(node = %member.id, %error, "silence cannot be recorded");
        }
    }
}

/// What passed once ages: `trusted`, and `none` of nodes without a profile or a TPM.
fn may_age(member: &Member) -> bool {
    let ages = matches!(
        member.standing.state,
        AttestationState::Trusted | AttestationState::None
    );
    ages && member.is_active() && member.standing.passed.is_some()
}

/// A pass in the future is one from before the cloud's clock was set back: nobody knows how old it is.
fn is_too_old(passed: Option<Timestamp>, fresh: Duration, now: Timestamp) -> bool {
    let passed = passed.unwrap_or_default();
    now.since(passed) > fresh || passed.since(now) > MAX_IN_FUTURE
}

fn codes(findings: &[KeptFinding]) -> Vec<(&str, Option<u8>, &str)> {
    findings
        .iter()
        .map(|finding| (finding.code.as_str(), finding.pcr, finding.found.as_str()))
        .collect()
}

/// Names what did not match in an event.
pub(crate) fn with_findings(mut event: Event, findings: &[KeptFinding]) -> Event {
    for (key, monitored) in [("findings", false), ("would_fail", true)] {
        let codes: BTreeSet<&str> = findings
            .iter()
            .filter(|finding| finding.monitored == monitored)
            .map(|finding| finding.code.as_str())
            .take(MAX_CODES_IN_EVENT)
            .collect();
        if !codes.is_empty() {
            event = event.detail(key, codes.into_iter().collect::<Vec<_>>().join(","));
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_pass_ages_by_the_clock_and_one_from_the_future_is_too_old() {
        let fresh = Duration::from_secs(600);
        let too_old = |passed| is_too_old(passed, fresh, NOW);
        assert!(too_old(None));
        assert!(too_old(Some(NOW.minus(Duration::from_secs(601)))));
        assert!(too_old(Some(
            NOW.plus(MAX_IN_FUTURE + Duration::from_secs(1))
        )));
        assert!(!too_old(Some(NOW.minus(fresh))));
        assert!(!too_old(Some(NOW)));
        assert!(!too_old(Some(NOW.plus(MAX_IN_FUTURE))));
    }
}
