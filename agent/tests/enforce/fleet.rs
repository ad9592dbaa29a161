//! What a cloud would have given two nodes: SVIDs, results, policy, directory.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_agent::boot::Boot;
use edgeward_agent::view::{self, CloudLink, CutFloors, Directory, Heard, HeldSlice, Initial};
use edgeward_agent::view::{NodeView, Overlay, Publisher, Standing};
use edgeward_evidence::appraise::{Logs, appraise};
use edgeward_evidence::result::{AttestationResult, ResultContext};
use edgeward_evidence::testing::{SoftwareTpm, sha256_selection};
use edgeward_identity::deny::Denied;
use edgeward_identity::overlay::ipv6_of;
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::{TestAuthority, validity};
use edgeward_identity::{
    Clock, DenyList, KeySet, Purpose, Secret, SignedObject, Signer, SoftwareKey, SpiffeId, Svid,
    SystemClock, Tier, Timestamp,
};
use edgeward_policy::slice::{
    Effect, Egress, EgressRow, GroupId, Lifetimes, MESH, PeerIndex, Profiles, Roles, Row,
    SLICE_SCHEMA, Slice, SliceInterface, SlicePeer, Sources, States, Term, Tiers,
};
use edgeward_policy::{ActionId, Proto, Seconds};
use edgeward_wire::control::{Cut, CutReason};
use edgeward_wire::v1;

use crate::lab::Lab;

/// Where node `b` lets node `a` in.
pub(crate) const OPEN_PORT: u16 = 502;
const HOUR: Duration = Duration::from_secs(3600);
const PCRS: [u8; 2] = [0, 7];

pub(crate) struct Fleet {
    authority: TestAuthority,
    results: SoftwareKey,
    keys: Arc<KeySet>,
}

/// A node with everything it was given.
pub(crate) struct Member {
    pub(crate) id: SpiffeId,
    pub(crate) svid: Arc<Svid>,
    pub(crate) tpm: SoftwareTpm,
    pub(crate) boot: Arc<Boot>,
    pub(crate) results: u64,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let now = SystemClock.now();
        let authority = TestAuthority::new("plant.example");
        let results = SoftwareKey::generate().unwrap();
        let header = Header {
            purpose: Purpose::Keys,
            trust_domain: authority.trust_domain().clone(),
            audience: EVERYBODY.into(),
            number: 1,
            issued: now.minus(HOUR),
            expires: now.plus(HOUR * 100),
        };
        let keys = [PurposeKey {
            purpose: Purpose::Results,
            key: *results.public_key(),
            not_after: now.plus(HOUR * 100),
        }];
        let set = SignedObject::sign_json(authority.root_key().as_ref(), header, &keys).unwrap();
        let root = [*authority.root_key().public_key()];
        let keys = KeySet::open(&set, &root, authority.trust_domain(), 0, now).unwrap();
        Self {
            authority,
            results,
            keys: Arc::new(keys),
        }
    }

    pub(crate) fn member(&self, name: &str) -> Member {
        let now = SystemClock.now();
        let path = format!("node/{name}");
        let (chain, key) = self.authority.chain_with(&path, |params| {
            validity(params, now.minus(HOUR), now.plus(HOUR * 24));
        });
        let copy = SoftwareKey::from_pkcs8(Secret::new(key.pkcs8().expose().clone())).unwrap();
        let mut tpm = SoftwareTpm::new();
        tpm.svid = key;
        Member {
            id: self.authority.id(&path),
            svid: Arc::new(Svid::new(chain, Arc::new(copy)).unwrap()),
            tpm,
            boot: Arc::new(Boot::new("test", None).unwrap()),
            results: 0,
        }
    }

    /// A result that says that the member passed at `passed`.
    pub(crate) fn result(&self, member: &mut Member, passed: Timestamp) -> Arc<[u8]> {
        let selection = sha256_selection(&PCRS);
        let profile = member.tpm.profile("gateway", &selection);
        let boot_key = *member.boot.public_key();
        let evidence = member
            .tpm
            .evidence(&member.id, &boot_key, Tier::Virtual, &selection);
        member.results += 1;
        let context = ResultContext {
            spiffe_id: &member.id,
            issued: passed,
            deny_number: 0,
        };
        AttestationResult::new(
            &evidence,
            &appraise(&evidence, &profile, &Logs::default()),
            &context,
        )
        .unwrap()
        .sign(&self.results, member.results, passed.plus(HOUR * 24))
        .unwrap()
        .into()
    }

    pub(crate) fn view(&self, member: &Member) -> (Publisher, NodeView) {
        let now = SystemClock.now();
        let link = CloudLink {
            heard: Some(Heard {
                at: SystemClock.boottime(),
                time: now,
                lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
            }),
            before_boot: Timestamp::default(),
            connected: true,
            changed: None,
        };
        let initial = Initial {
            svid: Arc::clone(&member.svid),
            trust: self.authority.trust_view(),
            keys: self.keys.as_ref().clone(),
            slice: None,
            peers: Directory::default(),
            result: None,
            overlay: Overlay {
                v6: ipv6_of(&member.id),
                v4: None,
            },
            link,
            standing: Standing::Granting,
            cuts: CutFloors::default(),
            director: None,
        };
        view::channel(Arc::new(SystemClock), Arc::clone(&member.boot), initial)
    }

    /// Policy, results and directories: `a` may reach one port of `b`.
    pub(crate) fn introduce(&self, a: &mut Lab, b: &mut Lab) {
        let now = SystemClock.now();
        a.attest(self, now);
        b.attest(self, now);
        let (id_a, id_b) = (a.id(), b.id());
        a.publisher
            .slice
            .send_replace(Some(held(slice(&id_a, &id_b, Side::From))));
        self.rule(a, b, |_| {});
        self.tell(a, b);
        self.tell(b, a);
    }

    /// Another policy at `b`: the one rule that lets `a` in, changed.
    pub(crate) fn rule(&self, a: &Lab, b: &Lab, change: impl FnOnce(&mut Row)) {
        let mut slice = slice(&b.id(), &a.id(), Side::To);
        change(&mut slice.interfaces[0].rows[0]);
        b.publisher.slice.send_replace(Some(held(slice)));
    }

    /// `at` learns that the key of `whom` is denied, or no longer.
    pub(crate) fn deny(&self, at: &Lab, whom: &Lab, denied: bool) {
        let mut trust = self.authority.trust_view();
        let number = 1 + at.publisher.trust.load().deny.number();
        let entry = denied.then(|| {
            let denied = Denied {
                reason: "quarantined".to_owned(),
                until: SystemClock.now().plus(HOUR),
            };
            (whom.member.svid.leaf().key.spki_hash(), denied)
        });
        trust.deny = DenyList::new(number, entry.into_iter().collect()).unwrap();
        at.publisher.set_trust(trust);
    }

    /// Tells `to` where `about` is and what its newest result says.
    pub(crate) fn tell(&self, to: &Lab, about: &Lab) {
        let spki = about.member.svid.leaf().key.spki_hash();
        let update = v1::PeerUpdate {
            full: true,
            peers: vec![v1::Peer {
                spiffe_id: about.id().to_string(),
                endpoints: vec![format!("{}:51820", about.ipv4)],
                spki_hash: spki.as_bytes().to_vec(),
                result: about.result.to_vec(),
                passed: 0,
            }],
            gone: Vec::new(),
        };
        let directory = Directory::default()
            .updated(self.authority.trust_domain(), &update)
            .unwrap();
        to.publisher.peers.send_replace(Arc::new(directory));
    }

    /// The first cut, ordered at `at` only.
    pub(crate) fn cut(&self, at: &Lab, name: &str) {
        let mut floors = CutFloors::default();
        floors.add(
            1,
            &Cut {
                node: self.authority.id(&format!("node/{name}")),
                reason: CutReason::Quarantined,
                time: SystemClock.now(),
            },
        );
        at.publisher.cuts.send_replace(Arc::new(floors));
    }
}

