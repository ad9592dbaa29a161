use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::peer::{PeerRefused, TrustView, VerifiedPeer, verify};
use super::*;
use crate::clock::Timestamp;
use crate::deny::{Denied, DenyList};
use crate::spiffe_id::Kind;
use crate::svid::{Svid, SvidError};
use crate::testing::{TEST_NOW, TestAuthority, TurnedClock, validity};

const DAY: Duration = Duration::from_secs(86_400);

/// Runs a handshake in memory; the error is of whichever side refused.
fn handshake(
    client: rustls::ClientConfig,
    server: rustls::ServerConfig,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("cloud.invalid").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

fn trust(authority: &TestAuthority) -> Arc<ArcSwap<TrustView>> {
    Arc::new(ArcSwap::from_pointee(authority.trust_view()))
}

fn meet(
    client: &Svid,
    client_accepts: &[Kind],
    server: &Svid,
    server_accepts: &[Kind],
    authority: &TestAuthority,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let clock = TurnedClock::at(TEST_NOW);
    let client = client_config(client, client_accepts, authority, &clock);
    let verifier = PeerVerifier::mandatory(trust(authority), clock, server_accepts);
    handshake(
        client,
        super::server(Credentials::new(server), verifier, &[b"test"]),
    )
}

fn client_config(
    svid: &Svid,
    accepts: &[Kind],
    authority: &TestAuthority,
    clock: &Arc<TurnedClock>,
) -> rustls::ClientConfig {
    let verifier = PeerVerifier::mandatory(trust(authority), clock.clone(), accepts);
    super::client(Credentials::new(svid), verifier, &[b"test"])
}

#[test]
fn only_the_accepted_kind_gets_through_for_every_pair_of_kinds() {
    let authority = TestAuthority::new("plant.example");
    let cloud = authority.svid("cloud/main");
    for kind in Kind::ALL {
        let svid = authority.svid(&format!("{kind}/x"));
        for accepted in Kind::ALL {
            let as_client = meet(&svid, &[Kind::Cloud], &cloud, &[accepted], &authority);
            assert_eq!(
                as_client.is_ok(),
                kind == accepted,
                "{kind} to a server of {accepted}"
            );
            let as_server = meet(&cloud, &[accepted], &svid, &[Kind::Cloud], &authority);
            assert_eq!(
                as_server.is_ok(),
                kind == accepted,
                "a client of {accepted} to {kind}"
            );
        }
    }
}

#[test]
fn both_ends_export_the_same_keying_material_and_know_each_other() {
    let authority = TestAuthority::new("plant.example");
    let (node, cloud) = (authority.svid("node/a"), authority.svid("cloud/main"));
    let (client, server) = meet(&node, &[Kind::Cloud], &cloud, &[Kind::Node], &authority).unwrap();
    let export = |connection: &rustls::CommonState| {
        let peer = VerifiedPeer::of_tls(connection, &authority.trust_view(), &Kind::ALL, TEST_NOW);
        peer.unwrap().unwrap()
    };
    assert_eq!(export(&client).id(), cloud.id());
    assert_eq!(export(&server).id(), node.id());
    let left = client
        .export_keying_material([0; EXPORTER_BYTES], EVIDENCE_EXPORTER_LABEL, None)
        .unwrap();
    let right = server
        .export_keying_material([0; EXPORTER_BYTES], EVIDENCE_EXPORTER_LABEL, None)
        .unwrap();
    assert_eq!(left, right);
    assert_ne!(left, [0; EXPORTER_BYTES]);
}

#[test]
fn a_client_without_a_certificate_is_nobody() {
    let authority = TestAuthority::new("plant.example");
    let clock = TurnedClock::at(TEST_NOW);
    let cloud = authority.svid("cloud/main");
    let pinned = PinnedVerifier::new(
        authority.root_pin(),
        authority.trust_domain().clone(),
        clock.clone(),
    );
    let verifier = PeerVerifier::optional(trust(&authority), clock, &[Kind::Node]);
    let server = super::server(Credentials::new(&cloud), verifier, &[b"test"]);
    let (_, server) = handshake(anonymous_client(pinned, &[b"test"]), server).unwrap();
    assert_eq!(
        VerifiedPeer::of_tls(&server, &authority.trust_view(), &Kind::ALL, TEST_NOW),
        Ok(None)
    );
}

#[test]
fn a_pinned_client_refuses_another_root_another_domain_and_an_enrolled_node() {
    let authority = TestAuthority::new("plant.example");
    let clock = TurnedClock::at(TEST_NOW);
    let attempt = |svid: &Svid, pin, domain: &str| {
        let pinned = PinnedVerifier::new(pin, domain.parse().unwrap(), clock.clone());
        let verifier = PeerVerifier::optional(trust(&authority), clock.clone(), &[Kind::Node]);
        let server = super::server(Credentials::new(svid), verifier, &[b"test"]);
        handshake(anonymous_client(pinned, &[b"test"]), server).map(|_| ())
    };
    let cloud = authority.svid("cloud/main");
    assert!(attempt(&cloud, authority.root_pin(), "plant.example").is_ok());
    let other_pin = TestAuthority::new("plant.example").root_pin();
    assert!(attempt(&cloud, other_pin, "plant.example").is_err());
    assert!(attempt(&cloud, authority.root_pin(), "other.example").is_err());
    assert!(
        attempt(
            &authority.svid("node/a"),
            authority.root_pin(),
            "plant.example"
        )
        .is_err()
    );
}

#[test]
fn a_leaf_pinned_as_if_it_were_the_root_is_refused() {
    let authority = TestAuthority::new("plant.example");
    let clock = TurnedClock::at(TEST_NOW);
    let cloud = authority.svid("cloud/main");
    let pinned = PinnedVerifier::new(
        cloud.leaf().key.spki_hash(),
        authority.trust_domain().clone(),
        clock.clone(),
    );
    let verifier = PeerVerifier::optional(trust(&authority), clock, &[Kind::Node]);
    let server = super::server(Credentials::new(&cloud), verifier, &[b"test"]);
    assert!(handshake(anonymous_client(pinned, &[b"test"]), server).is_err());
}

#[test]
fn every_bad_chain_has_its_own_reason_code() {
    let authority = TestAuthority::new("plant.example");
    let stranger = TestAuthority::new("plant.example");
    let foreign = TestAuthority::new("other.example");
    let code = |chain: &[_], now: Timestamp| {
        verify(chain, &authority.trust_view(), &[Kind::Node], now)
            .unwrap_err()
            .code()
    };
    let good = authority.svid("node/a");
    assert!(
        verify(
            good.chain(),
            &authority.trust_view(),
            &[Kind::Node],
            TEST_NOW
        )
        .is_ok()
    );
    assert_eq!(code(&[], TEST_NOW), "peer_no_certificate");
    let long: Vec<_> = good.chain().iter().cycle().take(5).cloned().collect();
    assert_eq!(code(&long, TEST_NOW), "peer_chain_too_long");
    assert_eq!(
        code(stranger.svid("node/a").chain(), TEST_NOW),
        "peer_untrusted"
    );
    assert_eq!(
        code(foreign.svid("node/a").chain(), TEST_NOW),
        "peer_trust_domain"
    );
    assert_eq!(
        code(authority.svid("operator/a").chain(), TEST_NOW),
        "peer_kind"
    );
    assert_eq!(code(good.chain(), TEST_NOW.plus(DAY * 2)), "peer_expired");
    assert_eq!(code(good.chain(), TEST_NOW.minus(DAY)), "peer_expired");
    let future = authority.svid_with("node/a", |p| {
        validity(p, TEST_NOW.plus(DAY), TEST_NOW.plus(DAY * 2))
    });
    assert_eq!(code(future.chain(), TEST_NOW), "peer_expired");
    let mut without_issuing = good.chain().to_vec();
    without_issuing.remove(1);
    assert_eq!(code(&without_issuing, TEST_NOW), "peer_untrusted");
}

#[test]
fn a_leaf_used_as_issuer_is_refused() {
    let authority = TestAuthority::new("plant.example");
    let (mut chain, _) = authority.chain_with("node/a", |_| {});
    let (other, _) = authority.chain_with("node/b", |_| {});
    chain[1] = other[0].clone();
    assert_eq!(
        verify(&chain, &authority.trust_view(), &[Kind::Node], TEST_NOW),
        Err(PeerRefused::Svid(SvidError::IntermediateMayNotSign))
    );
}

#[test]
fn a_denied_key_is_refused_at_the_handshake_and_afterwards() {
    let authority = TestAuthority::new("plant.example");
    let (node, cloud) = (authority.svid("node/a"), authority.svid("cloud/main"));
    let peer = verify(
        node.chain(),
        &authority.trust_view(),
        &[Kind::Node],
        TEST_NOW,
    )
    .unwrap();
    assert!(
        peer.still_accepted(&authority.trust_view(), TEST_NOW)
            .is_ok()
    );

    let denied = Denied {
        reason: "quarantined".into(),
        until: TEST_NOW.plus(DAY),
    };
    let view = TrustView {
        bundle: authority.bundle(),
        deny: DenyList::new(1, BTreeMap::from([(node.leaf().key.spki_hash(), denied)])).unwrap(),
    };
    assert_eq!(
        peer.still_accepted(&view, TEST_NOW),
        Err(PeerRefused::Denied("quarantined".into()))
    );
    let clock = TurnedClock::at(TEST_NOW);
    let client = client_config(&node, &[Kind::Cloud], &authority, &clock);
    let verifier =
        PeerVerifier::mandatory(Arc::new(ArcSwap::from_pointee(view)), clock, &[Kind::Node]);
    let server = super::server(Credentials::new(&cloud), verifier, &[b"test"]);
    assert!(handshake(client, server).is_err());
}

#[test]
fn what_a_denied_authority_signed_is_refused_with_it() {
    let authority = TestAuthority::new("plant.example");
    let node = authority.svid("node/a");
    let peer = verify(
        node.chain(),
        &authority.trust_view(),
        &[Kind::Node],
        TEST_NOW,
    )
    .unwrap();
    let issuer = crate::bundle::spki_hash_of_certificate(&node.chain()[1]).unwrap();
    assert_eq!(peer.issuers(), [issuer]);
    let denied = Denied {
        reason: "authority_retired".into(),
        until: TEST_NOW.plus(DAY),
    };
    let view = TrustView {
        bundle: authority.bundle(),
        deny: DenyList::new(1, BTreeMap::from([(issuer, denied)])).unwrap(),
    };
    let refused = PeerRefused::Denied("authority_retired".into());
    assert_eq!(peer.still_accepted(&view, TEST_NOW), Err(refused.clone()));
    // Whatever else is put into the chain.
    let mut padded = node.chain().to_vec();
    padded.swap(1, 2);
    for chain in [node.chain().to_vec(), padded] {
        assert_eq!(
            verify(&chain, &view, &[Kind::Node], TEST_NOW),
            Err(refused.clone())
        );
    }
}

#[test]
fn a_second_handshake_is_never_resumed() {
    let authority = TestAuthority::new("plant.example");
    let clock = TurnedClock::at(TEST_NOW);
    let client = client_config(
        &authority.svid("node/a"),
        &[Kind::Cloud],
        &authority,
        &clock,
    );
    let verifier = PeerVerifier::mandatory(trust(&authority), clock, &[Kind::Node]);
    let server = super::server(
        Credentials::new(&authority.svid("cloud/main")),
        verifier,
        &[b"test"],
    );
    for _ in 0..2 {
        let (client, _) = handshake(client.clone(), server.clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
