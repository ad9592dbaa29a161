//! Everything that a decision about a flow rests on, at one moment.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use edgeward_evidence::app_log::Runs;
use edgeward_identity::{BootTime, SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::{
    Decision, Link, PeerIndex, Place, Proto, Reason, Standing as Evidence, StatedProfiles, Subject,
};
use edgeward_tunnel::bind::claims::PeerClaims;
use edgeward_tunnel::filter::{Direction, FlowKey, FlowVerdict};
use edgeward_tunnel::node::PeerId;

use super::guests::Asked;
use super::reason::{self, Nothing};
use super::rules::{Rules, Spot};
use crate::enforce::hearing::Hearing;
use crate::enforce::own::OwnResult;
use crate::view::{CutFloors, Overlay, Standing};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A peer whose bind is open and recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPeer {
    pub id: SpiffeId,
    pub spki: SpkiHash,
    /// What its evidence says.
    pub evidence: Evidence,
    /// What it is proven to run; `None`: nothing proves what.
    pub runs: Option<Arc<Runs>>,
    /// Its present boot is known by its own statement only.
    pub by_boot_statement: bool,
}

/// Both clocks at one moment: wall time at any later moment is this plus what the boot clock ran since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub wall: Timestamp,
    pub boot: BootTime,
}

/// What a [`Picture`] is made of.
#[derive(Clone, Debug)]
pub struct PictureParts {
    pub standing: Standing,
    pub node: SpiffeId,
    pub overlay: Overlay,
    /// What the cloud said of this node itself last.
    pub own: Option<OwnResult>,
    pub floors: Arc<CutFloors>,
    pub hearing: Hearing,
    /// The node through which this machine wants to reach the internet.
    pub exit: Option<SpiffeId>,
    pub rules: Option<Arc<Rules>>,
    pub anchor: Anchor,
    pub bound: HashMap<PeerId, BoundPeer>,
    /// Ports of the tunnel at which the gateway listens: nobody gets past it to what else listens there.
    pub listening: Arc<HashSet<(Proto, u16)>>,
    /// Spots of other networks at which it listens.
    pub served: Arc<HashSet<Spot>>,
}

/// One moment's picture.
#[derive(Debug)]
pub struct Picture {
    pub(super) parts: PictureParts,
    bound: HashMap<PeerId, Known>,
    by_index: HashMap<PeerIndex, PeerId>,
    changes_at: OnceLock<Option<Timestamp>>,
}

#[derive(Debug)]
struct Known {
    index: Option<PeerIndex>,
    evidence: Evidence,
    by_boot_statement: bool,
    admitted: bool,
}

/// Evidence as the policy engine asks for it.
pub(super) fn standing_of(claims: &PeerClaims) -> Evidence {
    Evidence {
        state: claims.state(),
        tier: Some(claims.tier()),
        last_pass: Some(claims.passed()),
        profiles: StatedProfiles::of_result(claims.profile()),
        runs: None,
    }
}

/// Evidence with what it says of what the rules want run. Said of these rules alone: under others it is unknown.
pub(super) fn running(evidence: Evidence, runs: Option<&Runs>, rules: Option<&Rules>) -> Evidence {
    Evidence {
        runs: runs
            .zip(rules)
            .map(|(runs, rules)| rules.engine().wants().met_by(runs)),
        ..evidence
    }
}

impl BoundPeer {
    /// What its evidence says under the rules of a picture.
    pub fn evidence_in(&self, picture: &Picture) -> Evidence {
        let rules = picture.parts.rules.as_deref();
        running(self.evidence, self.runs.as_deref(), rules)
    }

    /// Whether evidence says the same, whenever it passed.
    pub fn says_as(&self, other: &Self) -> bool {
        let said = |peer: &Self| {
            let evidence = peer.evidence;
            (evidence.state, evidence.tier, evidence.profiles)
        };
        said(self) == said(other) && self.runs == other.runs
    }

    pub fn new(id: SpiffeId, spki: SpkiHash, claims: &PeerClaims) -> Self {
        Self {
            id,
            spki,
            evidence: standing_of(claims),
            runs: claims.runs().cloned(),
            by_boot_statement: claims.by_boot_statement(),
        }
    }
}

impl Anchor {
    pub fn wall_at(&self, boot: BootTime) -> Timestamp {
        self.wall.plus(boot.since(self.boot))
    }

    /// The wall time of something that happened before.
    pub fn wall_of(&self, before: BootTime) -> Timestamp {
        self.wall.minus(self.boot.since(before))
    }

    pub fn boot_at(&self, wall: Timestamp) -> BootTime {
        self.boot.plus(wall.since(self.wall))
    }
}

