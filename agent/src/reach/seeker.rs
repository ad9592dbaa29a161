//! Seeks ways to peers: everything between the session, enforcement and the core of paths. Pure, told the time and
//! handed its randomness; what is to be done comes out as [`Act`]s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, Kind, SpiffeId};
use edgeward_tunnel::node::{Endpoint, PeerId, Random};
use edgeward_tunnel::reach::{self, Input, Output, Quality, Reach};
use edgeward_wire::limits::{MAX_CALL_RELAYS, MAX_ENDPOINTS};
use edgeward_wire::v1;

use super::candidates::{Known, may_be_sent_to};
use super::knocks::Knocks;
use super::local::Local;
use super::ways::{By, Step, Ways};
use crate::view::CloudSeen;

mod act;
mod asking;
mod cloud;

pub use act::{Act, NewlyBound};
pub use cloud::CHANNEL_FOR;

use asking::Asking;
use cloud::Cloud;

/// How long what a call says of a peer's addresses is believed.
const HEARD_FOR: Duration = Duration::from_secs(120);
/// Most addresses that peers saw this node at.
const MAX_OBSERVED: usize = 4;
/// Bytes of a knock: as long as a ping, so that nobody tells them apart.
const KNOCK_BYTES: usize = 62;

/// All of it.
pub struct Seeker {
    reach: Reach,
    random: Box<dyn Random>,
    ways: Ways,
    knocks: Knocks,
    known: Known,
    told: Vec<SocketAddr>,
    seen: CloudSeen,
    asking: Asking,
    cloud: Cloud,
    /// Whom policy lets this node meet.
    permitted: BTreeSet<SpiffeId>,
    relays: Vec<SpiffeId>,
    /// Whom enforcement wants bound, and where the directory says they are.
    wanted: BTreeMap<SpiffeId, Vec<SocketAddr>>,
    bound: HashMap<PeerId, SpiffeId>,
    numbers: HashMap<SpiffeId, PeerId>,
    /// What calls said of addresses.
    heard: BTreeMap<SpiffeId, (Vec<SocketAddr>, BootTime)>,
    /// Routes through relays that were granted or offered.
    detours: BTreeMap<SpiffeId, Vec<SocketAddr>>,
    /// Calls that wait for this node's own address: to whom, and whether they are answers.
    waiting: BTreeMap<SpiffeId, bool>,
    acts: Vec<Act>,
}

impl Seeker {
    pub fn new(reach: Reach, random: Box<dyn Random>, port: u16, metered: bool) -> Self {
        Self {
            reach,
            random,
            ways: Ways::new(metered),
            knocks: Knocks::default(),
            known: Known {
                port,
                ..Known::default()
            },
            told: Vec::new(),
            seen: CloudSeen::default(),
            asking: Asking::default(),
            cloud: Cloud::default(),
            permitted: BTreeSet::new(),
            relays: Vec::new(),
            wanted: BTreeMap::new(),
            bound: HashMap::new(),
            numbers: HashMap::new(),
            heard: BTreeMap::new(),
            detours: BTreeMap::new(),
            waiting: BTreeMap::new(),
            acts: Vec::new(),
        }
    }

    /// What is to be done since this was asked last.
    pub fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// All paths of all bound peers.
    pub fn qualities(&self) -> Vec<Quality> {
        self.reach.qualities()
    }

