//! Why somebody may or may not reach something.

use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::{KeySet, SpiffeId, Timestamp};
use edgeward_policy::{
    ActionId, Decision, InterfaceIndex, PeerIndex, Request, Standing as Evidence, StatedProfiles,
    Subject, Target,
};

use super::Checked;
use crate::enforce::decide::{Picture, Rules};
use crate::view::DirectoryPeer;

/// What is known of a node that is not bound: by its result in the directory, checked as a bind would.
pub(super) fn evidence_in_directory(
    id: &SpiffeId,
    peer: &DirectoryPeer,
    keys: &KeySet,
    now: Timestamp,
) -> Option<Evidence> {
    let expect = ResultExpect {
        trust_domain: id.trust_domain(),
        spiffe_id: id,
        svid_spki: &peer.spki_hash,
        least_number: 0,
        now,
    };
    let checked = check_result(&peer.result, keys, &expect).ok()?;
    let result = checked.result();
    Some(Evidence {
        state: result.state(),
        tier: Some(result.tier()),
        last_pass: Some(result.issued()),
        profiles: StatedProfiles::of_result(result.profile().map(|profile| profile.name.as_str())),
    })
}

/// One answer for each node that offers `to`; or why there is none.
pub(super) fn check(
    picture: &Picture,
    from: &SpiffeId,
    to: &str,
    known: impl Fn(&SpiffeId) -> (Option<Evidence>, bool),
    now: Timestamp,
) -> Result<Vec<Checked>, String> {
    let (service, interface) = to
        .split_once('/')
        .ok_or_else(|| format!("not service/interface: {to}"))?;
    let rules = picture
        .may_grant()
        .map_err(|nothing| format!("this node grants nothing: {}", nothing.as_str()))?;
    let node = &picture.parts().node;
    let asked = Asked {
        picture,
        rules,
        from,
        to,
        now,
    };
    if from == node {
        return asked.outward(service, interface, known);
    }
    let index = rules
        .engine()
        .interface(service, interface)
        .ok_or_else(|| format!("this node offers no such interface: {to}"))?;
    let (evidence, bound) = known(from);
    Ok(vec![asked.inward(index, evidence, bound)])
}

struct Asked<'a> {
    picture: &'a Picture,
    rules: &'a Rules,
    from: &'a SpiffeId,
    to: &'a str,
    now: Timestamp,
}

impl Asked<'_> {
    fn inward(&self, index: InterfaceIndex, evidence: Option<Evidence>, bound: bool) -> Checked {
        let standing = evidence.unwrap_or(UNKNOWN);
        let decision = self.rules.engine().decide(&Request {
            subject: Subject::Id(self.from),
            standing,
            target: Target::Interface(index),
            action: ActionId::CONNECT,
            link: self.picture.parts().hearing.towards(standing.last_pass),
            now: self.now,
        });
        let node = self.picture.parts().node.clone();
        let mut checked = self.checked(node, evidence, bound, &decision);
        if self.rules.unserved().iter().any(|name| name == self.to) {
            checked.allow = false;
            "not-served-by-this-version".clone_into(&mut checked.reason);
        }
        checked
    }

    fn outward(
        &self,
        service: &str,
        interface: &str,
        known: impl Fn(&SpiffeId) -> (Option<Evidence>, bool),
    ) -> Result<Vec<Checked>, String> {
        let slice = self.rules.engine().slice();
        let offers = slice
            .egress
            .iter()
            .filter(|egress| egress.service == service && egress.interface == interface);
        let answers: Vec<Checked> = offers
            .filter_map(|egress| {
                let peer = slice.peers.get(egress.peer.0 as usize)?;
                let (evidence, bound) = known(&peer.id);
                let decision = self.egress(egress.peer, (egress.proto, egress.port), evidence);
                Some(self.checked(peer.id.clone(), evidence, bound, &decision))
            })
            .collect();
        if answers.is_empty() {
            return Err(format!("no rule lets this node reach {}", self.to));
        }
        Ok(answers)
    }

    fn egress(
        &self,
        peer: PeerIndex,
        at: (edgeward_policy::Proto, u16),
        evidence: Option<Evidence>,
    ) -> Decision {
        let standing = evidence.unwrap_or(UNKNOWN);
        let link = self.picture.parts().hearing.towards(standing.last_pass);
        self.rules
            .engine()
            .decide_egress(peer, at, standing, link, self.now)
    }

    fn checked(
        &self,
        at: SpiffeId,
        evidence: Option<Evidence>,
        bound: bool,
        decision: &Decision,
    ) -> Checked {
        let text = |rule: &Option<std::sync::Arc<str>>| rule.as_ref().map(ToString::to_string);
        Checked {
            from: self.from.clone(),
            at,
            to: self.to.to_owned(),
            allow: decision.is_allow(),
            reason: decision.reason.to_string(),
            rule: text(&decision.rule),
            nearest: text(&decision.nearest),
            state: evidence.map(|evidence| evidence.state),
            tier: evidence.and_then(|evidence| evidence.tier),
            passed: evidence.and_then(|evidence| evidence.last_pass),
            valid_until: decision.is_allow().then_some(decision.valid_until),
            bound,
        }
    }
}

/// Of somebody who proved nothing.
const UNKNOWN: Evidence = Evidence {
    state: edgeward_identity::AttestationState::None,
    tier: None,
    last_pass: None,
    profiles: None,
};
