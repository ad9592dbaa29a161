//! The gate for what the cloud sends: bytes become values here, or are refused. No I/O; the time is told.
//!
//! Each object is checked for purpose, trust domain, audience, number, expiry and signature before anything reads its
//! payload. The set of roots changes only by the signature of a root that is held: a trust bundle that comes without
//! one is refused unless it names exactly the roots that are known already.

use std::sync::Arc;

use edgeward_apps::Director;
use edgeward_apps::director::Disagreed;
use edgeward_audit::note::NoteMalformed;
use edgeward_audit::watch::{LogKey, LogWatch};
use edgeward_identity::bundle::{BundleError, NoSuccession};
use edgeward_identity::signed::{EVERYBODY, Expect, Malformed, Unacceptable};
use edgeward_identity::{
    DenyList, KeySet, Purpose, SignedObject, SpiffeId, Timestamp, TrustBundle, TrustDomain,
};
use edgeward_policy::{Slice, SliceError};
use edgeward_wire::control::{Cut, Heartbeat};
use ring::digest::{SHA256, digest};

use crate::view::HeldSlice;

/// Why something of the cloud is not accepted. Whatever was held before stays.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    #[error("{what}: {source}")]
    Signed {
        what: &'static str,
        #[source]
        source: Unacceptable,
    },
    #[error("slice: {0}")]
    Slice(#[from] SliceError),
    #[error("slice is for another node: {0}")]
    OtherNode(SpiffeId),
    #[error("trust bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error("trust bundle names a root that no held root signed for")]
    NewRoot,
    #[error("trust bundle leaves out a root, and no held root signed that")]
    LostRoot,
    #[error("trust bundle is behind the one held: {sequence} < {held}")]
    BundleBehind { sequence: u64, held: u64 },
    #[error(transparent)]
    Roots(#[from] NoSuccession),
    #[error("roots would go that the key set stands on")]
    Stranded,
    #[error("director's word: {0}")]
    Director(#[source] Box<Disagreed>),
    #[error("log key is none: {0}")]
    LogKey(#[source] NoteMalformed),
    #[error("{what} says another number or time than its signed header")]
    Number { what: &'static str },
}

/// The roots that follow those held: every step signed by a root of the one before.
pub fn authorities(
    steps: &[Vec<u8>],
    held: &TrustBundle,
    now: Timestamp,
) -> Result<TrustBundle, NotAccepted> {
    Ok(held.followed_by_all(steps, now)?)
}

/// A trust bundle that nobody signed: it may repeat what is known, and nothing else.
pub fn bundle(json: &[u8], held: &TrustBundle) -> Result<(), NotAccepted> {
    let said = TrustBundle::from_spiffe_json(held.trust_domain().clone(), json)?;
    if !said.roots().iter().all(|root| held.roots().contains(root)) {
        return Err(NotAccepted::NewRoot);
    }
    if said.sequence() < held.sequence() {
        return Err(NotAccepted::BundleBehind {
            sequence: said.sequence(),
            held: held.sequence(),
        });
    }
    if !held.roots().iter().all(|root| said.roots().contains(root)) {
        return Err(NotAccepted::LostRoot);
    }
    Ok(())
}

/// The key set, under the roots of a bundle.
pub fn key_set(
    bytes: &[u8],
    bundle: &TrustBundle,
    least_number: u64,
    now: Timestamp,
) -> Result<KeySet, NotAccepted> {
    let object = parse("key set", bytes)?;
    KeySet::open(
        &object,
        &bundle.root_keys(),
        bundle.trust_domain(),
        least_number,
        now,
    )
    .map_err(signed("key set"))
}

/// The deny-list.
pub fn deny_list(
    bytes: &[u8],
    keys: &KeySet,
    trust_domain: &TrustDomain,
    least_number: u64,
    now: Timestamp,
) -> Result<DenyList, NotAccepted> {
    let what = "deny-list";
    let object = parse(what, bytes)?;
    let list: DenyList = object
        .open_json(
            keys,
            &Expect {
                purpose: Purpose::DenyList,
                trust_domain,
                audience: EVERYBODY,
                least_number,
                now,
            },
        )
        .map_err(signed(what))?;
    if list.number() != object.header().number {
        return Err(NotAccepted::Number { what });
    }
    // Read from JSON it has not been through its maker: bound it here.
    DenyList::new(list.number(), list.entries().clone()).map_err(|_| NotAccepted::Number { what })
}

/// The policy for this node.
pub fn slice(
    bytes: &[u8],
    keys: &KeySet,
    node: &SpiffeId,
    least_number: u64,
    now: Timestamp,
) -> Result<HeldSlice, NotAccepted> {
    let what = "slice";
    let object = parse(what, bytes)?;
    let payload = object
        .open(
            keys,
            &for_node(Purpose::Policy, node, &node.to_string(), least_number, now),
        )
        .map_err(signed(what))?;
    let slice = Slice::parse(payload)?;
    if slice.node != *node {
        return Err(NotAccepted::OtherNode(slice.node));
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Ok(HeldSlice {
        number: object.header().number,
        digest: hash,
        slice,
        bytes: Arc::from(bytes),
    })
}

/// What applications this node should have.
pub fn director(
    bytes: &[u8],
    keys: &KeySet,
    node: &SpiffeId,
    least_number: u64,
    now: Timestamp,
) -> Result<Director, NotAccepted> {
    let object = parse("director's word", bytes)?;
    let audience = node.to_string();
    let expect = for_node(Purpose::Director, node, &audience, least_number, now);
    Director::open(&object, keys, &expect).map_err(|refused| match refused {
        Disagreed::Signed(source) => signed("director's word")(source),
        other => NotAccepted::Director(Box::new(other)),
    })
}

/// Who signs the checkpoints of the audit log.
pub fn log_key(
    bytes: &[u8],
    keys: &KeySet,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<LogWatch, NotAccepted> {
    let what = "log key";
    let object = parse(what, bytes)?;
    let key: LogKey = object
        .open_json(
            keys,
            &Expect {
                purpose: Purpose::Log,
                trust_domain,
                audience: EVERYBODY,
                least_number: 0,
                now,
            },
        )
        .map_err(signed(what))?;
    key.watch().map_err(NotAccepted::LogKey)
}

/// A heartbeat; returns its number too. Its expiry is not asked: its number must be above every one before, and a node
/// whose clock runs ahead must not count as cut off for that.
pub fn heartbeat(
    bytes: &[u8],
    keys: &KeySet,
    node: &SpiffeId,
    least_number: u64,
) -> Result<(u64, Heartbeat), NotAccepted> {
    let what = "heartbeat";
    let object = parse(what, bytes)?;
    let issued = object.header().issued;
    let heartbeat: Heartbeat = object
        .open_json(
            keys,
            &for_node(
                Purpose::Control,
                node,
                &node.to_string(),
                least_number,
                issued,
            ),
        )
        .map_err(signed(what))?;
    if heartbeat.time != issued {
        return Err(NotAccepted::Number { what });
    }
    Ok((object.header().number, heartbeat))
}

/// A cut; returns its number too. Cuts only take away, so an old one is harmless and none is refused for its age.
pub fn cut(
    bytes: &[u8],
    keys: &KeySet,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<(u64, Cut), NotAccepted> {
    let what = "cut";
    let object = parse(what, bytes)?;
    let cut = object
        .open_json(
            keys,
            &Expect {
                purpose: Purpose::Control,
                trust_domain,
                audience: EVERYBODY,
                least_number: 0,
                now: now.min(object.header().issued),
            },
        )
        .map_err(signed(what))?;
    Ok((object.header().number, cut))
}

impl NotAccepted {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signed { source, .. } => source.code(),
            Self::Slice(_) => "slice_malformed",
            Self::OtherNode(_) => "slice_other_node",
            Self::Bundle(_) => "bundle_malformed",
            Self::NewRoot => "bundle_new_root",
            Self::LostRoot => "bundle_lost_root",
            Self::BundleBehind { .. } => "bundle_rollback",
            Self::Roots(refused) => refused.code(),
            Self::Stranded => "bundle_stranded",
            Self::Director(_) => "director_malformed",
            Self::LogKey(_) => "log_key_malformed",
            Self::Number { .. } => "signed_number",
        }
    }
}

fn for_node<'a>(
    purpose: Purpose,
    node: &'a SpiffeId,
    audience: &'a str,
    least_number: u64,
    now: Timestamp,
) -> Expect<'a> {
    Expect {
        purpose,
        trust_domain: node.trust_domain(),
        audience,
        least_number,
        now,
    }
}

fn parse(what: &'static str, bytes: &[u8]) -> Result<SignedObject, NotAccepted> {
    SignedObject::parse(bytes).map_err(|error: Malformed| signed(what)(error.into()))
}

fn signed(what: &'static str) -> impl FnOnce(Unacceptable) -> NotAccepted {
    move |source| NotAccepted::Signed { what, source }
}
