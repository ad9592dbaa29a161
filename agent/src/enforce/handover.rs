//! Tunnels that go on while the program changes: given by the one that leaves, at work again in the one that comes.
//!
//! [`Giver::give`] ends the data path and takes out what lives in memory only: sessions with their keys, flows with
//! their verdicts, who is armed and bound, when the cloud was heard. [`Adopted::begin`] has packets flow again before
//! anything else is open: by verdicts that were given, until they end, and no new ones, since there is no policy yet.
//! Enforcement then begins on it. No lease is longer afterwards: all of them are times of this boot.

mod handed;
mod paper;
mod word;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use edgeward_identity::{BootTime, Clock, SpiffeId, SystemClock};
use edgeward_tunnel::filter::Filter;
use edgeward_tunnel::node::{Node, PeerId};
use edgeward_tunnel::shell::demux::{DatagramSource, quic_inbox_of};
use edgeward_tunnel::shell::{DeviceFacts, Inherited, Tunnel};
use edgeward_tunnel::wireguard::StaticKeys;

use super::EnforceConfig;
use super::begin::{new_node, shell_config};
use super::books::Books;
use super::control::{Control, Kernel};
use super::decide::{Anchor, BoundPeer, Decider, Picture, PictureParts};
use super::hearing::Hearing;
use super::leases::{self, Change};
use crate::outside::MARK;
use crate::view::{CloudLink, Heard, NodeView, Standing};

pub use handed::{FORMAT, Handed, MAX_HANDED_BYTES, NotHanded};
pub use paper::Paper;
pub(super) use word::{Word, word};

use paper::{ArmedPaper, BoundPaper, HeardPaper, Nanos};

/// Hands everything over, once.
#[derive(Clone)]
pub struct Giver {
    pub(super) control: Arc<Control>,
    pub(super) view: NodeView,
    pub(super) config: EnforceConfig,
}

/// What a program hands over: device and port, and what is known of them.
pub struct Given {
    pub inherited: Inherited,
    pub handed: Handed,
}

/// Tunnels at work again, in a program that does not know its node yet.
pub struct Adopted {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) filter: Arc<Filter>,
    pub(super) decider: Arc<Decider>,
    pub(super) source: DatagramSource,
    pub(super) books: Books,
    pub(super) bound: HashMap<PeerId, BoundPeer>,
    paper: Paper,
}

