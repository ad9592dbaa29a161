use super::*;
use std::collections::BTreeMap;

use async_trait::async_trait;
use edgeward_audit::{Event, EventKind};
use edgeward_identity::deny::Denied;
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_identity::{
    DenyList, KeySet, Purpose, SignedObject, Signer, SoftwareKey, SpiffeId, SpkiHash, Svid,
    Timestamp,
};
use edgeward_policy::Slice;
use edgeward_wire::control::{Cut, CutReason, Heartbeat};
use edgeward_wire::slice_delta;
use parking_lot::Mutex;
use serde::Serialize;

use crate::apps::floors::AppsOrder;
use crate::clock::Anchor;
use crate::enforce::{RecordRefused, Recorder};
use crate::root::fake::FakeRoot;
use crate::state::{Blob, Recent, StateFolder, Stored};
use crate::tpm::SvidSlot;
use crate::view::{
    self, CloudLink, CutFloors, Directory, Held, Initial, NodeView, Overlay, Standing,
};

mod joins;
mod marks;
mod roots;
mod slices;
mod upload;

const HOUR: Duration = Duration::from_secs(3600);

/// Keeps events; refuses grants on demand.
#[derive(Default)]
struct Notes {
    full: std::sync::atomic::AtomicBool,
    events: Mutex<Vec<EventKind>>,
}

#[async_trait]
impl Recorder for Notes {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(RecordRefused("full".to_owned()));
        }
        self.record_after(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.events.lock().push(event.kind);
    }
}

/// A node that holds something, and the cloud's keys to send it more.
struct World {
    authority: TestAuthority,
    control: SoftwareKey,
    stranger: SoftwareKey,
    clock: Arc<TurnedClock>,
    view: NodeView,
    holder: Holder,
    notes: Arc<Notes>,
    root: Arc<FakeRoot>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::held(Standing::Granting).await
    }

    async fn held(standing: Standing) -> Self {
        let authority = TestAuthority::new("plant.example");
        let control = SoftwareKey::generate().unwrap();
        let clock = TurnedClock::at(TEST_NOW);
        let anchor = Anchor {
            time: TEST_NOW,
            at: clock.boottime(),
        };
        let node_clock = Arc::new(NodeClock::new(clock.clone(), anchor));
        let boot = Arc::new(Boot::new("kernel", None).unwrap());
        let svid = authority.svid("node/a");
        let key_set = key_set(&authority, &control, 1);
        let keys = KeySet::open(
            &SignedObject::parse(&key_set).unwrap(),
            &[*authority.root_key().public_key()],
            authority.trust_domain(),
            0,
            TEST_NOW,
        )
        .unwrap();
        let stored = Stored {
            node: svid.id().clone(),
            addresses: vec!["cloud:7443".to_owned()],
            slot: SvidSlot::A,
            svid_chain: svid.chain().iter().map(|der| Blob(der.to_vec())).collect(),
            trust_bundle: Blob(authority.bundle().to_spiffe_json()),
            key_set: Blob(key_set),
            deny_list: Blob::default(),
            slice: Blob::default(),
            v4: None,
            peers: Vec::new(),
            cuts: CutFloors::default(),
            join: 0,
            glass: Default::default(),
            apps: Default::default(),
        };
        let initial = Initial {
            svid: Arc::new(svid),
            trust: authority.trust_view(),
            keys,
            slice: None,
            peers: Directory::default(),
            result: None,
            overlay: Overlay {
                v6: edgeward_identity::overlay::ipv6_of(&stored.node),
                v4: None,
            },
            link: CloudLink::never_since(Timestamp::default()),
            standing,
            cuts: CutFloors::default(),
            director: None,
        };
        let (publisher, view) = view::channel(node_clock.clone(), boot.clone(), initial);
        let folder = tempfile::tempdir().unwrap();
        let root = Arc::new(FakeRoot::new(1));
        let (state, _) = StateFolder::open(folder.path(), root.as_ref())
            .await
            .unwrap();
        let keeper = Keeper {
            folder: state,
            root: root.clone(),
            boot: boot.clone(),
            clock: node_clock.clone(),
            recent: Recent::at(TEST_NOW, "kernel", clock.boottime()),
            stored,
            marked: Default::default(),
            dirty: false,
        };
        let notes = Arc::new(Notes::default());
        Self {
            authority,
            control,
            stranger: SoftwareKey::generate().unwrap(),
            clock,
            view,
            holder: Holder::new(publisher, keeper, notes.clone()),
            notes,
            root,
            folder,
        }
    }

    fn node(&self) -> SpiffeId {
        self.view.node.clone()
    }

    fn sign<T: Serialize>(
        &self,
        by: &SoftwareKey,
        purpose: Purpose,
        audience: &str,
        number: u64,
        value: &T,
    ) -> Vec<u8> {
        let now = self.clock.now();
        let header = Header {
            purpose,
            trust_domain: self.authority.trust_domain().clone(),
            audience: audience.to_owned(),
            number,
            issued: now,
            expires: now.plus(HOUR),
        };
        SignedObject::sign_json(by, header, value)
            .unwrap()
            .to_bytes()
    }

    fn slice_signed(&self, by: &SoftwareKey, audience: &str, number: u64) -> Vec<u8> {
        self.sign(
            by,
            Purpose::Policy,
            audience,
            number,
            &empty_slice(&self.node(), number),
        )
    }

    fn slice(&self, number: u64) -> Vec<u8> {
        self.slice_signed(&self.control, &self.node().to_string(), number)
    }

    fn heartbeat(&self, number: u64, deny_number: u64) -> Vec<u8> {
        let beat = Heartbeat {
            time: self.clock.now(),
            deny_number,
            every: None,
        };
        self.sign(
            &self.control,
            Purpose::Control,
            &self.node().to_string(),
            number,
            &beat,
        )
    }

    fn deny_list(&self, number: u64, denied: &[SpkiHash]) -> Vec<u8> {
        let entry = Denied {
            reason: "quarantined".to_owned(),
            until: self.clock.now().plus(HOUR),
        };
        let entries: BTreeMap<_, _> = denied.iter().map(|key| (*key, entry.clone())).collect();
        let list = DenyList::new(number, entries).unwrap();
        self.sign(&self.control, Purpose::DenyList, EVERYBODY, number, &list)
    }

    fn cut(&self, node: &str, number: u64) -> Vec<u8> {
        let cut = Cut {
            node: self.authority.id(node),
            reason: CutReason::Quarantined,
            time: self.clock.now(),
        };
        self.sign(&self.control, Purpose::Control, EVERYBODY, number, &cut)
    }

    fn events(&self) -> Vec<EventKind> {
        std::mem::take(&mut *self.notes.events.lock())
    }

    async fn stored(&mut self) -> crate::state::Found {
        self.holder.settle().await;
        StateFolder::open(self.folder.path(), self.root.as_ref())
            .await
            .unwrap()
            .1
    }
}