impl Picture {
    pub fn new(parts: PictureParts) -> Self {
        let bound: HashMap<PeerId, Known> = parts
            .bound
            .iter()
            .map(|(number, peer)| (*number, Known::new(peer, &parts)))
            .collect();
        let by_index = bound
            .iter()
            .filter_map(|(number, known)| Some((known.index?, *number)))
            .collect();
        Self {
            parts,
            bound,
            by_index,
            changes_at: OnceLock::new(),
        }
    }

    pub fn parts(&self) -> &PictureParts {
        &self.parts
    }

    /// Why nothing at all is granted, if so.
    pub fn may_grant(&self) -> Result<&Rules, Nothing> {
        let parts = &self.parts;
        parts
            .standing
            .may_grant()
            .map_err(|held| Nothing::Held(held.code()))?;
        let passed = parts.own.map(|own| own.passed).unwrap_or_default();
        if !parts.floors.admits(&parts.node, passed) {
            return Err(Nothing::SelfCut);
        }
        parts.rules.as_deref().ok_or(Nothing::NoPolicy)
    }

    /// Whether a flow may be.
    pub fn flow(
        &self,
        flow: &FlowKey,
        peer: PeerId,
        direction: Direction,
        now: BootTime,
    ) -> FlowVerdict {
        match self.judge(flow, peer, direction, now) {
            Ok(decision) => FlowVerdict {
                allow: decision.is_allow() && decision.rule.is_some(),
                rule: reason::label(&decision),
                valid_until: self.parts.anchor.boot_at(decision.valid_until),
            },
            // Whatever ends such a denial makes a new picture and a new epoch.
            Err(nothing) => FlowVerdict {
                allow: false,
                rule: nothing.as_str().into(),
                valid_until: BootTime::from_duration(std::time::Duration::MAX),
            },
        }
    }

    /// When the engine's answer about any bound peer may change by time alone. Reckoned once for each picture.
    pub fn changes_at(&self) -> Option<Timestamp> {
        let now = self.parts.anchor.wall;
        *self.changes_at.get_or_init(|| {
            let rules = self.may_grant().ok()?;
            let meets = self.bound.values().filter_map(|known| {
                let link = self.link(known);
                let engine = rules.engine();
                let decision = engine.meet(known.index?, known.evidence, link, now);
                Some(decision.valid_until)
            });
            meets.filter(|time| *time > now).min()
        })
    }

    fn judge(
        &self,
        flow: &FlowKey,
        peer: PeerId,
        direction: Direction,
        now: BootTime,
    ) -> Result<Decision, Nothing> {
        let rules = self.may_grant()?;
        let known = self.bound.get(&peer).ok_or(Nothing::NotBound)?;
        if !known.admitted {
            return Err(Nothing::Cut);
        }
        let link = self.link(known);
        if known.by_boot_statement && link == Link::Online {
            return Err(Nothing::StatementOnline);
        }
        let proto = match flow.protocol {
            TCP => Proto::Tcp,
            UDP => Proto::Udp,
            _ => return Err(Nothing::Protocol),
        };
        let (ours, theirs) = match direction {
            Direction::In => (flow.destination, flow.source),
            Direction::Out => (flow.source, flow.destination),
        };
        let engine = rules.engine();
        let wall = self.parts.anchor.wall_at(now);
        let port = flow.destination_port;
        let Some(index) = known.index else {
            return Ok(refusal(rules, Reason::UnknownSubject));
        };
        let asked = Asked {
            rules,
            peer: index,
            service: (proto, port),
            evidence: known.evidence,
            link,
            now: wall,
        };
        let place = |address| Place {
            proto,
            address,
            port,
        };
        if !self.is_ours(ours) {
            // Of those behind this node its devices go where rules let them; whom the peer itself wants to reach there, it
            // asks for.
            if direction == Direction::Out {
                return self.traveller_goes(&asked, ours, theirs);
            }
            if !rules.leads_to(ours) {
                return Err(Nothing::NotOurs);
            }
            if rules.peer_at(theirs) != Some(index) {
                return Err(Nothing::NotOurs);
            }
            let subject = Subject::Peer(index);
            return Ok(engine.admit_beyond(subject, known.evidence, place(ours), link, wall));
        }
        if rules.peer_at(theirs) != Some(index) {
            return match direction {
                Direction::In => self.guest_comes(&asked, theirs),
                Direction::Out => {
                    let (evidence, place) = (known.evidence, place(theirs));
                    Ok(engine.decide_egress_beyond(index, place, evidence, link, wall))
                }
            };
        }
        Ok(match direction {
            Direction::Out => {
                engine.decide_egress(index, (proto, port), known.evidence, link, wall)
            }
            Direction::In => self.admit_here(&asked, Subject::Peer(index))?,
        })
    }

