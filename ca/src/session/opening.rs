//! From Hello to Welcome: who attaches, with which certificate and boot key, and what it must know at once.

use std::sync::Arc;

use edgeward_audit::record::BootId;
use edgeward_identity::{PublicKey, VerifiedPeer};
use edgeward_wire::v1;

use super::{Holds, Opened, SessionEnded, endpoints_of, said_of};
use crate::enrol::overlay_of;
use crate::hub::{Hub, Member, SignedSlice};
use crate::serve::Caller;
use crate::store::nodes::NodeStatus;

/// Checks a Hello against what the cloud knows about the node.
pub(super) async fn open(
    hub: &Hub,
    caller: Caller,
    peer: Arc<VerifiedPeer>,
    hello: v1::Hello,
) -> Result<(Opened, Member, BootId), SessionEnded> {
    let boot_key =
        PublicKey::from_point(&hello.boot_key).map_err(|_| SessionEnded::Hello("boot key"))?;
    let boot: [u8; 16] = hello
        .boot_id
        .as_slice()
        .try_into()
        .map_err(|_| SessionEnded::Hello("boot id"))?;
    let boot = BootId::from_bytes(boot);
    let endpoints = endpoints_of(hello.endpoints)?;
    let holds = Holds {
        deltas: hello.slice_deltas,
        slice: hello.slice_digest,
    };
    let metered = hello.metered;
    let apps = said_of(hello.apps, hub.clock.now())?;
    let name = peer.id().name();
    let member = hub.member(name).ok_or(SessionEnded::Unknown)?;
    if member.row.status != NodeStatus::Active {
        return Err(SessionEnded::Status(member.row.status));
    }
    let key = peer.spki_hash();
    let svid = hub
        .store
        .svid_with_key(name, &key, hub.clock.now())
        .await?
        .ok_or(SessionEnded::Certificate)?;
    let joined = hub.join(name, &key, hello.join, caller.accepted)?;
    if !svid.acknowledged {
        // Whoever opens a session with it holds it.
        let mut tx = hub.store.begin("svid.acknowledge").await?;
        tx.acknowledge_svid(name, &key).await?;
        tx.commit().await?;
    }
    hub.update_member(name, |known| {
        known.endpoints.clone_from(&endpoints);
        known.key = Some(key);
        known.apps = apps;
    });
    hub.saw_trust(name, hello.bundle_sequence, peer.issuers().first())
        .await?;
    let opened = Opened {
        peer,
        caller,
        boot_key,
        svid,
        join: joined.next,
        holds,
        metered,
    };
    Ok((opened, member, boot))
}

/// Everything a node needs to know, in one message.
pub(super) fn welcome(
    hub: &Hub,
    member: &Member,
    join: u64,
    audit_next: u64,
    heartbeat: Vec<u8>,
    slice: Option<&SignedSlice>,
    delta: Option<v1::SliceDelta>,
) -> v1::Welcome {
    let peers = match slice {
        Some(slice) => hub.directory_of(&slice.peers),
        None => v1::PeerUpdate {
            full: true,
            ..v1::PeerUpdate::default()
        },
    };
    v1::Welcome {
        trust: Some(hub.trust_update()),
        slice: match &delta {
            Some(_) => Vec::new(),
            None => slice.map(|slice| slice.bytes.clone()).unwrap_or_default(),
        },
        slice_delta: delta,
        peers: Some(peers),
        overlay: Some(overlay_of(member)),
        audit_next,
        heartbeat,
        join,
        stun_port: u32::from(hub.stun_port),
        relays: hub.config.relay.enabled,
        seen_from: String::new(),
        apps: Vec::new(),
    }
}
