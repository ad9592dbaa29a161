//! What this node holds at this moment, for those who act on it.
//!
//! The session and the state write through [`Publisher`]; the bind, the filter and the status socket read a
//! [`NodeView`]. Every value is whole and already verified: purpose, audience, number, expiry and signature were
//! checked before it was published. Values are `watch` channels: the newest is never lost, a slow reader only skips
//! what is no longer true. Cuts are kept as floors for the same reason: a cut cannot be missed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use edgeward_apps::Director;
use edgeward_identity::svid::SvidError;
use edgeward_identity::tls::Credentials;
use edgeward_identity::{Clock, KeySet, Signer, SpiffeId, Svid, TrustView};
use edgeward_policy::Slice;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::apps::desk::Orders as AppOrders;
use crate::apps::floors::{AppsOrder, Ledger, LedgerOrders, ledger};
use crate::apps::report::AppsReport;
use crate::boot::Boot;
use crate::break_glass::{Desk, GlassOrders, OpenGlass, Ordered, orders};
use crate::names::Shown;
use crate::workload::svids::Svids;

mod cuts;
mod directory;
mod link;
mod outcome;
mod reach;
mod standing;
#[cfg(test)]
pub(crate) mod testing;

pub use cuts::{CutFloor, CutFloors, MAX_CUT_FLOORS};
pub use directory::{BadPeer, Directory, DirectoryPeer, Endpoint, MAX_DIRECTORY_PEERS, StoredPeer};
pub use link::{CloudLink, Heard};
pub use outcome::{Finding, Outcome, Refusal};
pub use reach::{CloudSeen, ReachSide, SessionSide, reach_sides};
pub use standing::{Held, Standing};

/// The read side. Cheap to clone.
#[derive(Clone)]
pub struct NodeView {
    pub node: SpiffeId,
    /// Wall clock that never runs behind the cloud's signed time, and `CLOCK_BOOTTIME`.
    pub clock: Arc<dyn Clock>,
    /// The boot's id and its software key.
    pub boot: Arc<Boot>,
    /// What TLS and QUIC handshakes present; follows renewals by itself.
    pub credentials: Arc<Credentials>,
    /// The same SVID for binds: its key is served after the session's.
    pub svid: watch::Receiver<Arc<Svid>>,
    /// Roots and deny-list, as the verifiers of [`edgeward_identity::tls`] take them.
    pub trust: Arc<ArcSwap<TrustView>>,
    /// Deny-list number of `trust`: changes whenever `trust` does.
    pub trust_changed: watch::Receiver<u64>,
    pub keys: watch::Receiver<Arc<KeySet>>,
    /// The policy for this node; none before the cloud has sent one.
    pub slice: watch::Receiver<Option<Arc<HeldSlice>>>,
    pub peers: watch::Receiver<Arc<Directory>>,
    /// This node's newest attestation result: the signed object's bytes, as binds send it.
    pub result: watch::Receiver<Option<Arc<[u8]>>>,
    /// Made when the agent started without the cloud: what ties the new boot key to the result's AK.
    pub boot_statement: watch::Receiver<Option<Arc<[u8]>>>,
    pub overlay: watch::Receiver<Overlay>,
    pub link: watch::Receiver<CloudLink>,
    pub standing: watch::Receiver<Standing>,
    pub cuts: watch::Receiver<Arc<CutFloors>>,
    /// What break-glass opened here.
    pub opened: watch::Receiver<Arc<Vec<OpenGlass>>>,
    /// Where the glass is broken and closed.
    pub glass: Desk,
    /// The session's connection; none without a session.
    pub cloud: watch::Receiver<Option<Channel>>,
    /// SVIDs of processes on this node, once the Workload API is served.
    pub workloads: Arc<OnceLock<Arc<Svids>>>,
    /// What the name server of this node says of itself.
    pub names: Arc<Shown>,
    /// Why this node is still on its way back; none while it is not.
    pub recovery: watch::Receiver<Option<Arc<str>>>,
    /// The cloud's last word on this node's evidence, for people.
    pub outcome: watch::Receiver<Arc<Outcome>>,
    /// For whoever looks for ways to peers.
    pub reach: ReachSide,
    /// What applications this node should have; none before the cloud has said.
    pub director: watch::Receiver<Option<Arc<Director>>>,
    /// Where what was accepted of applications is stored.
    pub ledger: Ledger,
    /// What became of them. Their desk writes it.
    pub apps: watch::Sender<Arc<AppsReport>>,
    /// Where people on the machine ask something of that desk, once there is one.
    pub app_orders: Arc<OnceLock<AppOrders>>,
}

