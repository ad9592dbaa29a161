//! Approvals: which of what operators signed is in force. Pure.
//!
//! A rule counts for a subject once its quorum of distinct operators, each of whom the policy in force lets approve it,
//! signed for this very text of the rule, and until the first moment at which fewer of them did.

use std::collections::BTreeMap;

use edgeward_identity::{Kind, PublicKey, SpiffeId, Timestamp, TrustDomain};
use edgeward_policy::{ApprovalTerms, SliceApproval};

use crate::store::approvals::ApprovalRow;
use crate::store::operators::Operator;

/// What an approver signs: names trust domain, rule and its text, so that it approves nothing anywhere else.
pub fn message(
    trust_domain: &TrustDomain,
    rule: &str,
    digest: &str,
    subject: &SpiffeId,
    until: Timestamp,
) -> Vec<u8> {
    format!(
        "edgeward-approval-v1\n{trust_domain}\n{rule}\n{digest}\n{subject}\n{}",
        until.millis()
    )
    .into_bytes()
}

/// Whether one signature counts, as long as it lasts.
pub(crate) fn counts(row: &ApprovalRow, terms: &ApprovalTerms, operators: &[Operator]) -> bool {
    let stands = operators.iter().any(|operator| {
        operator.name == row.approver && operator.revoked.is_none() && operator.key == row.key
    });
    row.revoked.is_none()
        && stands
        && row.digest == hex::encode(terms.digest)
        && terms.by.contains(&row.approver)
        && !is_oneself(&row.approver, &row.subject)
}

/// Nobody approves of themselves.
pub(crate) fn is_oneself(approver: &str, subject: &SpiffeId) -> bool {
    subject.kind() == Kind::Operator && subject.name() == approver
}

/// Until when one signature lasts: what it says, and never longer than the rule lets an approval hold.
pub(crate) fn lasts_until(row: &ApprovalRow, terms: &ApprovalTerms) -> Timestamp {
    row.until.min(row.given.plus(terms.ttl.as_duration()))
}

/// What slices may carry at `now`.
pub(crate) fn in_force(
    rows: &[ApprovalRow],
    operators: &[Operator],
    terms_of: impl Fn(&str) -> Option<ApprovalTerms>,
    now: Timestamp,
) -> Vec<SliceApproval> {
    let mut terms: BTreeMap<&str, Option<ApprovalTerms>> = BTreeMap::new();
    // Each approver's longest word, by rule and subject.
    let mut said: BTreeMap<(&str, &SpiffeId), BTreeMap<&str, Timestamp>> = BTreeMap::new();
    for row in rows {
        let terms = terms
            .entry(&row.rule)
            .or_insert_with(|| terms_of(&row.rule));
        let Some(terms) = terms.as_ref().filter(|terms| counts(row, terms, operators)) else {
            continue;
        };
        let until = lasts_until(row, terms);
        if now < until {
            let of_subject = said.entry((&row.rule, &row.subject)).or_default();
            let longest = of_subject.entry(&row.approver).or_default();
            *longest = until.max(*longest);
        }
    }
    let mut found = Vec::new();
    for ((rule, subject), approvers) in said {
        let Some(Some(terms)) = terms.get(rule) else {
            continue;
        };
        let mut ends: Vec<Timestamp> = approvers.into_values().collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        // The quorum holds for as long as the last of the first so many does.
        if let Some(until) = usize::from(terms.quorum)
            .checked_sub(1)
            .and_then(|last| ends.get(last))
        {
            found.push(SliceApproval {
                rule: terms.rule.clone(),
                subject: subject.clone(),
                until: *until,
            });
        }
    }
    found
}