pub(crate) enum Side {
    From,
    To,
}

pub(crate) fn held(slice: Slice) -> Arc<HeldSlice> {
    let bytes: Arc<[u8]> = slice.to_json().into();
    Arc::new(HeldSlice {
        number: 1,
        digest: [1; 32],
        slice,
        bytes,
    })
}

pub(crate) fn slice(node: &SpiffeId, peer: &SpiffeId, side: Side) -> Slice {
    let term = |seconds| Term {
        own: None,
        default: Seconds::new(seconds),
        most: None,
    };
    let (fresh, offline) = (term(600), term(3600));
    let interface = SliceInterface {
        service: "line3".to_owned(),
        name: "modbus".to_owned(),
        net: MESH.to_owned(),
        proto: Proto::Tcp,
        port: OPEN_PORT,
        to: None,
        beyond: None,
        l7: None,
        rows: vec![Row {
            rule: "a-reads".into(),
            effect: Effect::Allow,
            from: Sources::Groups(vec![GroupId(0)]),
            actions: vec![ActionId::CONNECT],
            window: None,
            until: None,
            tiers: Tiers::Rooted,
            states: States::Proven,
            profiles: Profiles::Every,
            runs: Vec::new(),
            approval: false,
            fresh,
            offline,
        }],
    };
    let egress = Egress {
        peer: PeerIndex(0),
        service: "line3".to_owned(),
        interface: "modbus".to_owned(),
        proto: Proto::Tcp,
        port: OPEN_PORT,
        beyond: None,
        devices: Vec::new(),
        rows: vec![EgressRow {
            rule: "a-reads".into(),
            window: None,
            until: None,
            approval: false,
            fresh,
            offline,
        }],
    };
    let (interfaces, egress) = match side {
        Side::From => (Vec::new(), vec![egress]),
        Side::To => (vec![interface], Vec::new()),
    };
    Slice {
        schema: SLICE_SCHEMA.to_owned(),
        version: 1,
        policy_hash: "00".repeat(32),
        roles: Roles::default(),
        routes: Vec::new(),
        node: node.clone(),
        expires: SystemClock.now().plus(HOUR * 24),
        groups: vec!["clients".to_owned()],
        windows: Vec::new(),
        interfaces,
        peers: vec![SlicePeer {
            id: peer.clone(),
            groups: vec![GroupId(0)],
            v6: ipv6_of(peer),
            v4: None,
            fresh: None,
            offline: None,
            software: false,
            relay: false,
            exit: false,
            routes: Vec::new(),
            devices: Vec::new(),
        }],
        operators: Vec::new(),
        egress,
        profiles: Vec::new(),
        lifetimes: Lifetimes {
            largest_offline: Seconds::from_hours(1),
            max_offline: Seconds::from_hours(1),
        },
        workloads: Vec::new(),
        devices: Vec::new(),
        approvals: Vec::new(),
        break_glass: Vec::new(),
        apps: Default::default(),
    }
}

/// The overlay address of a member.
pub(crate) fn overlay(id: &SpiffeId) -> Ipv6Addr {
    ipv6_of(id)
}