    /// What is known of this node's own addresses.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<BootTime> {
        [
            self.reach.deadline(),
            self.ways.deadline(),
            self.knocks.deadline(),
            self.asking.deadline(),
            self.cloud.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time passed.
    pub fn tick(&mut self, now: BootTime) {
        self.input(Input::Tick, now);
        let random = &self.random;
        for step in self.ways.due(now, || jitter(&**random)) {
            match step {
                Step::Call(peer) => self.want_call(peer, false, now),
                Step::AskRelays(peer) => self.ask_relays(&peer, now),
                Step::AskCloud(peer) => {
                    if self.open_channel(&peer, now) {
                        self.want_call(peer, false, now);
                    }
                }
            }
        }
        for to in self.knocks.due(now) {
            let mut bytes = vec![0; KNOCK_BYTES];
            if self.random.fill(&mut bytes).is_ok() {
                for (place, byte) in bytes.iter_mut().zip(reach::message::REACH_CLASS) {
                    *place = byte;
                }
                self.acts.push(Act::Send { to, bytes });
            }
        }
        self.ask_again(now);
        self.close_idle_channels(now);
        self.heard
            .retain(|_, (_, since)| now.since(*since) < HEARD_FOR);
    }

    /// A slice came into force: whom it lets meet this node, and which of them are relays, best first.
    pub fn policy(&mut self, permitted: BTreeSet<SpiffeId>, relays: Vec<SpiffeId>, now: BootTime) {
        self.heard.retain(|peer, _| permitted.contains(peer));
        self.detours.retain(|peer, _| permitted.contains(peer));
        self.waiting.retain(|peer, _| permitted.contains(peer));
        self.permitted = permitted;
        self.relays.clone_from(&relays);
        self.input(Input::Relays(relays), now);
        self.input(Input::Recheck, now);
        let permitted = &self.permitted;
        let gone = self.cloud.keep_only(|peer| permitted.contains(peer));
        self.closed(gone, now);
    }

    /// Whom enforcement wants bound from now on, and where the directory says they are.
    pub fn wanted(&mut self, wanted: BTreeMap<SpiffeId, Vec<SocketAddr>>, now: BootTime) {
        let random = &self.random;
        let names = wanted.keys().cloned();
        self.ways.wanted(names, now, || jitter(&**random));
        let moved: Vec<SpiffeId> = wanted
            .iter()
            .filter(|(peer, at)| self.wanted.get(*peer) != Some(*at))
            .map(|(peer, _)| peer.clone())
            .collect();
        self.wanted = wanted;
        for peer in moved {
            self.tell_candidates(&peer, now);
        }
        let unknown: Vec<SpiffeId> = self
            .ways
            .missing()
            .filter(|peer| self.numbers.contains_key(*peer))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            self.look_at(&unknown, now);
        }
    }

    /// WireGuard was armed.
    pub fn bound(&mut self, number: PeerId, bound: NewlyBound, now: BootTime) {
        let NewlyBound {
            peer,
            key,
            role,
            at,
        } = bound;
        self.bound.insert(number, peer.clone());
        self.numbers.insert(peer.clone(), number);
        let input = Input::Bound {
            peer: peer.clone(),
            id: number,
            key,
            role,
            at,
        };
        self.input(input, now);
        self.tell_candidates(&peer, now);
        let by = match reach::is_detour(&at.remote) {
            true => By::Detour,
            false => By::Direct,
        };
        let jitter = jitter(&*self.random);
        self.ways.reached(&peer, by, now, jitter);
        self.waiting.remove(&peer);
    }

    /// The bound peer behind a number.
    pub fn peer(&self, number: PeerId) -> Option<&SpiffeId> {
        self.bound.get(&number)
    }

    /// It was cut, or rests.
    pub fn unbound(&mut self, number: PeerId, now: BootTime) {
        self.input(Input::Unbound(number), now);
        let Some(peer) = self.bound.remove(&number) else {
            return;
        };
        if self.numbers.get(&peer) == Some(&number) {
            self.numbers.remove(&peer);
            let jitter = jitter(&*self.random);
            self.ways.reached(&peer, By::Nothing, now, jitter);
        }
    }

    /// WireGuard found a peer at another address.
    pub fn roamed(&mut self, peer: PeerId, to: SocketAddr, now: BootTime) {
        self.input(Input::Roamed { peer, to }, now);
    }

    /// What WireGuard counted.
    pub fn traffic(&mut self, peer: PeerId, sent: u64, received: u64, now: BootTime) {
        let input = Input::Traffic {
            peer,
            sent,
            received,
        };
        self.input(input, now);
    }