/// The key of the operator under whose name an approval was given, when it signs what it says.
pub(crate) fn signed_by(key: &PublicKey, message: &[u8], signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{Signer, SoftwareKey};
    use edgeward_policy::Seconds;

    use super::*;
    use crate::access::Role;

    const NOW: Timestamp = Timestamp::from_secs(10_000);

    struct Desk {
        operators: Vec<Operator>,
        rows: Vec<ApprovalRow>,
        quorum: u16,
    }

    fn terms(quorum: u16) -> ApprovalTerms {
        ApprovalTerms {
            rule: "vendor".into(),
            digest: [7; 32],
            by: ["li", "wu", "yi"].map(str::to_owned).into(),
            quorum,
            ttl: Seconds::from_hours(1),
        }
    }

    fn subject(text: &str) -> SpiffeId {
        format!("spiffe://plant.example/{text}").parse().unwrap()
    }

    impl Desk {
        fn new(quorum: u16) -> Self {
            let operators = ["li", "wu", "yi", "zhou"].map(|name| Operator {
                name: name.to_owned(),
                role: Role::Operator,
                key: *SoftwareKey::generate().unwrap().public_key(),
                expires: NOW,
                added: NOW,
                added_by: "cloud".to_owned(),
                revoked: None,
                revoked_by: None,
            });
            Self {
                operators: operators.into(),
                rows: Vec::new(),
                quorum,
            }
        }

        fn given(&mut self, approver: &str, to: &str, seconds: u64) -> &mut ApprovalRow {
            let known = self.operators.iter().find(|one| one.name == approver);
            self.rows.push(ApprovalRow {
                number: 1,
                rule: "vendor".to_owned(),
                digest: hex::encode([7; 32]),
                subject: subject(to),
                until: Timestamp::from_secs(10_000 + seconds),
                approver: approver.to_owned(),
                key: known.unwrap().key,
                signature: String::new(),
                given: NOW,
                revoked: None,
                revoked_by: None,
            });
            self.rows.last_mut().unwrap()
        }

        fn until(&self, now: Timestamp) -> Option<u64> {
            let found = in_force(
                &self.rows,
                &self.operators,
                |rule| (rule == "vendor").then(|| terms(self.quorum)),
                now,
            );
            assert!(found.len() <= 1, "{found:?}");
            found.first().map(|one| one.until.secs() - 10_000)
        }
    }

    #[test]
    fn one_operator_twice_is_not_two() {
        let mut desk = Desk::new(2);
        desk.given("li", "node/gw-3", 60);
        desk.given("li", "node/gw-3", 90);
        assert_eq!(desk.until(NOW), None);
        desk.given("wu", "node/gw-4", 60);
        assert_eq!(desk.until(NOW), None);
        desk.given("wu", "node/gw-3", 60);
        assert_eq!(desk.until(NOW), Some(60));
    }

    #[test]
    fn whoever_may_not_approve_counts_for_nothing() {
        let mut desk = Desk::new(1);
        desk.given("zhou", "node/gw-3", 60);
        assert_eq!(desk.until(NOW), None);
        desk.given("li", "operator/li", 60);
        assert_eq!(desk.until(NOW), None);
        desk.given("li", "node/gw-3", 60).digest = hex::encode([8; 32]);
        assert_eq!(desk.until(NOW), None);
        desk.given("li", "node/gw-3", 60).rule = "other".to_owned();
        assert_eq!(desk.until(NOW), None);
        desk.given("li", "node/gw-3", 60).revoked = Some(NOW);
        assert_eq!(desk.until(NOW), None);
        desk.given("li", "node/gw-3", 60);
        assert_eq!(desk.until(NOW), Some(60));
        desk.operators[0].revoked = Some(NOW);
        assert_eq!(desk.until(NOW), None);
    }

    #[test]
    fn an_operator_with_a_new_key_must_approve_anew() {
        let mut desk = Desk::new(1);
        desk.given("li", "node/gw-3", 60);
        desk.operators[0].key = *SoftwareKey::generate().unwrap().public_key();
        assert_eq!(desk.until(NOW), None);
    }

    #[test]
    fn a_quorum_holds_until_the_first_of_it_ends_and_never_longer_than_the_rule_says() {
        let mut desk = Desk::new(2);
        for (name, seconds) in [("li", 30), ("wu", 60), ("yi", 90)] {
            desk.given(name, "node/gw-3", seconds);
        }
        assert_eq!(desk.until(NOW), Some(60));
        assert_eq!(desk.until(Timestamp::from_secs(10_060)), None);
        desk.given("li", "node/gw-3", 86_400);
        desk.given("wu", "node/gw-3", 86_400);
        assert_eq!(desk.until(NOW), Some(3600));
    }
}
