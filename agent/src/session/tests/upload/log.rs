//! A log in memory that shows what it has, or lies.

use std::time::Duration;

use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::merkle::{consistency_proof, inclusion_proof, leaf_hash, root};
use edgeward_audit::note::NoteSigner;
use edgeward_audit::watch::LogKey;
use edgeward_audit::{BootId, Digest};
use edgeward_identity::signed::{EVERYBODY, Header};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Purpose, SignedObject};
use edgeward_wire::v1;

use super::super::World;

const ORIGIN: &str = "plant.example/audit";

pub(super) struct Log {
    signer: NoteSigner,
    pub(super) key: Vec<u8>,
    entries: Vec<Digest>,
    /// Size of the checkpoint that the node was shown last.
    pub(super) shown: u64,
}

impl Log {
    /// Its key is signed by the log key of the world's key set.
    pub(super) fn new(world: &World) -> Self {
        let signer = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
        let header = Header {
            purpose: Purpose::Log,
            trust_domain: world.authority.trust_domain().clone(),
            audience: EVERYBODY.to_owned(),
            number: 1,
            issued: TEST_NOW,
            expires: TEST_NOW.plus(Duration::from_secs(3600)),
        };
        let key = LogKey {
            origin: ORIGIN.to_owned(),
            verifier: signer.verifier().to_string(),
        };
        Self {
            key: SignedObject::sign_json(&world.control, header, &key)
                .unwrap()
                .to_bytes(),
            signer,
            entries: vec![Digest::of(&[b"somebody else's"])],
            shown: 0,
        }
    }

    pub(super) fn append(&mut self, entry: Digest) -> u64 {
        self.entries.push(entry);
        self.size() - 1
    }

    pub(super) fn change(&mut self, index: usize) {
        self.entries[index] = Digest::of(&[b"changed"]);
    }

    pub(super) fn size(&self) -> u64 {
        self.entries.len().try_into().unwrap()
    }

    fn leaves(&self) -> Vec<Digest> {
        let entries = self.entries.iter();
        entries.map(|entry| leaf_hash(entry.as_bytes())).collect()
    }

    /// That everything of `boot` below `next` is covered, shown by the entry at `index`.
    pub(super) fn covered(&self, boot: BootId, next: u64, index: u64) -> v1::AuditCovered {
        let (leaves, size) = (self.leaves(), self.size());
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root(leaves.as_slice(), size).unwrap(),
        };
        let proof = LogProof {
            index,
            hashes: inclusion_proof(leaves.as_slice(), index, size).unwrap(),
            checkpoint: checkpoint.sign(&self.signer).unwrap().to_string(),
            extra: None,
        };
        let consistency = match self.shown {
            0 => Vec::new(),
            from if from >= size => Vec::new(),
            from => consistency_proof(leaves.as_slice(), from, size).unwrap(),
        };
        v1::AuditCovered {
            boot_id: boot.as_bytes().to_vec(),
            next_seq: next,
            hash: Vec::new(),
            proof: proof.to_string().into_bytes(),
            from: self.shown,
            consistency: consistency
                .iter()
                .map(|hash| hash.as_bytes().to_vec())
                .collect(),
            log_key: self.key.clone(),
        }
    }
}
