//! What a node holds, in tests: nothing but what a test puts there.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::{TEST_NOW, TestAuthority};
use edgeward_identity::{KeySet, Purpose, SignedObject, Signer as _, Timestamp};
use edgeward_policy::slice::SLICE_SCHEMA;
use edgeward_policy::{Lifetimes, Roles, Seconds, Slice};

use super::{CloudLink, CutFloors, Directory, HeldSlice, Initial, Overlay, Standing};

const DAY: Duration = Duration::from_secs(86_400);

/// A node that has just enrolled and may grant.
pub(crate) fn initial(authority: &TestAuthority, node: &str, keys: &[PurposeKey]) -> Initial {
    Initial {
        svid: Arc::new(authority.svid(node)),
        trust: authority.trust_view(),
        keys: key_set(authority, keys),
        slice: None,
        peers: Directory::default(),
        result: None,
        overlay: Overlay {
            v6: edgeward_identity::overlay::ipv6_of(&authority.id(node)),
            v4: None,
        },
        link: CloudLink::never_since(Timestamp::default()),
        standing: Standing::Granting,
        cuts: CutFloors::default(),
        director: None,
    }
}

fn key_set(authority: &TestAuthority, keys: &[PurposeKey]) -> KeySet {
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: authority.trust_domain().clone(),
        audience: EVERYBODY.to_owned(),
        number: 1,
        issued: TEST_NOW,
        expires: TEST_NOW.plus(DAY),
    };
    let root = authority.root_key();
    let object = SignedObject::sign_json(root.as_ref(), header, &keys).unwrap();
    let roots = [*root.public_key()];
    KeySet::open(&object, &roots, authority.trust_domain(), 0, TEST_NOW).unwrap()
}

/// A slice that allows nothing.
pub(crate) fn slice(number: u64, node: &str) -> Slice {
    Slice {
        schema: SLICE_SCHEMA.to_owned(),
        version: number,
        policy_hash: String::new(),
        roles: Roles::default(),
        routes: Vec::new(),
        node: node.parse().unwrap(),
        expires: TEST_NOW.plus(DAY),
        groups: Vec::new(),
        windows: Vec::new(),
        interfaces: Vec::new(),
        peers: Vec::new(),
        operators: Vec::new(),
        egress: Vec::new(),
        profiles: Vec::new(),
        lifetimes: Lifetimes {
            largest_offline: Seconds::from_hours(1),
            max_offline: Seconds::from_hours(1),
        },
        devices: Vec::new(),
        approvals: Vec::new(),
        break_glass: Vec::new(),
        workloads: Vec::new(),
        apps: Default::default(),
    }
}

/// As if the cloud had sent it under its version.
pub(crate) fn held(slice: Slice) -> Arc<HeldSlice> {
    Arc::new(HeldSlice {
        number: slice.version,
        digest: [u8::try_from(slice.version).unwrap(); 32],
        slice,
        bytes: Arc::from([]),
    })
}