fn key_set(authority: &TestAuthority, control: &SoftwareKey, number: u64) -> Vec<u8> {
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: authority.trust_domain().clone(),
        audience: EVERYBODY.to_owned(),
        number,
        issued: TEST_NOW,
        expires: TEST_NOW.plus(HOUR * 24),
    };
    let purposes = [
        Purpose::Policy,
        Purpose::DenyList,
        Purpose::Control,
        Purpose::Director,
        Purpose::Log,
    ];
    let keys: Vec<PurposeKey> = purposes
        .into_iter()
        .map(|purpose| PurposeKey {
            purpose,
            key: *control.public_key(),
            not_after: TEST_NOW.plus(HOUR * 24),
        })
        .collect();
    SignedObject::sign_json(authority.root_key().as_ref(), header, &keys)
        .unwrap()
        .to_bytes()
}

fn empty_slice(node: &SpiffeId, version: u64) -> Slice {
    let json = serde_json::json!({
        "schema": "edgeward-slice/5",
        "version": version,
        "policy_hash": "00",
        "node": node,
        "roles": { "relay": false, "exit": false }, "routes": [],
        "expires": TEST_NOW.plus(HOUR * 10),
        "groups": [], "windows": [], "interfaces": [], "peers": [], "operators": [], "egress": [], "profiles": [],
        "workloads": [], "devices": [], "approvals": [], "break_glass": [],
        "apps": { "publishers": {}, "allow": [] },
        "lifetimes": { "largest_offline": 43200, "max_offline": 259200 },
    });
    Slice::parse(&serde_json::to_vec(&json).unwrap()).unwrap()
}

