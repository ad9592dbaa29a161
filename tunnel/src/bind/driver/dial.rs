//! Dialling a peer: its addresses race, and the first that answers is waited for.
//!
//! A handshake costs both ends a signature, so addresses are not tried all at once: the next one starts
//! [`DIAL_STAGGER`] after the one before it, and as soon as anything comes back from one of them, which costs nobody
//! a signature yet, the others are left alone.

mod heard;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::{Connection, Endpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::connection::{FromConnection, Tasks};
use super::own::random;
use super::{HANDSHAKE_TIMEOUT, MAX_ENDPOINTS, PeerTarget};
use crate::bind::Role;
use crate::bind::endpoint::Identity;
use crate::bind::gate::PassKey;
use crate::bind::machine::Channel;
use edgeward_identity::{Clock, TrustView};
pub(super) use heard::Heard;

/// How long an address has the field to itself before the next one is tried as well.
pub(super) const DIAL_STAGGER: Duration = Duration::from_millis(250);

/// Most addresses that one dial tries.
const MAX_TRIED: usize = 4 * MAX_ENDPOINTS;

/// What a dial needs.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) endpoint: Endpoint,
    pub(super) heard: Arc<Heard>,
    pub(super) identity: Arc<Identity>,
    pub(super) target: PeerTarget,
    /// Where else the peer may be, told while the dial goes on.
    pub(super) found: watch::Receiver<Vec<SocketAddr>>,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
}

/// One address and how it went: a connection with whom it should be with, or why not.
struct Attempt {
    address: SocketAddr,
    result: Result<(Connection, Channel), String>,
}

/// The addresses of one dial.
struct Race {
    rest: VecDeque<SocketAddr>,
    /// All that were ever in it.
    known: HashSet<SocketAddr>,
    running: JoinSet<Attempt>,
    aborts: HashMap<SocketAddr, AbortHandle>,
    answers: mpsc::Sender<SocketAddr>,
    /// From which something came back.
    answered: Option<SocketAddr>,
    next: Instant,
}

impl Dial {
    /// Tries the peer's addresses until one of them leads to it.
    pub(super) async fn run(self) {
        let peer = self.target.id.clone();
        match self.race().await {
            Ok((connection, channel)) => {
                self.tasks.carry(connection, channel, self.identity).await;
            }
            Err(reason) => {
                let failed = FromConnection::DialFailed { peer, reason };
                self.tasks.tell(failed).await;
            }
        }
    }

    async fn race(&self) -> Result<(Connection, Channel), String> {
        let (answers, mut heard) = mpsc::channel(MAX_ENDPOINTS);
        let mut race = Race::new(&self.target.endpoints, answers);
        let mut found = self.found.clone();
        let mut reason = "no endpoint is known".to_owned();
        loop {
            if race.is_over() {
                return Err(reason);
            }
            let may_start = race.may_start();
            tokio::select! {
                Some(ended) = race.running.join_next() => {
                    let Ok(attempt) = ended else {
                        // Those that were called off say nothing; the last one must not hold up the rest.
                        race.answered = race.answered.filter(|_| !race.running.is_empty());
                        continue;
                    };
                    match attempt.result {
                        Ok(won) => return Ok(won),
                        Err(why) => reason = format!("{}: {why}", attempt.address),
                    }
                    race.failed(attempt.address);
                }
                Some(address) = heard.recv() => race.hold_to(address),
                Ok(()) = found.changed() => race.also(&found.borrow_and_update()),
                () = tokio::time::sleep_until(race.next), if may_start => race.start(self),
            }
        }
    }

    async fn attempt(self, address: SocketAddr, answers: mpsc::Sender<SocketAddr>) -> Attempt {
        let ear = self.heard.listen(address);
        let handshake = self.handshake(address);
        tokio::pin!(handshake);
        let connected = tokio::select! {
            connected = &mut handshake => connected,
            () = ear.heard() => {
                // The race may be over.
                let _over = answers.send(address).await;
                handshake.await
            }
        };
        let result = connected.and_then(|connection| {
            let channel = self.identity.channel(
                &connection,
                Role::Initiator,
                &self.target.spki,
                &self.trust.load(),
                self.clock.now(),
            );
            let refused = match channel {
                Ok(channel) if *channel.peer.id() == self.target.id => {
                    return Ok((connection, channel));
                }
                Ok(channel) => format!("peer is another: {}", channel.peer.id()),
                Err(error) => error.to_string(),
            };
            connection.close(0_u32.into(), b"");
            Err(refused)
        });
        Attempt { address, result }
    }

    async fn handshake(&self, address: SocketAddr) -> Result<Connection, String> {
        let trust = self.trust.load();
        let key = PassKey::new(trust.bundle.trust_domain(), &self.target.spki);
        drop(trust);
        let nonce = random().map_err(|error| error.to_string())?;
        let pass = key.issue(&self.identity.party().spki, nonce);
        let connecting = self
            .identity
            .connect(&self.endpoint, address, pass)
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

impl Race {
    fn new(endpoints: &[SocketAddr], answers: mpsc::Sender<SocketAddr>) -> Self {
        let mut known = HashSet::new();
        let first = endpoints.iter().take(MAX_ENDPOINTS).copied();
        Self {
            rest: first.filter(|address| known.insert(*address)).collect(),
            known,
            running: JoinSet::new(),
            aborts: HashMap::new(),
            answers,
            answered: None,
            next: Instant::now(),
        }
    }

    /// Addresses that were found since: before those that nobody has tried yet, and without waiting for a turn. A relay
    /// that was asked for may be the only way.
    fn also(&mut self, endpoints: &[SocketAddr]) {
        let mut new = VecDeque::new();
        for address in endpoints.iter().take(MAX_ENDPOINTS) {
            if self.known.len() < MAX_TRIED && self.known.insert(*address) {
                new.push_back(*address);
            }
        }
        if !new.is_empty() {
            new.append(&mut self.rest);
            self.rest = new;
            self.next = Instant::now();
        }
    }

    fn is_over(&self) -> bool {
        self.rest.is_empty() && self.running.is_empty()
    }

    fn may_start(&self) -> bool {
        self.answered.is_none() && !self.rest.is_empty()
    }

    fn start(&mut self, dial: &Dial) {
        if let Some(address) = self.rest.pop_front() {
            let attempt = dial.clone().attempt(address, self.answers.clone());
            self.aborts.insert(address, self.running.spawn(attempt));
            self.next = Instant::now() + DIAL_STAGGER;
        }
    }

    /// Somebody is there: the others wait, and have their turn should it come to nothing.
    fn hold_to(&mut self, address: SocketAddr) {
        if self.answered.is_some() || !self.aborts.contains_key(&address) {
            return;
        }
        self.answered = Some(address);
        let others: Vec<SocketAddr> = self
            .aborts
            .keys()
            .filter(|other| **other != address)
            .copied()
            .collect();
        for other in others {
            if let Some(abort) = self.aborts.remove(&other) {
                abort.abort();
                self.rest.push_back(other);
            }
        }
    }

    fn failed(&mut self, address: SocketAddr) {
        self.aborts.remove(&address);
        if self.answered == Some(address) {
            self.answered = None;
        }
        self.next = Instant::now();
    }
}
