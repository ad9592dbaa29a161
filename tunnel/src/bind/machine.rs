//! The bind as a state machine: no I/O, told the time, handed its randomness.
//!
//! ```text
//! initiator                                   responder
//! AwaitOffer   -- Offer ------------------->  AwaitOffer    (result, boot key, policy, lease judged)
//! (the same)   <-- Offer, Proof ------------  AwaitProof
//! AwaitProof   -- Proof ------------------->                arms WireGuard: [`Output::Arm`]
//! AwaitArmed   <-- Armed(0) ----------------  AwaitConfirm
//! arms, triggers the WireGuard handshake
//! AwaitConfirm ~~ handshake under PSK_0 ~~~~                both: [`Output::Open`]
//! Open         -- Turn(e+1, nonce) -------->  Open          derives PSK_(e+1), arms it
//!              <-- Turn(e+1, nonce) --------
//! arms PSK_(e+1), triggers the handshake
//! ```
//!
//! Whoever drives a machine performs its outputs in their order, and when one cannot be performed drops the rest
//! and tells [`Input::Failed`]. Forwarding opens by [`Output::Open`] only, and that comes only after WireGuard
//! itself confirmed a handshake under the key of this bind. Every refusal ends the machine; a machine that has
//! ended answers nothing.

mod facts;
mod interface;
mod open;
mod steps;

use std::time::Duration;

use edgeward_identity::{BootTime, Secret, Timestamp, VerifiedPeer};

use super::Role;
use super::code::Code;
use super::codec::{self, Message};
use super::ending::{By, Ending, Fault};
use super::kem::KemKey;
use super::proof::Proven;
use super::schedule::{EXPORTER_BYTES, Schedule};

pub use facts::{Local, Presented};
pub use interface::{Arm, Channel, Input, Memory, Opened, Output, Seeds, Surroundings};
pub(super) use steps::parties_of;

/// Version of the bind protocol.
pub const VERSION: u16 = 1;
/// Longest time from the TLS handshake to the confirmed WireGuard handshake.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a pre-shared key is used before the initiator turns the epoch.
pub const TURN_INTERVAL: Duration = Duration::from_secs(8 * 60);
/// Longest time from asking for a turn to the confirmed WireGuard handshake: with [`TURN_INTERVAL`] no epoch is
/// used for more than ten minutes on a live connection.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(90);
/// How long after a turn the responder waits for the next before it gives up the connection.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// One bind, from the TLS handshake to its end.
pub struct Machine {
    role: Role,
    peer: VerifiedPeer,
    context: [u8; 32],
    local: Local,
    root: Option<Secret<[u8; EXPORTER_BYTES]>>,
    presented: Option<Presented>,
    state: State,
    /// When the present state must have been left.
    patience: Option<BootTime>,
    /// Our result changed after our offer went out.
    own_result_is_new: bool,
}

enum State {
    AwaitOffer(OwnPart),
    AwaitProof(Box<Agreed>),
    /// The initiator has proved itself and waits for the responder to arm.
    AwaitArmed(Box<Agreed>),
    AwaitConfirm(Box<Agreed>),
    Open(Box<open::Live>),
    /// Open, without a connection.
    Adrift,
    Ended,
}

/// What this side keeps while it waits for the peer's offer.
enum OwnPart {
    Initiator { offer: Vec<u8>, key: Box<KemKey> },
    Responder { seeds: Box<Seeds> },
}

/// Both offers are known.
struct Agreed {
    schedule: Schedule,
    proven: Proven,
}

