//! An open bind: turns of the epoch, new results, changes of policy.

use edgeward_identity::BootTime;

use super::{Machine, Output, State, Surroundings, TURN_INTERVAL, TURN_PATIENCE, TURN_TIMEOUT};
use crate::bind::Role;
use crate::bind::claims;
use crate::bind::codec::{self, Message};
use crate::bind::ending::Fault;
use crate::bind::schedule::Schedule;

/// The state of an open bind.
pub(super) struct Live {
    schedule: Schedule,
    turn: Turn,
}

/// Where the initiator is with the next epoch. A responder is always `Settled`.
enum Turn {
    /// The present epoch is confirmed; ask for the next at this time (never, for a responder).
    Settled { due: Option<BootTime> },
    /// Asked for the next epoch with this nonce.
    Asked { nonce: [u8; 32], due: BootTime },
    /// Armed; WireGuard has not confirmed it yet.
    Armed { due: BootTime },
}

impl Live {
    pub(super) fn new(role: Role, schedule: Schedule, now: BootTime) -> Self {
        let due = (role == Role::Initiator).then(|| now.plus(TURN_INTERVAL));
        Self {
            schedule,
            turn: Turn::Settled { due },
        }
    }

    pub(super) fn turn_due(&self) -> Option<BootTime> {
        match self.turn {
            Turn::Settled { due } => due,
            Turn::Asked { .. } | Turn::Armed { .. } => None,
        }
    }

    /// Whether this confirmed the epoch that was armed last.
    pub(super) fn confirmed(&mut self, epoch: u64) -> bool {
        match self.turn {
            Turn::Armed { due } if epoch == self.schedule.epoch() => {
                self.turn = Turn::Settled { due: Some(due) };
                true
            }
            Turn::Settled { .. } | Turn::Asked { .. } | Turn::Armed { .. } => false,
        }
    }
}

impl Machine {
    pub(super) fn turn_if_due(
        &mut self,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        match &self.state {
            State::Open(live) if live.turn_due().is_some_and(|due| due <= around.now.boot) => {
                self.ask_turn(around, out)
            }
            _ => Ok(()),
        }
    }

    /// The initiator asks for the next epoch. In any other state or role there is nothing to do.
    pub(super) fn ask_turn(
        &mut self,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Open(live) = &mut self.state else {
            return Ok(());
        };
        if self.role == Role::Responder || !matches!(live.turn, Turn::Settled { .. }) {
            return Ok(());
        }
        let Some(epoch) = live.schedule.epoch().checked_add(1) else {
            return Err(Fault::OutOfTurn("no epoch is left"));
        };
        let now = around.now.boot;
        live.turn = Turn::Asked {
            nonce: *around.nonce,
            due: now.plus(TURN_INTERVAL),
        };
        self.patience = Some(now.plus(TURN_TIMEOUT));
        let turn = Message::Turn {
            epoch,
            nonce: *around.nonce,
        };
        out.push(Output::Send(codec::frame(&turn.body())));
        Ok(())
    }

    pub(super) fn take_turn(
        &mut self,
        epoch: u64,
        nonce: &[u8; 32],
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Open(live) = &mut self.state else {
            return Err(Fault::OutOfTurn("turn"));
        };
        match self.role {
            Role::Responder => {
                live.schedule.turn(epoch, nonce, around.nonce)?;
                out.push(Output::TurnArmed {
                    epoch,
                    psk: live.schedule.psk(),
                });
                let answer = Message::Turn {
                    epoch,
                    nonce: *around.nonce,
                };
                out.push(Output::Send(codec::frame(&answer.body())));
                self.patience = Some(around.now.boot.plus(TURN_PATIENCE));
            }
            Role::Initiator => {
                let Turn::Asked { nonce: own, due } = live.turn else {
                    return Err(Fault::OutOfTurn("turn that was not asked for"));
                };
                live.schedule.turn(epoch, &own, nonce)?;
                live.turn = Turn::Armed { due };
                out.push(Output::TurnArmed {
                    epoch,
                    psk: live.schedule.psk(),
                });
            }
        }
        Ok(())
    }

    /// A newer result of the peer. One that is not accepted, or older than the one held, ends the bind and the
    /// tunnel with it.
    pub(super) fn take_result(
        &mut self,
        result: &[u8],
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if !self.is_armed() {
            return Err(Fault::OutOfTurn("new result"));
        }
        let floor = self.known()?.claims.floor();
        let claims = claims::judge(
            result,
            None,
            &self.peer,
            around.keys,
            floor,
            around.now.wall,
        )?;
        if claims.boot_key() != self.known()?.claims.boot_key() {
            return Err(Fault::BootChanged);
        }
        if let Some(presented) = &mut self.presented {
            presented.claims = claims;
        }
        self.recheck(around, out)
    }

    /// Everything that the bind stands on is asked again.
    pub(super) fn recheck(
        &mut self,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        self.check_identity(around)?;
        if !self.is_armed() {
            return Ok(());
        }
        let claims = self.known()?.claims.clone();
        let (grant, until) = self.grant(&claims, around)?;
        let Some(presented) = &mut self.presented else {
            return Ok(());
        };
        if presented.until != until || presented.allowed_ips != grant.allowed_ips {
            presented.until = until;
            presented.allowed_ips.clone_from(&grant.allowed_ips);
            out.push(Output::Lease {
                until,
                allowed_ips: grant.allowed_ips,
            });
        }
        Ok(())
    }

    /// This node passed again: the peer must know. Before the bind is open it waits until then.
    pub(super) fn own_result(&mut self, result: &[u8], out: &mut Vec<Output>) {
        self.local.result = result.to_vec();
        self.local.boot_statement = None;
        match self.state {
            State::Open(_) => out.push(new_result(result)),
            _ => self.own_result_is_new = true,
        }
    }

    pub(super) fn announce_own_result(&mut self, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.own_result_is_new) {
            out.push(new_result(&self.local.result));
        }
    }
}

fn new_result(result: &[u8]) -> Output {
    Output::Send(codec::frame(&Message::NewResult(result.to_vec()).body()))
}
