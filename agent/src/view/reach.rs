//! What the session and whoever looks for ways to peers tell each other.

use std::net::SocketAddr;
use std::sync::Arc;

use edgeward_wire::v1;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// Most calls that wait to go up.
const MAX_CALLS: usize = 64;
/// Most calls of peers that wait to be looked at; more are lost, and come again.
const MAX_CALLED: usize = 256;

/// How this node stands towards the cloud's network, as its session found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudSeen {
    /// `host:port` at which the cloud answered.
    pub address: String,
    /// Where the session comes from as the cloud sees it; its port is TCP's.
    pub seen_from: Option<SocketAddr>,
    /// The cloud's address as this connection has it.
    pub cloud: Option<SocketAddr>,
    /// Where the cloud answers STUN.
    pub stun: Option<SocketAddr>,
    /// Whether the cloud carries datagrams.
    pub relays: bool,
}

/// The side of whoever looks for ways.
#[derive(Clone, Debug)]
pub struct ReachSide {
    pub calls: mpsc::Sender<v1::Call>,
    called: Arc<Mutex<Option<mpsc::Receiver<v1::Called>>>>,
    pub seen: watch::Receiver<CloudSeen>,
    /// `ip:port` candidates of this node's UDP port; empty: none found yet.
    pub endpoints: Arc<watch::Sender<Vec<String>>>,
}

/// The session's side.
#[derive(Debug)]
pub struct SessionSide {
    pub calls: mpsc::Receiver<v1::Call>,
    called: mpsc::Sender<v1::Called>,
    pub seen: watch::Sender<CloudSeen>,
    pub endpoints: watch::Receiver<Vec<String>>,
}

/// Makes both.
pub fn reach_sides() -> (SessionSide, ReachSide) {
    let (calls, calls_up) = mpsc::channel(MAX_CALLS);
    let (called, called_down) = mpsc::channel(MAX_CALLED);
    let (seen, endpoints) = (watch::Sender::default(), Arc::new(watch::Sender::default()));
    let reach = ReachSide {
        calls,
        called: Arc::new(Mutex::new(Some(called_down))),
        seen: seen.subscribe(),
        endpoints,
    };
    let session = SessionSide {
        calls: calls_up,
        called,
        seen,
        endpoints: reach.endpoints.subscribe(),
    };
    (session, reach)
}

impl ReachSide {
    /// Calls of peers; once.
    pub fn take_called(&self) -> Option<mpsc::Receiver<v1::Called>> {
        self.called.lock().take()
    }
}

impl SessionSide {
    /// A peer calls. Waits for nothing.
    pub fn called(&self, called: v1::Called) {
        if self.called.try_send(called).is_err() {
            metrics::counter!("edgeward_reach_calls_lost_total").increment(1);
        }
    }

    /// What a Welcome says, over a connection between these addresses.
    pub fn welcomed(&self, welcome: &v1::Welcome, address: &str, cloud: SocketAddr) {
        let stun = u16::try_from(welcome.stun_port)
            .ok()
            .filter(|port| *port != 0);
        self.seen.send_replace(CloudSeen {
            seen_from: welcome.seen_from.parse().ok(),
            cloud: Some(cloud),
            address: address.to_owned(),
            stun: stun.map(|port| SocketAddr::new(cloud.ip(), port)),
            relays: welcome.relays,
        });
    }
}