impl Machine {
    /// Starts after the TLS handshake. An initiator's outputs hold its offer.
    pub fn start(
        channel: Channel,
        local: Local,
        seeds: Seeds,
        around: &Surroundings<'_>,
    ) -> (Self, Vec<Output>) {
        let mut machine = Self {
            role: channel.role,
            peer: channel.peer,
            context: channel.context,
            local,
            root: Some(channel.root),
            presented: None,
            state: State::Ended,
            patience: Some(around.now.boot.plus(BIND_TIMEOUT)),
            own_result_is_new: false,
        };
        let mut out = Vec::new();
        if let Err(fault) = machine.check_identity(around) {
            machine.end(fault.ending(false), true, &mut out);
            return (machine, out);
        }
        machine.state = State::AwaitOffer(match channel.role {
            Role::Initiator => {
                let key = Box::new(KemKey::from_seed(&seeds.kem));
                let offer = machine.local.offer_of_initiator(&key, seeds.nonce).body();
                out.push(Output::Send(codec::frame(&offer)));
                OwnPart::Initiator { offer, key }
            }
            Role::Responder => OwnPart::Responder {
                seeds: Box::new(seeds),
            },
        });
        (machine, out)
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: Input<'_>, around: &Surroundings<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.state, State::Ended) {
            return out;
        }
        match input {
            Input::Leave { code, cut } => {
                let ending = Ending {
                    code,
                    reason: format!("left: {code}"),
                    by: By::Us,
                    cut,
                };
                self.end(ending, true, &mut out);
            }
            Input::Disconnected if self.is_adrift() => {}
            Input::Disconnected => {
                let ending = Ending {
                    code: Code::Lost,
                    reason: "connection lost".to_owned(),
                    by: By::Peer,
                    cut: false,
                };
                self.end(ending, false, &mut out);
            }
            Input::Failed(reason) => {
                let ending = Ending {
                    code: Code::Internal,
                    reason,
                    by: By::Us,
                    cut: true,
                };
                self.end(ending, true, &mut out);
            }
            Input::Tick => self.tick(around, &mut out),
            input => {
                let armed = self.is_armed();
                if let Err(fault) = self.step(input, around, &mut out) {
                    self.end(fault.ending(armed), true, &mut out);
                }
            }
        }
        out
    }

    /// When [`Input::Tick`] is due next.
    pub fn deadline(&self) -> Option<BootTime> {
        let lease = match &self.state {
            State::AwaitConfirm(_) | State::Open(_) | State::Adrift => {
                self.presented.as_ref().map(|presented| presented.until)
            }
            _ => None,
        };
        let turn = match &self.state {
            State::Open(live) => live.turn_due(),
            _ => None,
        };
        [self.patience, lease, turn].into_iter().flatten().min()
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// What the peer offered and proved so far; its WireGuard key is known from the first offer on.
    pub fn presented(&self) -> Option<&Presented> {
        self.presented.as_ref()
    }

    pub fn local(&self) -> &Local {
        &self.local
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it watches a tunnel without a connection.
    pub fn is_adrift(&self) -> bool {
        matches!(self.state, State::Adrift)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether WireGuard may hold a key of this bind.
    pub fn is_armed(&self) -> bool {
        matches!(
            self.state,
            State::AwaitConfirm(_) | State::Open(_) | State::Adrift
        )
    }

    fn tick(&mut self, around: &Surroundings<'_>, out: &mut Vec<Output>) {
        let now = around.now.boot;
        let lease_over = self.is_armed()
            && self
                .presented
                .as_ref()
                .is_none_or(|presented| presented.until <= now);
        if lease_over {
            let ending = Ending {
                code: Code::Lease,
                reason: "lease ended".to_owned(),
                by: By::Us,
                cut: true,
            };
            return self.end(ending, true, out);
        }
        if self.patience.is_some_and(|patience| patience <= now) {
            let ending = Ending {
                code: Code::Timeout,
                reason: format!("peer did not go on in time: {}", self.state.name()),
                by: By::PeersFault,
                cut: false,
            };
            return self.end(ending, true, out);
        }
        if let Err(fault) = self.turn_if_due(around, out) {
            self.end(fault.ending(self.is_armed()), true, out);
        }
    }

    fn step(
        &mut self,
        input: Input<'_>,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        match input {
            Input::Frame(body) => match codec::parse(body)? {
                Message::Detach(code) => {
                    self.detached(code, out);
                    Ok(())
                }
                Message::Offer(offer) => self.take_offer(*offer, body, around, out),
                Message::Proof(proof) => self.take_proof(&proof, around, out),
                Message::Armed { epoch } => self.take_armed(epoch, around, out),
                Message::Turn { epoch, nonce } => self.take_turn(epoch, &nonce, around, out),
                Message::NewResult(result) => self.take_result(&result, around, out),
            },
            Input::WireGuardConfirmed { epoch } => {
                self.confirmed(epoch, around, out);
                Ok(())
            }
            Input::OwnResult(result) => {
                self.own_result(result, out);
                Ok(())
            }
            Input::Recheck => self.recheck(around, out),
            Input::Turn => self.ask_turn(around, out),
            Input::Tick | Input::Leave { .. } | Input::Disconnected | Input::Failed(_) => Ok(()),
        }
    }

    /// The peer left. Only where it goes on without this connection does the tunnel live on.
    fn detached(&mut self, code: Code, out: &mut Vec<Output>) {
        let cut = !matches!(
            code,
            Code::Glare | Code::Superseded | Code::Timeout | Code::Lost | Code::Busy
        );
        let ending = Ending {
            code,
            reason: format!("peer left: {code}"),
            by: By::Peer,
            cut,
        };
        self.end(ending, false, out);
    }

    /// An open tunnel outlives its connection unless the ending cuts it. One that is armed but was never opened
    /// does not; and before anything is armed there is nothing of this bind's to cut.
    fn end(&mut self, mut ending: Ending, tell: bool, out: &mut Vec<Output>) {
        // What was to be armed or opened in this step no longer is.
        out.retain(|output| matches!(output, Output::Send(_)));
        self.root = None;
        self.patience = None;
        let farewell = (tell && !self.is_adrift())
            .then(|| Output::Send(codec::frame(&Message::Detach(ending.code).body())));
        if self.is_open() && !ending.cut {
            self.state = State::Adrift;
            out.extend(farewell);
            out.push(Output::Adrift(ending));
            return;
        }
        ending.cut = match self.state {
            State::AwaitConfirm(_) => true,
            State::Open(_) | State::Adrift => ending.cut,
            // A step that failed has already left its state; its fault says whether anything was armed.
            State::Ended => ending.cut,
            State::AwaitOffer(_) | State::AwaitProof(_) | State::AwaitArmed(_) => false,
        };
        self.state = State::Ended;
        if ending.cut {
            out.clear();
            out.push(Output::End(ending));
            out.extend(farewell);
        } else {
            out.extend(farewell);
            out.push(Output::End(ending));
        }
    }
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::AwaitOffer(_) => "waiting for the offer",
            Self::AwaitProof(_) => "waiting for the proof",
            Self::AwaitArmed(_) => "waiting for the peer to arm",
            Self::AwaitConfirm(_) => "waiting for wireguard",
            Self::Open(_) => "open",
            Self::Adrift => "open without a connection",
            Self::Ended => "ended",
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("role", &self.role)
            .field("peer", self.peer.id())
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}

/// The earlier end of two certificates.
fn earlier(a: Timestamp, b: Timestamp) -> Timestamp {
    a.min(b)
}

#[cfg(test)]
mod tests;