/// The write side of a [`NodeView`].
pub struct Publisher {
    pub credentials: Arc<Credentials>,
    session_key: Arc<dyn Signer>,
    bind_key: Arc<dyn Signer>,
    pub svid: watch::Sender<Arc<Svid>>,
    pub trust: Arc<ArcSwap<TrustView>>,
    trust_changed: watch::Sender<u64>,
    pub keys: watch::Sender<Arc<KeySet>>,
    pub slice: watch::Sender<Option<Arc<HeldSlice>>>,
    pub peers: watch::Sender<Arc<Directory>>,
    pub result: watch::Sender<Option<Arc<[u8]>>>,
    pub boot_statement: watch::Sender<Option<Arc<[u8]>>>,
    pub overlay: watch::Sender<Overlay>,
    pub link: watch::Sender<CloudLink>,
    pub standing: watch::Sender<Standing>,
    pub cuts: watch::Sender<Arc<CutFloors>>,
    pub opened: watch::Sender<Arc<Vec<OpenGlass>>>,
    /// What others on this node want of whoever writes here.
    pub orders: Orders,
    pub cloud: watch::Sender<Option<Channel>>,
    /// Why this node is still on its way back; none while it is not.
    pub recovery: watch::Sender<Option<Arc<str>>>,
    pub outcome: watch::Sender<Arc<Outcome>>,
    pub reach: SessionSide,
    pub director: watch::Sender<Option<Arc<Director>>>,
    pub apps: watch::Receiver<Arc<AppsReport>>,
}

/// Something that somebody else on this node wants of the one writer of its state.
#[derive(Debug)]
pub enum Order {
    Glass(Ordered),
    Apps(AppsOrder),
}

/// Where such orders arrive.
#[derive(Debug)]
pub struct Orders {
    glass: GlassOrders,
    ledger: LedgerOrders,
}

/// A verified policy slice with the bytes that were signed.
#[derive(Clone, Debug)]
pub struct HeldSlice {
    /// Number of the signed object; only ever rises.
    pub number: u64,
    /// SHA-256 of `bytes`: names the slice in records.
    pub digest: [u8; 32],
    pub slice: Slice,
    /// The signed object.
    pub bytes: Arc<[u8]>,
}

/// This node's addresses in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub v6: Ipv6Addr,
    /// Allotted by the cloud from 100.64.0.0/10.
    pub v4: Option<Ipv4Addr>,
}

/// What a view starts with.
pub struct Initial {
    pub svid: Arc<Svid>,
    pub trust: TrustView,
    pub keys: KeySet,
    pub slice: Option<Arc<HeldSlice>>,
    pub peers: Directory,
    pub result: Option<Arc<[u8]>>,
    pub overlay: Overlay,
    pub link: CloudLink,
    pub standing: Standing,
    pub cuts: CutFloors,
    pub director: Option<Arc<Director>>,
}

