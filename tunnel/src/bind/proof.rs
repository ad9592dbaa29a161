//! Proofs of possession: of the boot key that attestation named, and of the offered WireGuard key.
//!
//! ```text
//! proven(role) = lp("edgeward-bind-proof-v1") || role u8 || T || confirm
//! signature    = ECDSA(boot key, proven(role of the signer))
//! MAC key      = HKDF-Expand(HKDF-Extract(T, X25519(own, peer's)), "edgeward-bind-possession-v1", 32)
//! possession   = HMAC(MAC key, proven(role of the sender))
//! ```
//!
//! The role is that of whoever proves (1 initiator, 2 responder), so that a proof cannot be reflected. `confirm`
//! comes from the TLS exporter and ML-KEM, so that a proof made on one connection is worth nothing on another.
//! The MAC shows that the sender holds the private half of the WireGuard key it offered: nobody can claim
//! somebody else's key.

use edgeward_identity::{PublicKey, Secret, SignError, Signer};
use subtle::ConstantTimeEq;

use super::Role;
use super::codec::Proof;
use super::schedule::{Schedule, Transcript, expand, extract, mac};
use crate::wireguard::StaticKeys;

const PROOF_LABEL: &[u8] = b"edgeward-bind-proof-v1";
const POSSESSION_LABEL: &[u8] = b"edgeward-bind-possession-v1";

/// Why a proof was not accepted, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofRefused {
    #[error("signature is not one of the attested boot key")]
    Signature,
    #[error("possession of the wireguard key is not proven")]
    Possession,
    #[error("wireguard key agrees on nothing")]
    NonContributory,
    #[error("boot key could not sign")]
    Sign(#[source] SignError),
}

/// What both proofs of one bind are about.
pub struct Proven {
    transcript: Transcript,
    confirm: Secret<[u8; 32]>,
    mac_key: Secret<[u8; 32]>,
}

impl Proven {
    /// Refuses a peer key of low order (RFC 7748, section 6.1), with which anybody could agree.
    pub fn new(
        transcript: Transcript,
        schedule: &Schedule,
        own: &StaticKeys,
        peer_key: &[u8; 32],
    ) -> Result<Self, ProofRefused> {
        let shared = own.agree(peer_key).ok_or(ProofRefused::NonContributory)?;
        let extracted = extract(transcript.as_bytes(), shared.expose());
        Ok(Self {
            transcript,
            confirm: schedule.confirm(),
            mac_key: expand(&extracted, POSSESSION_LABEL),
        })
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Our proof.
    pub fn prove(&self, role: Role, boot_key: &dyn Signer) -> Result<Proof, ProofRefused> {
        Ok(Proof {
            signature: boot_key
                .sign(&self.message(role))
                .map_err(ProofRefused::Sign)?,
            possession: self.possession(role),
        })
    }

    /// Checks the proof of a peer in `role` whose attested boot key is `boot_key`.
    pub fn check(
        &self,
        role: Role,
        boot_key: &PublicKey,
        proof: &Proof,
    ) -> Result<(), ProofRefused> {
        if !bool::from(self.possession(role).ct_eq(&proof.possession)) {
            return Err(ProofRefused::Possession);
        }
        boot_key
            .verify(&self.message(role), &proof.signature)
            .map_err(|_| ProofRefused::Signature)
    }

    fn possession(&self, role: Role) -> [u8; 32] {
        mac(&self.mac_key, &[&self.message(role)])
    }

    fn message(&self, role: Role) -> Vec<u8> {
        let length = u16::try_from(PROOF_LABEL.len()).unwrap_or(u16::MAX);
        [
            length.to_be_bytes().as_slice(),
            PROOF_LABEL,
            &[role.label()],
            self.transcript.as_bytes(),
            self.confirm.expose(),
        ]
        .concat()
    }
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proven")
            .field("transcript", &self.transcript)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::schedule::{Parties, Party};
    use edgeward_identity::{SoftwareKey, SpkiHash};

    fn keys(byte: u8) -> StaticKeys {
        StaticKeys::new(Secret::new([byte; 32]))
    }

    fn schedule(transcript: &Transcript, root: u8) -> Schedule {
        let party = Party {
            leaf_hash: [1; 32],
            spki: SpkiHash::from_bytes([2; 32]),
        };
        let parties = Parties {
            initiator: party,
            responder: party,
        };
        Schedule::start(
            Secret::new([root; 32]),
            Secret::new([4; 32]),
            transcript,
            &parties,
            [[5; 32], [6; 32]],
        )
    }

    fn proven(offer: &[u8], root: u8, own: &StaticKeys, peer: &StaticKeys) -> Proven {
        let transcript = Transcript::of(&[0; 32], offer, b"r");
        Proven::new(
            transcript,
            &schedule(&transcript, root),
            own,
            &peer.public(),
        )
        .unwrap()
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        let transcript = Transcript::of(&[0; 32], b"i", b"r");
        let schedule = schedule(&transcript, 3);
        let mut one = [0; 32];
        one[0] = 1;
        for bad in [[0; 32], one] {
            assert!(matches!(
                Proven::new(transcript, &schedule, &keys(7), &bad),
                Err(ProofRefused::NonContributory)
            ));
        }
    }

    #[test]
    fn a_proof_holds_for_its_role_keys_transcript_and_connection_only() {
        let (a, b, c) = (keys(7), keys(8), keys(9));
        let boot = SoftwareKey::generate().unwrap();
        let other_boot = SoftwareKey::generate().unwrap();
        let proof = proven(b"i", 3, &a, &b)
            .prove(Role::Initiator, &boot)
            .unwrap();
        let check =
            |seen: Proven, role, key: &SoftwareKey| seen.check(role, key.public_key(), &proof);

        assert!(check(proven(b"i", 3, &b, &a), Role::Initiator, &boot).is_ok());
        assert!(matches!(
            check(proven(b"i", 3, &b, &a), Role::Initiator, &other_boot),
            Err(ProofRefused::Signature)
        ));
        for wrong in [
            check(proven(b"i", 3, &b, &a), Role::Responder, &boot),
            check(proven(b"j", 3, &b, &a), Role::Initiator, &boot),
            check(proven(b"i", 4, &b, &a), Role::Initiator, &boot),
            check(proven(b"i", 3, &b, &c), Role::Initiator, &boot),
        ] {
            assert!(matches!(wrong, Err(ProofRefused::Possession)));
        }
    }

    #[test]
    fn a_signature_of_another_bind_is_refused_even_with_a_good_mac() {
        let (a, b) = (keys(7), keys(8));
        let boot = SoftwareKey::generate().unwrap();
        let mut proof = proven(b"i", 3, &a, &b)
            .prove(Role::Initiator, &boot)
            .unwrap();
        let old = proven(b"old", 3, &a, &b)
            .prove(Role::Initiator, &boot)
            .unwrap();
        proof.signature = old.signature;
        assert!(matches!(
            proven(b"i", 3, &b, &a).check(Role::Initiator, boot.public_key(), &proof),
            Err(ProofRefused::Signature)
        ));
    }
}