    /// The destination of a flow, if it is neither this node's own address nor a peer's.
    pub fn beyond(&self, destination: IpAddr, direction: Direction) -> Option<IpAddr> {
        let rules = self.parts.rules.as_deref();
        let own = match direction {
            Direction::In => self.is_ours(destination),
            Direction::Out => rules.is_some_and(|rules| rules.peer_at(destination).is_some()),
        };
        (!own).then_some(destination)
    }

    /// Whether this node is a relay, and may carry what these two bound peers send each other. It sees ciphertext only;
    /// what they may do with each other is theirs to decide.
    pub fn may_carry(&self, from: &SpiffeId, to: &SpiffeId) -> bool {
        let carries = self
            .may_grant()
            .is_ok_and(|rules| rules.engine().slice().roles.relay);
        carries && from != to && self.is_admitted(from) && self.is_admitted(to)
    }

    /// Whether policy has a peer carry for this node, to another peer that it may meet.
    pub fn may_use(&self, relay: &SpiffeId, peer: &SpiffeId) -> bool {
        let Ok(rules) = self.may_grant() else {
            return false;
        };
        let known = |id| {
            let index = rules.peer(id)?;
            rules.engine().slice().peers.get(index.0 as usize)
        };
        relay != peer && known(relay).is_some_and(|relay| relay.relay) && known(peer).is_some()
    }

    fn is_admitted(&self, id: &SpiffeId) -> bool {
        self.evidence_of_bound(id, None).is_ok()
    }

    /// A bound peer of the policy, whatever it may.
    pub fn bound_peer(&self, id: &SpiffeId) -> Option<&BoundPeer> {
        let index = self.parts.rules.as_deref()?.peer(id)?;
        self.parts.bound.get(self.by_index.get(&index)?)
    }

    /// The bound peer that owns an overlay address.
    pub fn peer_at(&self, address: IpAddr) -> Option<&SpiffeId> {
        let rules = self.may_grant().ok()?;
        let index = rules.peer_at(address)?;
        let number = self.by_index.get(&index)?;
        Some(&self.parts.bound.get(number)?.id)
    }

    /// The evidence of a bound peer, and the link towards it; with the key that it bound with, where one is given.
    pub(super) fn evidence_of_bound(
        &self,
        id: &SpiffeId,
        spki: Option<&SpkiHash>,
    ) -> Result<(Evidence, Link), Nothing> {
        let rules = self.may_grant()?;
        let index = rules.peer(id).ok_or(Nothing::NotBound)?;
        let number = self.by_index.get(&index).ok_or(Nothing::NotBound)?;
        let known = self.bound.get(number).ok_or(Nothing::NotBound)?;
        let peer = self.parts.bound.get(number).ok_or(Nothing::NotBound)?;
        if spki.is_some_and(|spki| *spki != peer.spki) {
            return Err(Nothing::NotBound);
        }
        if !known.admitted {
            return Err(Nothing::Cut);
        }
        let link = self.link(known);
        if known.by_boot_statement && link == Link::Online {
            return Err(Nothing::StatementOnline);
        }
        Ok((known.evidence, link))
    }

    pub(super) fn link_towards(&self, passed: Option<Timestamp>) -> Link {
        self.parts.hearing.towards(passed)
    }

    fn link(&self, known: &Known) -> Link {
        self.parts.hearing.towards(known.evidence.last_pass)
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V6(v6) => v6 == self.parts.overlay.v6,
            IpAddr::V4(v4) => self.parts.overlay.v4 == Some(v4),
        }
    }
}

impl Known {
    fn new(peer: &BoundPeer, parts: &PictureParts) -> Self {
        let passed = peer.evidence.last_pass.unwrap_or_default();
        Self {
            index: parts.rules.as_ref().and_then(|rules| rules.peer(&peer.id)),
            evidence: running(peer.evidence, peer.runs.as_deref(), parts.rules.as_deref()),
            by_boot_statement: peer.by_boot_statement,
            admitted: parts.floors.admits(&peer.id, passed),
        }
    }
}

pub(super) fn refusal(rules: &Rules, reason: Reason) -> Decision {
    Decision {
        verdict: edgeward_policy::Verdict::Deny,
        rule: None,
        nearest: None,
        reason,
        valid_until: rules.engine().slice().expires,
        fresh: edgeward_policy::Seconds::default(),
        offline: edgeward_policy::Seconds::default(),
    }
}