fn trust(deny_list: Vec<u8>) -> v1::TrustUpdate {
    v1::TrustUpdate {
        deny_list,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_of_another_key_node_number_or_purpose_changes_nothing() {
    let mut world = World::new().await;
    let own = world.node().to_string();
    world.holder.slice(&world.slice(5));
    assert_eq!(world.holder.slice_number(), 5);
    world.events();
    let beat = world.heartbeat(9, 0);
    let bad = [
        world.slice_signed(&world.stranger, &own, 6),
        world.slice_signed(&world.control, "spiffe://plant.example/node/b", 6),
        world.slice_signed(&world.control, EVERYBODY, 6),
        world.slice(4),
        beat,
        Vec::new(),
        vec![0; 100],
    ];
    for bytes in bad {
        world.holder.slice(&bytes);
        assert_eq!(world.holder.slice_number(), 5);
        assert_eq!(world.events(), [EventKind::PolicyRefused]);
    }
    world.clock.turn(HOUR * 2);
    let expired = world.slice(7);
    world.clock.turn(HOUR * 2);
    world.holder.slice(&expired);
    assert_eq!(world.holder.slice_number(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_slice_is_published_and_stored_and_the_same_one_changes_nothing() {
    let mut world = World::new().await;
    let slice = world.slice(5);
    world.holder.slice(&slice);
    let mut follow = world.view.slice.clone();
    assert_eq!(follow.borrow_and_update().as_ref().unwrap().number, 5);
    assert!(!world.stored().await.held.unwrap().slice.0.is_empty());
    world.holder.slice(&slice);
    assert!(!follow.has_changed().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_revokes_an_app_is_on_disk_when_whoever_kills_asks_and_no_epoch_is_waited_for() {
    let mut world = World::new().await;
    let own = world.node().to_string();
    let said = |world: &World, number, orders: &edgeward_apps::Orders| {
        world.sign(&world.control, Purpose::Director, &own, number, orders)
    };
    let assigned = edgeward_apps::director::Assigned {
        version: "1.0".parse().unwrap(),
        digest: edgeward_apps::Digest::of(b"1.0"),
        length: 3,
        state: edgeward_apps::director::Wish::Running,
        back: false,
    };
    let mut orders = edgeward_apps::Orders::default();
    orders.apps.insert("acme/x".parse().unwrap(), assigned);
    assert!(world.holder.apps(&said(&world, 1, &orders)));
    world.holder.settle().await;
    let epoch = world.root.epoch().await.unwrap();
    let on_disk = async |world: &World| {
        let (_, found) = StateFolder::open(world.folder.path(), world.root.as_ref())
            .await
            .unwrap();
        found.held.unwrap().apps.director.0
    };
    orders.denied.insert(edgeward_apps::Digest::of(b"1.0"));
    let word = said(&world, 2, &orders);
    assert_ne!(on_disk(&world).await, word);
    assert!(world.holder.apps(&word));
    let (done, answer) = tokio::sync::oneshot::channel();
    world.holder.ledger(AppsOrder::Settle { done }).await;
    assert!(answer.await.unwrap());
    assert_eq!(on_disk(&world).await, word);
    assert_eq!(world.root.epoch().await.unwrap(), epoch);
    // The epoch follows: whoever puts back the disk of before is found out.
    assert!(world.holder.settle_in().is_some());
    world.holder.settle().await;
    assert!(world.root.epoch().await.unwrap() > epoch);
    assert_eq!(on_disk(&world).await, word);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_counts_once_and_only_if_it_is_ours_and_newer() {
    let mut world = World::new().await;
    let first = world.heartbeat(10, 0);
    assert_eq!(world.holder.heartbeat(&first), Applied::Done);
    let online = |world: &World| world.view.link.borrow().online(world.clock.boottime());
    assert!(online(&world));
    world
        .clock
        .turn(HEARTBEAT_LOST_AFTER + Duration::from_secs(1));
    assert!(!online(&world));
    assert_eq!(world.holder.heartbeat(&first), Applied::Behind);
    assert!(!online(&world));
    let beat = Heartbeat {
        time: world.clock.now(),
        deny_number: 0,
        every: None,
    };
    let other = world.sign(
        &world.control,
        Purpose::Control,
        "spiffe://plant.example/node/b",
        11,
        &beat,
    );
    assert_eq!(world.holder.heartbeat(&other), Applied::Behind);
    assert!(!online(&world));
    let next = world.heartbeat(11, 0);
    assert_eq!(world.holder.heartbeat(&next), Applied::Done);
    assert!(online(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ahead_does_not_make_a_node_blind() {
    let mut world = World::new().await;
    let beat = world.heartbeat(10, 0);
    world.clock.set_now(TEST_NOW.plus(HOUR * 100));
    assert_eq!(world.holder.heartbeat(&beat), Applied::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_names_a_newer_deny_list_says_so() {
    let mut world = World::new().await;
    assert_eq!(
        world.holder.heartbeat(&world.heartbeat(10, 3)),
        Applied::Behind
    );
    world.holder.trust(trust(world.deny_list(3, &[]))).await;
    assert_eq!(
        world.holder.heartbeat(&world.heartbeat(11, 3)),
        Applied::Done
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deny_list_only_rises_and_takes_effect_even_if_nothing_can_be_recorded() {
    let mut world = World::new().await;
    world
        .notes
        .full
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let key = world.stranger.public_key().spki_hash();
    world.holder.trust(trust(world.deny_list(2, &[key]))).await;
    assert!(world.view.trust.load().deny.get(&key).is_some());
    assert_eq!(*world.view.trust_changed.borrow(), 2);
    world.holder.trust(trust(world.deny_list(1, &[]))).await;
    assert!(world.view.trust.load().deny.get(&key).is_some());
    // An old state without it would be found out.
    let found = world.stored().await;
    assert!(!found.rolled_back);
    assert!(!found.held.unwrap().deny_list.0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stays_a_floor_across_a_restart() {
    let mut world = World::new().await;
    let forged = {
        let cut = Cut {
            node: world.authority.id("node/b"),
            reason: CutReason::Failed,
            time: world.clock.now(),
        };
        world.sign(&world.stranger, Purpose::Control, EVERYBODY, 4, &cut)
    };
    world.holder.cut(&forged).await;
    assert!(world.view.cuts.borrow().is_empty());
    world.holder.cut(&world.cut("node/b", 5)).await;
    let b = world.authority.id("node/b");
    assert!(!world.view.cuts.borrow().admits(&b, TEST_NOW));
    let found = world.stored().await;
    assert!(!found.held.unwrap().cuts.admits(&b, TEST_NOW));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_away_is_stored_within_a_second_however_much_comes_meanwhile() {
    let mut world = World::new().await;
    assert_eq!(world.holder.settle_in(), None);
    let step = Duration::from_millis(90);
    for number in 1..=12 {
        world.holder.cut(&world.cut("node/b", number)).await;
        let due = world.holder.settle_in().unwrap();
        let passed = step * u32::try_from(number - 1).unwrap();
        assert!(passed + due <= Duration::from_secs(1), "{number}: {due:?}");
        world.clock.turn(step);
    }
    assert_eq!(world.holder.settle_in(), Some(Duration::ZERO));
    world.holder.settle().await;
    assert_eq!(world.holder.settle_in(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_back_is_granted_again_only_after_a_good_heartbeat() {
    let mut world = World::held(Standing::Held(Held::StateRolledBack)).await;
    let mut welcome = v1::Welcome {
        trust: Some(trust(world.deny_list(2, &[]))),
        slice: world.slice(5),
        heartbeat: world.slice(6),
        ..Default::default()
    };
    world.holder.welcome(welcome.clone()).await.unwrap();
    assert!(world.view.standing.borrow().may_grant().is_err());
    // Signed, but it names a deny-list that did not come.
    welcome.heartbeat = world.heartbeat(10, 3);
    world.holder.welcome(welcome.clone()).await.unwrap();
    assert!(world.view.standing.borrow().may_grant().is_err());
    welcome.heartbeat = world.heartbeat(11, 2);
    world.holder.welcome(welcome).await.unwrap();
    assert!(world.view.standing.borrow().may_grant().is_ok());
    assert!(!world.stored().await.rolled_back);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_must_be_of_this_node_and_its_key() {
    let mut world = World::new().await;
    let before = world.view.svid.borrow().leaf().serial.clone();
    for chain in [
        world.authority.svid("node/b").chain().to_vec(),
        world.authority.svid("node/a").chain().to_vec(),
        Vec::new(),
    ] {
        let outcome = v1::AttestOutcome {
            svid_chain: chain.iter().map(|der| der.to_vec()).collect(),
            ..Default::default()
        };
        assert_eq!(world.holder.outcome(outcome).await, Applied::Done);
        assert_eq!(world.view.svid.borrow().leaf().serial, before);
    }
    let good: Arc<Svid> = world.view.svid.borrow().clone();
    let outcome = v1::AttestOutcome {
        svid_chain: good.chain().iter().map(|der| der.to_vec()).collect(),
        ..Default::default()
    };
    assert_eq!(world.holder.outcome(outcome).await, Applied::Renewed);
    assert!(world.events().contains(&EventKind::SvidRenewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_not_one_is_not_published() {
    let mut world = World::new().await;
    let outcome = v1::AttestOutcome {
        result: world.slice(1),
        ..Default::default()
    };
    world.holder.outcome(outcome).await;
    assert!(world.view.result.borrow().is_none());
}

fn peer(id: &str) -> v1::Peer {
    v1::Peer {
        spiffe_id: id.to_owned(),
        endpoints: vec!["192.0.2.1:51820".to_owned()],
        spki_hash: vec![1; 32],
        result: Vec::new(),
        passed: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_against_another_than_the_one_held_needs_another_session() {
    let mut world = World::new().await;
    let (held, new) = (world.slice(1), world.slice(2));
    let delta = |base: &[u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA256, base);
        let base = slice_delta::Base {
            digest: digest.as_ref().try_into().unwrap(),
            at: 0,
            bytes: base,
        };
        v1::AttestOutcome {
            result_delta: slice_delta::make(base, &new),
            ..Default::default()
        }
    };
    let against = delta(&held);
    assert!(against.result_delta.is_some());
    assert_eq!(world.holder.outcome(against.clone()).await, Applied::Unread);
    world.holder.keeper.recent.result = held;
    // Put together, judged as any other, and no result.
    assert_eq!(world.holder.outcome(against).await, Applied::Done);
    assert!(world.view.result.borrow().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_came_is_stored_at_once_and_a_mere_result_is_not() {
    let mut world = World::new().await;
    let came = peer("spiffe://plant.example/node/b");
    world.holder.peers(&v1::PeerUpdate {
        full: true,
        peers: vec![came.clone()],
        gone: Vec::new(),
    });
    assert!(world.holder.settle_in().is_some());
    assert_eq!(world.stored().await.held.unwrap().peers.len(), 1);

    assert_eq!(world.holder.settle_in(), None);
    world.holder.peers(&v1::PeerUpdate {
        full: false,
        peers: vec![v1::Peer {
            result: vec![1],
            ..came
        }],
        gone: Vec::new(),
    });
    assert_eq!(world.holder.settle_in(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_update_of_the_directory_leaves_it_as_it_was() {
    let mut world = World::new().await;
    let update = |full, peers| v1::PeerUpdate {
        full,
        peers,
        gone: Vec::new(),
    };
    world
        .holder
        .peers(&update(true, vec![peer("spiffe://plant.example/node/b")]));
    assert_eq!(world.view.peers.borrow().len(), 1);
    world.holder.peers(&update(
        true,
        vec![peer("spiffe://plant.example/operator/b")],
    ));
    assert_eq!(world.view.peers.borrow().len(), 1);
}

#[test]
fn what_the_operator_advertises_wins_over_what_the_connection_shows() {
    let local: std::net::IpAddr = "2001:db8::7".parse().unwrap();
    let mut endpoints = Endpoints {
        advertised: Vec::new(),
        udp_port: 51820,
    };
    assert_eq!(endpoints.say(&[], local), ["[2001:db8::7]:51820"]);
    let found = ["192.0.2.9:4000".to_owned()];
    assert_eq!(endpoints.say(&found, local), found);
    endpoints.advertised = vec!["edge.example:1".to_owned()];
    assert_eq!(endpoints.say(&found, local), ["edge.example:1"]);
}

#[test]
fn an_alert_about_our_certificate_is_told_from_a_broken_link() {
    let broken = || stream_failed(tonic::Status::unavailable("gone"));
    let heard = |alert| Verdict::of(rustls::Error::AlertReceived(alert));
    for alert in REJECTIONS {
        let ended = broken().in_view_of(&heard(alert));
        assert!(matches!(ended, SessionEnded::Rejected), "{alert:?}");
    }
    for verdict in [
        Verdict::default(),
        heard(AlertDescription::InternalError),
        Verdict::of(rustls::Error::DecryptError),
    ] {
        assert!(matches!(
            broken().in_view_of(&verdict),
            SessionEnded::Stream(_)
        ));
    }
    // A word of the cloud says more than an alert that followed it.
    let revoked = heard(AlertDescription::CertificateRevoked);
    assert!(matches!(
        SessionEnded::Goodbye("node_quarantined".to_owned()).in_view_of(&revoked),
        SessionEnded::Goodbye(_)
    ));
}
