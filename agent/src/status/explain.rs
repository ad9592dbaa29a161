//! Why somebody may or may not reach something.

use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::{KeySet, Kind, SpiffeId, Timestamp};
use edgeward_policy::l7::written::WrittenRequest;
use edgeward_policy::space::{Question, explain};
use edgeward_policy::{
    ActionId, ActionSet, AllWants, Decision, DeviceIndex, Egress, InterfaceIndex,
    Standing as Evidence, StatedProfiles, Subject,
};

use super::{Asked, Checked, MAX_RULES_SHOWN};
use crate::enforce::decide::{Picture, Rules};
use crate::view::DirectoryPeer;

/// What is known of a node that is not bound: by its result in the directory, checked as a bind would.
pub(super) fn evidence_in_directory(
    id: &SpiffeId,
    peer: &DirectoryPeer,
    keys: &KeySet,
    wants: &AllWants,
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
        runs: result.runs().map(|runs| wants.met_by(runs)),
    })
}

/// One answer for each node that offers what is asked for; or why there is none.
pub(super) fn check(
    picture: &Picture,
    asked: &Asked,
    known: impl Fn(&SpiffeId) -> (Option<Evidence>, bool),
    now: Timestamp,
) -> Result<Vec<Checked>, String> {
    let (service, interface) = asked
        .to
        .split_once('/')
        .ok_or_else(|| format!("not service/interface: {}", asked.to))?;
    let rules = picture
        .may_grant()
        .map_err(|nothing| format!("this node grants nothing: {}", nothing.as_str()))?;
    let asking = Asking {
        picture,
        rules,
        from: &asked.from,
        to: &asked.to,
        now,
    };
    if asked.from == picture.parts().node {
        return asking.outward(service, interface, None, known);
    }
    let own = rules.engine().slice().devices.iter();
    let traveller = (0..).zip(own).find(|(_, own)| own.id == asked.from);
    if let (Some((number, _)), None) = (traveller, rules.engine().interface(service, interface)) {
        return asking.outward(service, interface, Some(DeviceIndex(number)), known);
    }
    let index = rules
        .engine()
        .interface(service, interface)
        .ok_or_else(|| format!("this node offers no such interface: {}", asked.to))?;
    let (evidence, bound) = match (asked.from.kind(), &asked.through) {
        (Kind::Device, _) => {
            let standing = picture.device_standing(&asked.from);
            let standing = standing.map_err(|nothing| {
                format!("nothing is known of the device: {}", nothing.as_str())
            })?;
            (Some(standing.0), true)
        }
        // An operator stands as the node that it connects from.
        (Kind::Operator, Some(node)) => known(node),
        (Kind::Operator, None) => (None, true),
        _ => known(&asked.from),
    };
    Ok(vec![asking.inward(index, asked, evidence, bound)?])
}

struct Asking<'a> {
    picture: &'a Picture,
    rules: &'a Rules,
    from: &'a SpiffeId,
    to: &'a str,
    now: Timestamp,
}

impl Asking<'_> {
    fn inward(
        &self,
        index: InterfaceIndex,
        asked: &Asked,
        evidence: Option<Evidence>,
        bound: bool,
    ) -> Result<Checked, String> {
        let standing = evidence.unwrap_or(UNKNOWN);
        let link = self.picture.parts().hearing.towards(standing.last_pass);
        let engine = self.rules.engine();
        let subject = Subject::Id(self.from);
        let actions = self.actions(index, asked)?;
        let decision = match actions {
            None => engine.admit(subject, standing, index, link, self.now),
            Some(actions) => {
                engine.decide_actions(subject, standing, (index, actions), link, self.now)
            }
        };
        let node = self.picture.parts().node.clone();
        let mut checked = self.checked(node, evidence, bound, &decision);
        if let Some(actions) = actions {
            let question = Question {
                subject: self.from,
                standing,
                interface: index,
                actions,
                link,
                now: self.now,
            };
            let explained = explain(engine, &question).map_err(|error| error.to_string())?;
            checked.rules = explained.rules;
            checked.rules.truncate(MAX_RULES_SHOWN);
        }
        Ok(checked)
    }

    /// What is asked for; `None`: entry, to an interface that tells actions apart.
    fn actions(&self, index: InterfaceIndex, asked: &Asked) -> Result<Option<ActionSet>, String> {
        let slice = self.rules.engine().slice();
        let interface = slice.interfaces.get(index.0 as usize);
        let interface = interface.ok_or_else(|| format!("no such interface: {}", asked.to))?;
        let named = match &asked.action {
            None => None,
            Some(name) => Some(interface.action(name).ok_or_else(|| {
                let known = interface.actions().join(", ");
                format!("no such action of {}: {name}; it has {known}", asked.to)
            })?),
        };
        let Some(text) = &asked.request else {
            let only = interface.l7.is_none().then_some(ActionId::CONNECT);
            let action = named.or(only);
            return Ok(action.map(|action| [action].into_iter().collect()));
        };
        let l7 = interface.l7.as_ref();
        let l7 = l7.ok_or_else(|| format!("{} has no protocol of its own", asked.to))?;
        let request = WrittenRequest::parse(l7, text).map_err(|error| error.to_string())?;
        let actions = l7.actions_of(&request.as_request());
        match (named, &asked.action) {
            (Some(action), Some(name)) if !actions.contains(action) => {
                Err(format!("the request is not of this action: {name}"))
            }
            _ => Ok(Some(actions)),
        }
    }

    fn outward(
        &self,
        service: &str,
        interface: &str,
        device: Option<DeviceIndex>,
        known: impl Fn(&SpiffeId) -> (Option<Evidence>, bool),
    ) -> Result<Vec<Checked>, String> {
        let slice = self.rules.engine().slice();
        let offers = slice
            .egress
            .iter()
            .filter(|egress| egress.service == service && egress.interface == interface)
            .filter(|egress| match device {
                None => egress.devices.is_empty(),
                Some(device) => egress.devices.binary_search(&device).is_ok(),
            });
        let answers: Vec<Checked> = offers
            .filter_map(|egress| {
                let peer = slice.peers.get(egress.peer.0 as usize)?;
                let (evidence, bound) = known(&peer.id);
                let decision = self.egress(egress, device, evidence);
                Some(self.checked(peer.id.clone(), evidence, bound, &decision))
            })
            .collect();
        if answers.is_empty() {
            return Err(match device {
                None => format!("no rule lets this node reach {}", self.to),
                Some(_) => format!("no rule lets {} reach {}", self.from, self.to),
            });
        }
        Ok(answers)
    }

    fn egress(
        &self,
        egress: &Egress,
        device: Option<DeviceIndex>,
        evidence: Option<Evidence>,
    ) -> Decision {
        let standing = evidence.unwrap_or(UNKNOWN);
        let link = self.picture.parts().hearing.towards(standing.last_pass);
        self.rules
            .engine()
            .decide_way(egress, device, standing, link, self.now)
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
            rules: Vec::new(),
        }
    }
}

/// Of somebody who proved nothing.
const UNKNOWN: Evidence = Evidence {
    state: edgeward_identity::AttestationState::None,
    tier: None,
    last_pass: None,
    profiles: None,
    runs: None,
};
