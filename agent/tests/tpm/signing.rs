use std::sync::Arc;

use edgeward_agent::tpm::keys::{ak_public, renew_svid};
use edgeward_agent::tpm::{Priority, SvidSlot, TpmSigner};
use edgeward_identity::Signer;
use rustls::pki_types::CertificateDer;

use super::swtpm::{Swtpm, installed};
use super::{call, pki};

fn signer(swtpm: &Swtpm) -> TpmSigner {
    let tpm = swtpm.open();
    call(&tpm, |device| renew_svid(device, SvidSlot::A)).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(TpmSigner::open(&tpm, SvidSlot::A, Priority::Session))
        .unwrap()
}

#[test]
fn the_tpm_signs_what_the_public_key_verifies() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let signer = signer(&swtpm);
    for round in 0u8..40 {
        let message = vec![round; usize::from(round) * 7];
        let signature = signer.sign(&message).unwrap();
        signer.public_key().verify(&message, &signature).unwrap();
    }
}

#[test]
fn a_key_that_is_not_there_signs_nothing() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tpm = swtpm.open();
    call(&tpm, ak_public).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    assert!(
        runtime
            .block_on(TpmSigner::open(&tpm, SvidSlot::B, Priority::Bind))
            .is_err()
    );
}

/// A TLS 1.3 client key in the TPM, checked by rustls itself on the server's side.
#[test]
fn a_tls_handshake_is_signed_in_the_tpm() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let signer: Arc<dyn Signer> = Arc::new(signer(&swtpm));
    let (mut client, mut server) = pki::pair(signer);
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&mut server, &wire);
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed_client(&mut client, &wire);
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let presented: Vec<CertificateDer<'_>> = server.peer_certificates().unwrap().to_vec();
    assert_eq!(presented.len(), 2);
}

fn feed(server: &mut rustls::ServerConnection, mut wire: &[u8]) {
    while !wire.is_empty() {
        server.read_tls(&mut wire).unwrap();
        server.process_new_packets().unwrap();
    }
}

fn feed_client(client: &mut rustls::ClientConnection, mut wire: &[u8]) {
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        client.process_new_packets().unwrap();
    }
}