    /// A reach message came.
    pub fn datagram(&mut self, from: Endpoint, bytes: &[u8], now: BootTime) {
        self.input(Input::Datagram { from, bytes }, now);
    }

    /// This machine's network is another one.
    pub fn local(&mut self, local: Local, now: BootTime) {
        let Local {
            addresses,
            towards_cloud,
        } = local;
        self.known.local.clone_from(&addresses);
        self.known.towards_cloud = towards_cloud;
        self.known.observed.clear();
        self.known.reflexive = None;
        self.asking = Asking::default();
        self.input(Input::Local(addresses), now);
        let random = &self.random;
        self.ways.again(now, || jitter(&**random));
        self.advertise();
        self.ask(now);
    }

    /// The session began anew.
    pub fn session(&mut self, seen: CloudSeen, now: BootTime) {
        self.known.session = seen.seen_from.map(|from| from.ip());
        self.seen = seen;
        self.acts
            .push(Act::ExpectStun(self.seen.stun.into_iter().collect()));
        let random = &self.random;
        self.ways.again(now, || jitter(&**random));
        self.advertise();
        self.ask(now);
    }

    /// A peer calls.
    pub fn called(&mut self, called: &v1::Called, now: BootTime) {
        let Some(peer) = self.permitted_node(&called.spiffe_id) else {
            metrics::counter!("edgeward_reach_calls_refused_total").increment(1);
            return;
        };
        let addresses: Vec<SocketAddr> = called
            .endpoints
            .iter()
            .take(MAX_ENDPOINTS)
            .filter_map(|endpoint| endpoint.parse().ok())
            .filter(|address| may_be_sent_to(*address))
            .collect();
        tracing::debug!(%peer, ?addresses, relays = ?called.relays, answer = called.answer, "called");
        self.knocks.begin(&peer, &addresses, now);
        self.heard.insert(peer.clone(), (addresses, now));
        for relay in called.relays.iter().take(MAX_CALL_RELAYS) {
            match relay.parse::<SpiffeId>() {
                Ok(relay) if relay.kind() == Kind::Cloud => {
                    self.open_channel(&peer, now);
                }
                Ok(relay) if self.relays.contains(&relay) => {
                    if !self.numbers.contains_key(&relay) {
                        self.acts.push(Act::Wake(relay));
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.tell_candidates(&peer, now);
        if !called.answer {
            self.want_call(peer, true, now);
        }
    }

    /// The relays that policy knows are asked for routes; those that are not bound are woken.
    fn ask_relays(&mut self, peer: &SpiffeId, now: BootTime) {
        for relay in self.relays.clone() {
            if relay == *peer {
                continue;
            }
            if self.numbers.contains_key(&relay) {
                let to = peer.clone();
                self.input(Input::WantRelay { relay, to }, now);
            } else {
                self.acts.push(Act::Wake(relay));
            }
        }
    }

    /// Hands something to the core, and looks at what it says.
    fn input(&mut self, input: Input<'_>, now: BootTime) {
        for output in self.reach.handle(input, now) {
            match output {
                Output::Granted { to, address, .. } => self.detour(to, address, now),
                Output::Offered { from, address, .. } => self.detour(from, address, now),
                Output::NotGranted { relay, to, code } => {
                    tracing::debug!(%relay, %to, ?code, "no route");
                }
                Output::Observed { address, by, .. } => {
                    tracing::debug!(%address, %by, "seen");
                    self.observed(address);
                }
                Output::Switched { peer, from, to } => self.switched(&peer, from, to, now),
                Output::DetourGone { address } => {
                    for known in self.detours.values_mut() {
                        known.retain(|known| *known != address);
                    }
                    self.detours.retain(|_, known| !known.is_empty());
                    self.acts.push(Act::Perform(Output::DetourGone { address }));
                }
                other => self.acts.push(Act::Perform(other)),
            }
        }
    }

    fn detour(&mut self, peer: SpiffeId, address: SocketAddr, now: BootTime) {
        let known = self.detours.entry(peer.clone()).or_default();
        if !known.contains(&address) {
            known.push(address);
        }
        self.tell_candidates(&peer, now);
    }

    fn observed(&mut self, address: SocketAddr) {
        self.known.observed.retain(|known| *known != address);
        self.known.observed.insert(0, address);
        self.known.observed.truncate(MAX_OBSERVED);
        self.advertise();
    }

    fn switched(
        &mut self,
        peer: &SpiffeId,
        from: Option<reach::Kind>,
        to: Option<reach::Kind>,
        now: BootTime,
    ) {
        tracing::info!(%peer, from = name_of(from.as_ref()), to = name_of(to.as_ref()), "path");
        metrics::counter!("edgeward_path_switches_total", "to" => name_of(to.as_ref()))
            .increment(1);
        self.acts.push(Act::Switched {
            peer: peer.clone(),
            from: name_of(from.as_ref()),
            to: name_of(to.as_ref()),
        });
        let jitter = jitter(&*self.random);
        self.ways.reached(peer, by(to.as_ref()), now, jitter);
    }

    /// Peers that were bound before they were wanted: how they are reached.
    fn look_at(&mut self, peers: &[SpiffeId], now: BootTime) {
        for quality in self.reach.qualities() {
            if quality.chosen && quality.alive && peers.contains(&quality.peer) {
                let jitter = jitter(&*self.random);
                self.ways
                    .reached(&quality.peer, by(Some(&quality.kind)), now, jitter);
            }
        }
    }

    /// A bound peer's addresses go to the core; one that is only wanted is dialled at them.
    fn tell_candidates(&mut self, peer: &SpiffeId, now: BootTime) {
        let heard = self.heard.get(peer).map(|(heard, _)| heard.clone());
        let direct = heard.unwrap_or_default();
        match self.numbers.get(peer) {
            Some(number) => {
                let mut addresses = direct;
                for address in self.wanted.get(peer).into_iter().flatten() {
                    if !addresses.contains(address) {
                        addresses.push(*address);
                    }
                }
                let peer = *number;
                self.input(Input::Candidates { peer, addresses }, now);
            }
            None => {
                let mut addresses = direct;
                addresses.extend(self.detours.get(peer).into_iter().flatten());
                addresses.extend(self.cloud.address_of(peer));
                if self.wanted.contains_key(peer) && !addresses.is_empty() {
                    self.acts.push(Act::Dial {
                        peer: peer.clone(),
                        addresses,
                    });
                }
            }
        }
    }

    /// Tells the cloud this node's addresses, if they are others.
    fn advertise(&mut self) {
        let candidates = self.known.candidates();
        if candidates != self.told {
            self.told.clone_from(&candidates);
            let said = candidates.iter().map(ToString::to_string).collect();
            self.acts.push(Act::Advertise(said));
        }
    }

    fn permitted_node(&self, id: &str) -> Option<SpiffeId> {
        let id: SpiffeId = id.parse().ok()?;
        self.permitted.contains(&id).then_some(id)
    }
}

fn by(kind: Option<&reach::Kind>) -> By {
    match kind {
        None => By::Nothing,
        Some(reach::Kind::Direct) => By::Direct,
        Some(reach::Kind::Relay(_) | reach::Kind::Cloud) => By::Detour,
    }
}

/// As metrics and logs call a way.
pub fn name_of(kind: Option<&reach::Kind>) -> &'static str {
    match kind {
        None => "none",
        Some(reach::Kind::Direct) => "direct",
        Some(reach::Kind::Relay(_)) => "relay",
        Some(reach::Kind::Cloud) => "cloud",
    }
}

/// Without randomness there is no spread, and nothing else is lost.
fn jitter(random: &dyn Random) -> u16 {
    let mut bytes = [0; 2];
    match random.fill(&mut bytes) {
        Ok(()) => u16::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
