//! Slices as what is new against the one that a node holds.
//!
//! No bytes are kept for that: what a node was sent can be cut again, from the same policy and fleet and with the same end.
//! Kept are its hash and those; the signature, which cannot be made again, is 70 bytes that are simply sent.

use std::collections::VecDeque;
use std::sync::Arc;

use edgeward_evidence::Digest;
use edgeward_identity::{SignedObject, SpiffeId, Timestamp};
use edgeward_wire::slice_delta::{self, Base};
use edgeward_wire::v1::{self, cloud_message::Body};

use super::slices::{Fleeted, SignedSlice, cut_slice};
use super::{Hub, HubFault};

/// How many states of policy and fleet are kept for deltas. A session whose slice stayed the same follows the newest.
const KEPT_FLEETS: usize = 3;

/// What a node was sent last. One small entry for each node.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastSent {
    /// SHA-256 of the signed object.
    pub(super) object: [u8; 32],
    pub(super) content: Digest,
    pub(super) expires: Timestamp,
    /// Number of the state that it can be cut from again.
    pub(super) fleet: u64,
}

/// The newest state of policy and fleet, and those before it.
#[derive(Debug, Default)]
pub(super) struct Fleets {
    newest: VecDeque<Arc<Fleeted>>,
}

impl Fleets {
    pub(super) fn newest(&self) -> Option<&Arc<Fleeted>> {
        self.newest.front()
    }

    pub(super) fn put(&mut self, fleeted: Arc<Fleeted>) {
        self.newest.push_front(fleeted);
        self.newest.truncate(KEPT_FLEETS);
    }

    fn numbered(&self, number: u64) -> Option<Arc<Fleeted>> {
        let mut all = self.newest.iter();
        all.find(|fleeted| fleeted.number == number).cloned()
    }
}

impl Hub {
    pub(super) fn note_sent(&self, name: &str, sent: LastSent) {
        self.last_sent.lock().insert(name.to_owned(), sent);
    }

    /// The node's slice has not changed: what it holds can be cut from this state too.
    pub(super) fn still_sent(&self, name: &str, content: Digest, fleet: u64) {
        if let Some(sent) = self.last_sent.lock().get_mut(name)
            && sent.content == content
        {
            sent.fleet = fleet;
        }
    }

    /// A slice for an agent that takes deltas and says that it holds the object with this hash; `None`: it gets the whole.
    pub(crate) async fn delta_from(
        &self,
        id: &SpiffeId,
        held: &[u8],
        slice: &SignedSlice,
    ) -> Option<v1::SliceDelta> {
        let sent = self.last_sent.lock().get(id.name()).copied()?;
        if sent.object != held {
            return None;
        }
        let fleets = self.fleeted.lock().await;
        let number = match sent.content == slice.content {
            true => slice.fleet,
            false => sent.fleet,
        };
        let fleeted = fleets.numbered(number)?;
        drop(fleets);
        delta(&fleeted, id, &sent, &slice.bytes).ok().flatten()
    }

    /// How a slice goes to a session: as a delta where its agent takes them and what it holds can be cut again.
    pub(super) async fn body_for(&self, id: &SpiffeId, deltas: bool, slice: &SignedSlice) -> Body {
        let sent = self.last_sent.lock().get(id.name()).copied();
        let made = match sent {
            Some(sent) if deltas => self.delta_from(id, &sent.object, slice).await,
            _ => None,
        };
        let (form, body) = match made {
            Some(delta) => ("delta", Body::SliceDelta(delta)),
            None => ("whole", Body::Slice(slice.bytes.clone())),
        };
        metrics::counter!("edgeward_slices_sent_total", "form" => form).increment(1);
        body
    }
}

fn delta(
    fleeted: &Fleeted,
    id: &SpiffeId,
    sent: &LastSent,
    target: &[u8],
) -> Result<Option<v1::SliceDelta>, HubFault> {
    let (mut slice, content) = cut_slice(fleeted, id)?;
    let Ok(object) = SignedObject::parse(target) else {
        return Ok(None);
    };
    if content != sent.content {
        return Ok(None);
    }
    slice.expires = sent.expires;
    let payload = serde_json::to_vec(&slice).map_err(HubFault::json)?;
    let base = Base {
        digest: sent.object,
        at: object.payload_at(),
        bytes: &payload,
    };
    Ok(slice_delta::make(base, target))
}
