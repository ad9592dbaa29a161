//! Asking the cloud for this node's address (STUN), and the calls that wait for the answer.

use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_wire::limits::{MAX_CALL_RELAYS, MAX_ENDPOINTS};
use edgeward_wire::stun::{self, Message, TransactionId};
use edgeward_wire::v1;

use super::{Act, Seeker};

/// When a question is asked again, after the first time; after the last of these it is given up.
const AGAIN_AFTER: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2400),
];
/// How long an answer is good for calls: shorter than any NAT forgets.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// Most calls that wait.
const MAX_WAITING: usize = 256;

/// The question under way.
#[derive(Debug, Default)]
pub(super) struct Asking {
    question: Option<Question>,
    /// When a question was answered, or given up: asking again at once tells nothing more.
    done: Option<BootTime>,
}

#[derive(Debug)]
struct Question {
    id: TransactionId,
    server: SocketAddr,
    tries: usize,
    again: BootTime,
}

impl Asking {
    pub(super) fn deadline(&self) -> Option<BootTime> {
        self.question.as_ref().map(|question| question.again)
    }

    fn is_fresh(&self, now: BootTime) -> bool {
        self.done.is_some_and(|at| now.since(at) < FRESH_FOR)
    }
}

impl Seeker {
    /// A STUN message came to the port.
    pub fn stun(&mut self, from: SocketAddr, bytes: &[u8], now: BootTime) {
        let Some(question) = &self.asking.question else {
            return;
        };
        // Whoever is on the path could forge it; nobody else knows the number.
        let Ok(Message::Success(id, address)) = Message::parse(bytes) else {
            return;
        };
        if id != question.id || from.ip().to_canonical() != question.server.ip().to_canonical() {
            return;
        }
        self.asking.question = None;
        self.asking.done = Some(now);
        if super::may_be_sent_to(address) {
            self.known.reflexive = Some(address);
            self.advertise();
        }
        self.call_waiting();
    }

    /// Asks, unless a question is under way.
    pub(super) fn ask(&mut self, now: BootTime) {
        if self.asking.question.is_some() {
            return;
        }
        let mut id = TransactionId::default();
        let Some(server) = self.seen.stun else {
            return self.call_waiting();
        };
        if self.random.fill(&mut id).is_err() {
            return self.call_waiting();
        }
        let [first, ..] = AGAIN_AFTER;
        self.asking.question = Some(Question {
            id,
            server,
            tries: 0,
            again: now.plus(first),
        });
        self.acts.push(Act::Send {
            to: server,
            bytes: stun::request(&id),
        });
    }

    pub(super) fn ask_again(&mut self, now: BootTime) {
        let Some(question) = &mut self.asking.question else {
            return;
        };
        if question.again > now {
            return;
        }
        question.tries += 1;
        if let Some(after) = AGAIN_AFTER.get(question.tries) {
            question.again = now.plus(*after);
            self.acts.push(Act::Send {
                to: question.server,
                bytes: stun::request(&question.id),
            });
        } else {
            // UDP does not reach the cloud: what is known else must do.
            self.asking.question = None;
            self.asking.done = Some(now);
            if self.known.reflexive.take().is_some() {
                self.advertise();
            }
            self.call_waiting();
        }
    }

    /// Calls a peer once this node's own address is fresh.
    pub(super) fn want_call(&mut self, peer: SpiffeId, answer: bool, now: BootTime) {
        if self.waiting.len() >= MAX_WAITING {
            return;
        }
        // A call says all that an answer says, and asks for one.
        let before = self.waiting.insert(peer.clone(), answer);
        if before == Some(false) {
            self.waiting.insert(peer, false);
        }
        match self.asking.is_fresh(now) {
            true => self.call_waiting(),
            false => self.ask(now),
        }
    }

    pub(super) fn call_waiting(&mut self) {
        for (peer, answer) in std::mem::take(&mut self.waiting) {
            let call = v1::Call {
                endpoints: self
                    .known
                    .candidates()
                    .iter()
                    .take(MAX_ENDPOINTS)
                    .map(ToString::to_string)
                    .collect(),
                relays: self.relays_for(&peer),
                spiffe_id: peer.to_string(),
                answer,
            };
            self.acts.push(Act::Call(call));
        }
    }

    /// Who relays to this node for that peer: relays that are bound, and the cloud if it already does.
    fn relays_for(&self, peer: &SpiffeId) -> Vec<String> {
        let nodes = self
            .relays
            .iter()
            .filter(|relay| *relay != peer && self.numbers.contains_key(*relay));
        let cloud = self
            .cloud
            .address_of(peer)
            .map(|_| format!("spiffe://{}/cloud/relay", peer.trust_domain()));
        // The cloud first: it must not be what does not fit.
        cloud
            .into_iter()
            .chain(nodes.map(ToString::to_string))
            .take(MAX_CALL_RELAYS)
            .collect()
    }
}
