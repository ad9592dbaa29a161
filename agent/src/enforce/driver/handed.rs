//! Tunnels of the program before this one, until a bind of this one arms their peers anew: nobody else watches them.

use std::collections::HashMap;

use edgeward_identity::SpiffeId;
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::driver::{StandingTunnel, WireGuardControl};
use edgeward_tunnel::bind::lease::Now;
use edgeward_tunnel::node::PeerId;

use super::{Broken, Driver};
use crate::enforce::books::Armed;
use crate::enforce::control::Control;
use crate::enforce::handover::{Word, word};

/// What the bind must know of them.
pub(super) fn standing(control: &Control) -> Vec<StandingTunnel> {
    let peers = control.tunnel.node().status();
    let epochs: HashMap<PeerId, u64> = peers.iter().map(|peer| (peer.id, peer.epoch)).collect();
    let handed = control.books.lock().handed();
    let tunnel = |(peer, armed): (SpiffeId, Armed)| {
        let [_, wireguard_key] = armed.keys;
        Some(StandingTunnel {
            peer,
            wireguard_key,
            epoch: *epochs.get(&armed.number)?,
        })
    };
    handed.into_iter().filter_map(tunnel).collect()
}

impl Driver {
    /// The policy is in force: whoever came along is asked about by it, and so are their flows.
    pub(super) async fn take_over(&mut self) -> Result<(), Broken> {
        let now = self.view.clock.boottime();
        let handed = self.control.books.lock().handed();
        for (peer, _) in handed {
            self.demand.opened(&peer, now);
        }
        self.recheck_handed().await?;
        self.scene.hold_no_more();
        Ok(())
    }

    /// Takes away, or shortens, what policy, evidence, trust or time do not bear any more.
    pub(super) async fn recheck_handed(&self) -> Result<(), Broken> {
        let handed = self.control.books.lock().handed();
        if handed.is_empty() {
            return Ok(());
        }
        let (picture, trust) = (self.scene.picture(), self.view.trust.load_full());
        let now = Now {
            wall: self.view.clock.now(),
            boot: self.view.clock.boottime(),
        };
        for (peer, armed) in handed {
            match word(&picture, &trust.deny, &peer, &armed, now) {
                Word::Stays => {}
                Word::Changes { until, allowed_ips } => {
                    let set = self.control.set_lease(&peer, until, &allowed_ips);
                    if let Err(failed) = set {
                        tracing::error!(%peer, %failed, "lease not shortened");
                        self.cut(&peer, Code::Internal.as_str(), None).await?;
                    }
                }
                Word::Cut(code) => self.cut(&peer, code.as_str(), None).await?,
            }
        }
        Ok(())
    }
}
