//! What evidence makes of a node: trusted, failed, stale.

use std::collections::BTreeSet;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::AttestationResult;
use edgeward_identity::{AttestationState, SpkiHash, Timestamp};
use edgeward_wire::control::CutReason;

use super::{Hub, HubFault, Member};
use crate::store::results::AttestationRow;

/// How old a pass of a node without a session may be before the node is called stale.
const DEFAULT_FRESH: Duration = Duration::from_secs(600);

impl Hub {
    /// A pass: in force at once, written soon.
    pub(crate) fn passed(&self, row: AttestationRow, key: SpkiHash) {
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
            self.announce(&name);
        }
    }

    /// A node that failed or went silent: its peers are told first, then it is written.
    pub(crate) async fn fell(
        &self,
        member: &Member,
        state: AttestationState,
        code: &str,
        reason: String,
    ) {
        let now = self.clock.now();
        let (cut, kind) = match state {
            AttestationState::Stale => (CutReason::Stale, EventKind::AttestationStale),
            _ => (CutReason::Failed, EventKind::AttestationFailed),
        };
        let row = AttestationRow {
            state,
            code: Some(code.to_owned()),
            changed: now,
            result: None,
            ..member.standing.clone()
        };
        // Before the cut: a session that begins now reads this, one that began before is told.
        self.update_member(&member.row.name, |known| known.standing = row.clone());
        let fell_before = member.standing.state == state;
        if !fell_before && let Err(error) = self.push_cut(&member.id, cut, now) {
            tracing::error!(node = %member.id, %error, "cut cannot be signed");
        }
        let event = Event::new(now, Actor::Cloud, kind)
            .subject(member.id.clone())
            .denied(code)
            .detail("reason", reason);
        if let Err(error) = self.writer.now(&row, &self.audit, event).await {
            tracing::error!(node = %member.id, %error, "fall cannot be recorded");
        }
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

    /// Nodes that gave no evidence for long and have no session: their peers let them age by themselves; here they
    /// get their name.
    pub(super) async fn sweep(&self) {
        let now = self.clock.now();
        let attached: BTreeSet<String> = self.sessions.lock().keys().cloned().collect();
        let policy = self.policy();
        let silent: Vec<Member> = self
            .directory
            .lock()
            .all()
            .filter(|member| member.standing.state == AttestationState::Trusted)
            .filter(|member| !attached.contains(&member.row.name))
            .filter(|member| {
                let fresh = policy
                    .as_ref()
                    .and_then(|policy| {
                        policy
                            .profiles_for(&member.row.labels)
                            .iter()
                            .filter_map(|profile| profile.fresh)
                            .min()
                    })
                    .map_or(DEFAULT_FRESH, edgeward_policy::Seconds::as_duration);
                let passed = member.standing.passed.unwrap_or_default();
                now.since(passed) > fresh
            })
            .cloned()
            .collect();
        for member in silent {
            let row = AttestationRow {
                state: AttestationState::Stale,
                code: Some("silent".to_owned()),
                changed: now,
                ..member.standing.clone()
            };
            self.update_member(&member.row.name, |known| known.standing = row.clone());
            let event = Event::new(now, Actor::Cloud, EventKind::AttestationStale)
                .subject(member.id.clone())
                .denied("silent");
            if let Err(error) = self.writer.now(&row, &self.audit, event).await {
                tracing::error!(node = %member.id, %error, "silence cannot be recorded");
            }
        }
    }
}