/// What was handed over is not taken over: this program starts anew.
#[derive(Debug, thiserror::Error)]
pub enum NotAdopted {
    #[error("left by another user: {0}")]
    User(u32),
    #[error("device, mtu or port are others now")]
    Settings,
    #[error("a tunnel's number is another's, too")]
    Armed(#[from] edgeward_tunnel::node::ArmRefused),
    #[error(transparent)]
    Start(#[from] edgeward_tunnel::shell::StartError),
    #[error("udp port: {0}")]
    Port(#[source] io::Error),
    #[error("left by another node: {0}")]
    Node(SpiffeId),
    #[error("addresses in the mesh are others now")]
    Overlay,
    #[error("nothing may be granted: {0}")]
    Held(#[from] crate::view::Held),
}

impl Giver {
    /// Ends the data path. What comes after this and before the end of the process changes nothing any more.
    pub fn give(&self) -> io::Result<Given> {
        let control = &self.control;
        let (keys, since) = control
            .books
            .lock()
            .own_keys
            .clone()
            .ok_or_else(|| io::Error::other("no key of our own yet"))?;
        let inherited = control.tunnel.give_away()?;
        let now = control.clock.boottime();
        let node = control.tunnel.node();
        let flows = control
            .tunnel
            .filter()
            .export(now, |peer| node.generation_of(peer));
        let books = std::mem::take(&mut *control.books.lock());
        let peers = node.export();
        let paper = self.paper(&books, since, &inherited);
        let private = keys.private();
        let handed = Handed {
            paper,
            private,
            flows,
            peers,
        };
        Ok(Given { inherited, handed })
    }

    fn paper(&self, books: &Books, since: BootTime, inherited: &Inherited) -> Paper {
        let picture = self.control.scene.picture();
        let parts = picture.parts();
        let armed: HashMap<PeerId, ArmedPaper> = books
            .armed
            .values()
            .map(|armed| (armed.number, ArmedPaper::of(armed)))
            .collect();
        let bound = parts
            .bound
            .iter()
            .filter(|(number, _)| armed.contains_key(number))
            .map(|(number, bound)| BoundPaper::of(*number, bound));
        Paper {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uid: nix::unistd::geteuid().as_raw(),
            node: self.view.node.clone(),
            v6: parts.overlay.v6,
            v4: parts.overlay.v4,
            device: self.config.device.clone(),
            mtu: self.config.mtu,
            listen: self.config.listen,
            offload: inherited.facts.offload,
            udp_offload: inherited.facts.udp_offload,
            table: match self.control.kernel {
                Kernel::Leases(_) => Some(leases::table_hash(&self.config.device)),
                Kernel::Off => None,
            },
            keys_since: Nanos::of(since),
            heard: self.view.link.borrow().heard.as_ref().map(HeardPaper::of),
            online: parts.hearing.is_online(),
            next_number: books.next_number(),
            numbers: books.all_numbers(),
            bound: bound.collect(),
            armed: armed.into_values().collect(),
        }
    }
}

impl Adopted {
    /// Has packets flow again. Blocks for a moment: not on a thread of the runtime.
    pub fn begin(
        handed: Handed,
        inherited: (std::os::fd::OwnedFd, std::os::fd::OwnedFd),
        config: &EnforceConfig,
    ) -> Result<Self, NotAdopted> {
        let Handed {
            paper,
            private,
            flows,
            peers,
        } = handed;
        let uid = nix::unistd::geteuid().as_raw();
        if paper.uid != uid {
            return Err(NotAdopted::User(paper.uid));
        }
        let same = paper.device == config.device
            && paper.mtu == config.mtu
            && paper.listen == config.listen;
        if !same {
            return Err(NotAdopted::Settings);
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let now = clock.boottime();
        let node = Arc::new(new_node(config.mtu));
        let mut books = Books::of(paper.next_number, &paper.numbers, paper.armed());
        books.own_keys = Some((Arc::new(StaticKeys::new(private)), paper.keys_since.time()));
        take_in(&node, peers, &mut books, now)?;
        let bound: HashMap<PeerId, BoundPeer> = paper
            .bound()
            .into_iter()
            .filter(|(number, _)| books.armed_by(*number).is_some())
            .collect();
        let parts = without_policy(&paper, bound.clone(), clock.as_ref());
        let decider = Arc::new(Decider::new(Picture::new(parts)));
        let filter = Arc::new(Filter::new(Arc::clone(&decider) as _));
        let left_out = filter.import(flows, now, |peer| node.generation_of(peer));
        if left_out > 0 {
            tracing::warn!(left_out, "no room for some flows");
        }
        let (device, port) = inherited;
        let inherited = Inherited {
            device,
            port,
            facts: DeviceFacts {
                offload: paper.offload,
                udp_offload: paper.udp_offload,
            },
        };
        let (sink, source) = quic_inbox_of(config.data_path.profile.quic_datagrams());
        let shell = shell_config(config, paper.overlay());
        let tunnel = Tunnel::start_on(&shell, inherited, node, Arc::clone(&filter), sink, clock)?;
        tunnel.mark_port(MARK).map_err(NotAdopted::Port)?;
        Ok(Self {
            tunnel: Arc::new(tunnel),
            filter,
            decider,
            source,
            books,
            bound,
            paper,
        })
    }

    /// Whether the node that this program found itself to be is the one that left it.
    pub(super) fn check(&self, view: &NodeView) -> Result<(), NotAdopted> {
        if self.paper.node != view.node {
            return Err(NotAdopted::Node(self.paper.node.clone()));
        }
        if self.paper.overlay() != *view.overlay.borrow() {
            return Err(NotAdopted::Overlay);
        }
        Ok(view.standing.borrow().may_grant()?)
    }

    /// The version of the program that left it.
    pub fn version(&self) -> &str {
        &self.paper.version
    }

    /// When the cloud was heard last.
    pub fn heard(&self) -> Option<Heard> {
        self.paper.heard()
    }

    /// As it was before, if the cloud still counts as heard.
    pub(super) fn hearing(&self, link: &CloudLink, now: BootTime) -> Hearing {
        match self.paper.online {
            true => Hearing::resumed(link, now),
            false => Hearing::begin(link, now),
        }
    }

    /// What the kernel is to hold, and whether its table is as this program would make it.
    pub(super) fn kernel_leases(&self, config: &EnforceConfig) -> (Vec<Change>, bool) {
        let now = SystemClock.boottime();
        let leases = self
            .books
            .armed
            .values()
            .filter(|armed| armed.open_since.is_some())
            .flat_map(|armed| {
                let left = armed.until.since(now);
                super::control::hosts(&armed.allowed_ips)
                    .map(move |address| Change::Lease { address, left })
            });
        let same = self.paper.table == Some(leases::table_hash(&config.device));
        (leases.collect(), same)
    }
}

/// Arms everybody whose lease has not ended; the books say the same afterwards.
fn take_in(
    node: &Node,
    peers: Vec<edgeward_tunnel::node::MovedPeer>,
    books: &mut Books,
    now: BootTime,
) -> Result<(), NotAdopted> {
    for peer in peers {
        let (number, until) = (peer.id(), peer.valid_until());
        let name = books.name(number).cloned();
        let Some(armed) = name.as_ref().and_then(|name| books.armed.get_mut(name)) else {
            continue;
        };
        armed.until = armed.until.min(until);
        let over = armed.until <= now;
        if over {
            name.and_then(|name| books.armed.remove(&name));
            continue;
        }
        let until = armed.until;
        node.import(peer, now)?;
        // Both said when: the earlier counts.
        let _armed = node.extend_lease(number, until);
    }
    Ok(())
}

/// What holds until the policy is read: nothing new is granted.
fn without_policy(
    paper: &Paper,
    bound: HashMap<PeerId, BoundPeer>,
    clock: &dyn Clock,
) -> PictureParts {
    let now = clock.boottime();
    let link = CloudLink {
        heard: paper.heard(),
        ..CloudLink::never_since(Default::default())
    };
    PictureParts {
        standing: Standing::Granting,
        node: paper.node.clone(),
        overlay: paper.overlay(),
        own: None,
        floors: Arc::default(),
        hearing: Hearing::resumed(&link, now),
        exit: None,
        rules: None,
        anchor: Anchor {
            wall: clock.now(),
            boot: now,
        },
        bound,
        listening: Arc::default(),
        served: Arc::default(),
    }
}

#[cfg(test)]
mod tests;