/// Makes both sides.
pub fn channel(clock: Arc<dyn Clock>, boot: Arc<Boot>, initial: Initial) -> (Publisher, NodeView) {
    let credentials = Credentials::new(&initial.svid);
    let node = initial.svid.id().clone();
    let deny_number = initial.trust.deny.number();
    let trust = Arc::new(ArcSwap::from_pointee(initial.trust));
    let (desk, glass) = orders();
    let (session_side, reach_side) = reach_sides();
    let (ledger, ledger_orders) = ledger();
    let apps = watch::Sender::default();
    let publisher = Publisher {
        credentials: credentials.clone(),
        session_key: initial.svid.signer().clone(),
        bind_key: initial.svid.signer().clone(),
        svid: watch::Sender::new(initial.svid),
        trust: trust.clone(),
        trust_changed: watch::Sender::new(deny_number),
        keys: watch::Sender::new(Arc::new(initial.keys)),
        slice: watch::Sender::new(initial.slice),
        peers: watch::Sender::new(Arc::new(initial.peers)),
        result: watch::Sender::new(initial.result),
        boot_statement: watch::Sender::new(None),
        overlay: watch::Sender::new(initial.overlay),
        link: watch::Sender::new(initial.link),
        standing: watch::Sender::new(initial.standing),
        cuts: watch::Sender::new(Arc::new(initial.cuts)),
        opened: watch::Sender::default(),
        orders: Orders {
            glass,
            ledger: ledger_orders,
        },
        cloud: watch::Sender::new(None),
        recovery: watch::Sender::new(None),
        outcome: watch::Sender::default(),
        reach: session_side,
        director: watch::Sender::new(initial.director),
        apps: apps.subscribe(),
    };
    let view = NodeView {
        node,
        clock,
        boot,
        credentials,
        svid: publisher.svid.subscribe(),
        trust,
        trust_changed: publisher.trust_changed.subscribe(),
        keys: publisher.keys.subscribe(),
        slice: publisher.slice.subscribe(),
        peers: publisher.peers.subscribe(),
        result: publisher.result.subscribe(),
        boot_statement: publisher.boot_statement.subscribe(),
        overlay: publisher.overlay.subscribe(),
        link: publisher.link.subscribe(),
        standing: publisher.standing.subscribe(),
        cuts: publisher.cuts.subscribe(),
        opened: publisher.opened.subscribe(),
        glass: desk,
        cloud: publisher.cloud.subscribe(),
        workloads: Arc::default(),
        names: Arc::default(),
        recovery: publisher.recovery.subscribe(),
        outcome: publisher.outcome.subscribe(),
        reach: reach_side,
        director: publisher.director.subscribe(),
        ledger,
        apps,
        app_orders: Arc::default(),
    };
    (publisher, view)
}

impl Orders {
    /// Waits for ever while nobody wants anything.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            ordered = self.glass.next() => Order::Glass(ordered),
            order = self.ledger.next() => Order::Apps(order),
        }
    }
}

impl Publisher {
    /// From now on verifiers use this view.
    pub fn set_trust(&self, trust: TrustView) {
        let number = trust.deny.number();
        self.trust.store(Arc::new(trust));
        self.trust_changed.send_replace(number);
    }

    /// From now on handshakes present this certificate chain, leaf first.
    pub fn set_chain(&self, chain: Vec<CertificateDer<'static>>) -> Result<(), SvidError> {
        let session = Svid::new(chain.clone(), self.session_key.clone())?;
        let bind = Svid::new(chain, self.bind_key.clone())?;
        self.credentials.replace(&session);
        self.svid.send_replace(Arc::new(bind));
        Ok(())
    }

    /// From now on handshakes present another key's certificate: this node came back with a new one.
    pub fn set_identity(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        session_key: Arc<dyn Signer>,
        bind_key: Arc<dyn Signer>,
    ) -> Result<(), SvidError> {
        // Both must fit before either is taken.
        let session = Svid::new(chain.clone(), session_key.clone())?;
        let bind = Svid::new(chain, bind_key.clone())?;
        (self.session_key, self.bind_key) = (session_key, bind_key);
        self.credentials.replace(&session);
        self.svid.send_replace(Arc::new(bind));
        Ok(())
    }

    /// From now on binds sign with this handle to the same key, so that strangers who bind never hold up the session.
    pub fn serve_binds_with(&mut self, key: Arc<dyn Signer>) -> Result<(), SvidError> {
        let chain = self.svid.borrow().chain().to_vec();
        self.svid
            .send_replace(Arc::new(Svid::new(chain, key.clone())?));
        self.bind_key = key;
        Ok(())
    }

    /// The SVID's key as the session has it served.
    pub fn session_key(&self) -> &Arc<dyn Signer> {
        &self.session_key
    }
}
