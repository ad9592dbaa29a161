//! Performing what the machines say.

use edgeward_identity::SpiffeId;

use super::super::{ControlFailed, Event, node_epoch};
use super::Hub;
use crate::bind::code::Code;
use crate::bind::ending::Ending;
use crate::bind::machine::{Input, Output};
use crate::bind::table::{Admission, BindId};

/// Why an output was not performed.
enum Trouble {
    Control(ControlFailed),
    /// The connection takes no more frames.
    Stalled,
}

impl Hub {
    /// Performs outputs in their order. When one fails, the rest is dropped and the machine is told.
    pub(super) fn perform(&mut self, bind: BindId, outputs: Vec<Output>) {
        let mut stalled = false;
        let mut failed = None;
        for output in outputs {
            match self.perform_one(bind, output) {
                Ok(()) => {}
                Err(Trouble::Stalled) => stalled = true,
                Err(Trouble::Control(ControlFailed(reason))) => {
                    failed = Some(reason);
                    break;
                }
            }
        }
        if let Some(reason) = failed {
            self.feed(bind, Input::Failed(reason));
        } else if stalled {
            self.feed(bind, Input::Disconnected);
        }
        if self
            .binds
            .get(&bind)
            .is_some_and(|bound| bound.machine.has_ended())
        {
            self.remove(bind);
        } else {
            self.note(bind);
        }
    }

    fn perform_one(&mut self, bind: BindId, output: Output) -> Result<(), Trouble> {
        let Some(bound) = self.binds.get_mut(&bind) else {
            return Ok(());
        };
        let peer = bound.machine.peer().id().clone();
        match output {
            Output::Send(frame) => {
                let Some(frames) = &bound.frames else {
                    return Ok(());
                };
                if frames.try_send(frame).is_err() {
                    tracing::debug!(%peer, "bind connection takes no more frames");
                    bound.frames = None;
                    return Err(Trouble::Stalled);
                }
                Ok(())
            }
            Output::Arm(mut arm) => {
                arm.epoch = node_epoch(bind, arm.epoch);
                let remote = bound.remote;
                self.table
                    .hold(&peer, arm.wireguard_key)
                    .map_err(|full| ControlFailed(full.to_string()))?;
                self.control.arm(*arm, remote)?;
                self.drop_adrift(&peer, bind);
                Ok(())
            }
            Output::TurnArmed { epoch, psk } => {
                Ok(self.control.turn(&peer, node_epoch(bind, epoch), psk)?)
            }
            Output::Open(mut opened) => {
                opened.epoch = node_epoch(bind, opened.epoch);
                bound.was_open = true;
                self.control.open(&opened)?;
                self.wanted.succeeded(&peer);
                self.emit(Event::Opened(opened));
                Ok(())
            }
            Output::Lease { until, allowed_ips } => {
                Ok(self.control.set_lease(&peer, until, &allowed_ips)?)
            }
            Output::Adrift(ending) => {
                bound.frames = None;
                self.table.remove(bind);
                self.put_off(&peer);
                self.count_ending(&ending);
                self.emit(Event::Adrift { peer, ending });
                Ok(())
            }
            Output::End(ending) => {
                self.ended(bind, peer, ending);
                Ok(())
            }
        }
    }

    /// The tunnel goes first; who else must know comes after.
    fn ended(&mut self, bind: BindId, peer: SpiffeId, ending: Ending) {
        if ending.cut {
            self.control.cut(&peer, &ending);
            self.table.release(&peer);
        }
        self.table.remove(bind);
        if ending.code == Code::Idle {
            // Whoever wants it again says so.
            self.wanted.forget(&peer);
        } else {
            self.put_off(&peer);
        }
        self.count_ending(&ending);
        let was_open = self.binds.get(&bind).is_some_and(|bound| bound.was_open);
        self.emit(Event::Ended {
            peer,
            ending,
            was_open,
        });
    }

    /// Once the peer has made its offer, it is clear which of several binds goes on.
    pub(super) fn admit(&mut self, bind: BindId) {
        let Some(bound) = self.binds.get_mut(&bind) else {
            return;
        };
        let Some(presented) = bound.machine.presented() else {
            return;
        };
        let floor = presented.claims.floor();
        self.table.remember(bound.machine.peer().spki_hash(), floor);
        if bound.admitted {
            return;
        }
        bound.admitted = true;
        match self.table.admit(bind, &bound.machine) {
            Admission::Yield(code) => self.feed(bind, Input::Leave { code, cut: false }),
            Admission::Proceed(leaving) => {
                for (other, code) in leaving {
                    self.feed(other, Input::Leave { code, cut: false });
                }
            }
        }
    }

    /// Another bind has armed this peer: machines that watched its older tunnel have nothing left to watch.
    fn drop_adrift(&mut self, peer: &SpiffeId, except: BindId) {
        for bind in self.binds_with(peer) {
            let adrift = |bound: &super::Bound| bound.machine.is_adrift();
            if bind != except && self.binds.get(&bind).is_some_and(adrift) {
                self.remove(bind);
            }
        }
    }
}

impl From<ControlFailed> for Trouble {
    fn from(failed: ControlFailed) -> Self {
        Self::Control(failed)
    }
}
