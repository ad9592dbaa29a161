//! The open connections of identities, so that one whose key is denied can be closed at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use edgeward_identity::tls::EXPORTER_BYTES;
use edgeward_identity::{BootTime, DenyList, Kind, SpkiHash, VerifiedPeer};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// Who is at the other end of the connection a request came on. An extension of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None`: no client certificate. Every route says whether that suffices.
    pub peer: Option<Arc<VerifiedPeer>>,
    /// Keying material of this connection: binds evidence to it.
    pub exporter: [u8; EXPORTER_BYTES],
    pub remote: SocketAddr,
    /// When the connection was there, before its handshake: whoever speaks on it made up its mind after that.
    pub accepted: BootTime,
    /// Cancelled when the connection must end at once.
    pub ended: CancellationToken,
}

impl Caller {
    /// Who sent this request, and the node that it must be.
    pub fn of_node<T>(request: &Request<T>) -> Result<(Self, Arc<VerifiedPeer>), Status> {
        Self::of_node_in(request.extensions())
    }

    /// As [`Caller::of_node`], of what a request carries beside its message.
    pub fn of_node_in(asks: &tonic::Extensions) -> Result<(Self, Arc<VerifiedPeer>), Status> {
        let caller = asks
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Status::internal("caller_unknown"))?;
        let peer = caller
            .peer
            .clone()
            .filter(|peer| peer.id().kind() == Kind::Node)
            .ok_or_else(|| Status::permission_denied("forbidden"))?;
        Ok((caller, peer))
    }
}

/// All connections that presented a certificate.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_key: BTreeMap<(SpkiHash, u64), (Vec<SpkiHash>, CancellationToken)>,
}

/// A connection's entry; removed when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    key: (SpkiHash, u64),
    connections: Arc<Connections>,
}

impl Connections {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Closes every connection whose key, or an issuer of it, is on the list. Returns how many.
    pub fn close_denied(&self, deny: &DenyList) -> usize {
        self.close(|key| deny.get(key).is_some())
    }

    /// Closes every connection of this key, and of what it signed.
    pub fn close_key(&self, denied: &SpkiHash) -> usize {
        self.close(|key| key == denied)
    }

    pub fn count(&self) -> usize {
        self.open.lock().by_key.len()
    }

    pub(super) fn enter(self: &Arc<Self>, peer: &VerifiedPeer, ended: CancellationToken) -> Entry {
        let key = peer.spki_hash();
        let mut open = self.open.lock();
        let number = open.next;
        open.next = open.next.wrapping_add(1);
        open.by_key
            .insert((key, number), (peer.issuers().to_vec(), ended));
        Entry {
            key: (key, number),
            connections: self.clone(),
        }
    }

    fn close(&self, matches: impl Fn(&SpkiHash) -> bool) -> usize {
        let open = self.open.lock();
        let mut closed = 0;
        for ((key, _), (issuers, ended)) in &open.by_key {
            if matches(key) || issuers.iter().any(&matches) {
                ended.cancel();
                closed += 1;
            }
        }
        closed
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.open.lock().by_key.remove(&self.key);
    }
}
