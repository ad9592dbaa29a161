//! The Ed25519 keys. One signs checkpoints of the audit log, since readers of tlog-tiles verify nothing else. It is made
//! at the first start that lacks it. The log key of the key set names it in a statement ([`LogKey`]), so that whoever
//! knows the root knows it, and an HSM that has no Ed25519 still stands above it. The other, made at the first start that
//! names logs of others, cosigns these: no key may do both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_audit::cosignature::{Cosigner, WitnessKey};
use edgeward_audit::note::{NoteMalformed, NoteSigner, NoteVerifier};
use edgeward_audit::watch::LogKey;
use edgeward_identity::signed::EVERYBODY;
use edgeward_identity::{Purpose, Secret, SignError, Timestamp, TrustDomain};
use parking_lot::Mutex;

use super::{CloudKeys, FileFault, KeysFault, Label, files};

const CHECKPOINT: &str = "checkpoint.key";
const WITNESS: &str = "witness.key";
const WANTED: &str = "an ed25519 private key in pkcs#8 pem";
/// How long the statement that names the checkpoints' key holds.
const STATEMENT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// How long one statement is given to everybody who asks.
const STATED_AGAIN: Duration = Duration::from_secs(300);

/// The opened key.
#[derive(Debug)]
pub(super) struct NoteKeys {
    checkpoint: NoteSigner,
    /// The last statement that names it.
    stated: Mutex<Option<(Timestamp, Vec<u8>)>>,
}

/// The name of the trust domain's log.
pub fn log_origin(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}/audit")
}

/// The name under which this trust domain witnesses the logs of others.
pub fn witness_name(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}/witness")
}

impl NoteKeys {
    pub(super) fn open(folder: &Path, trust_domain: &TrustDomain) -> Result<Self, KeysFault> {
        let path = folder.join(CHECKPOINT);
        let pkcs8 = read_or_make(&path)?;
        let checkpoint = NoteSigner::new(&log_origin(trust_domain), &pkcs8)
            .map_err(|_| KeysFault::File(not_a_key(&path)))?;
        Ok(Self {
            checkpoint,
            stated: Mutex::default(),
        })
    }
}

impl CloudKeys {
    /// The key that signs checkpoints of the audit log.
    pub fn checkpoint_signer(&self) -> &NoteSigner {
        &self.notes.checkpoint
    }

    /// Its public half.
    pub fn checkpoint_verifier(&self) -> &NoteVerifier {
        self.notes.checkpoint.verifier()
    }

    /// The key that cosigns the logs of others; none if none was made yet.
    pub fn cosigner(&self) -> Result<Option<Cosigner>, KeysFault> {
        let path = self.folder.join(WITNESS);
        match files::exists(&path)? {
            true => self.cosigner_of(&read_pkcs8(&path)?).map(Some),
            false => Ok(None),
        }
    }

    /// A new one. It is nobody's before its file is written: [`CloudKeys::keep_cosigner`].
    pub fn draw_cosigner(&self) -> Result<(Cosigner, Secret<Vec<u8>>), KeysFault> {
        let pkcs8 = generate()?;
        Ok((self.cosigner_of(&pkcs8)?, pkcs8))
    }

    /// Writes the file of a drawn key: on disk when this returns.
    pub fn keep_cosigner(&self, pkcs8: &Secret<Vec<u8>>) -> Result<(), KeysFault> {
        Ok(files::write_pkcs8(&self.folder.join(WITNESS), pkcs8)?)
    }

    /// Where it is remembered, outside of the database, what this key cosigned.
    pub fn witnessed_file(&self, key: &WitnessKey) -> PathBuf {
        let id = hex::encode(key.key_id());
        self.folder.join(format!("witnessed-{id}.json"))
    }

    fn cosigner_of(&self, pkcs8: &Secret<Vec<u8>>) -> Result<Cosigner, KeysFault> {
        Cosigner::new(&witness_name(&self.trust_domain), pkcs8)
            .map_err(|_| KeysFault::File(not_a_key(&self.folder.join(WITNESS))))
    }

    /// Names the checkpoints' key, signed by the log key that the key set names. Every session is given one: an HSM is
    /// asked for it rarely.
    pub fn log_key_statement(&self, now: Timestamp) -> Result<Vec<u8>, SignError> {
        let mut stated = self.notes.stated.lock();
        if let Some((since, statement)) = stated.as_ref()
            && *since <= now
            && now.since(*since) < STATED_AGAIN
        {
            return Ok(statement.clone());
        }
        let statement = self.state_log_key(now)?;
        *stated = Some((now, statement.clone()));
        Ok(statement)
    }

    fn state_log_key(&self, now: Timestamp) -> Result<Vec<u8>, SignError> {
        let label = Label {
            purpose: Purpose::Log,
            audience: EVERYBODY.to_owned(),
            number: self.rising_number(now),
            issued: now,
            lifetime: STATEMENT_LIFETIME,
        };
        let statement = LogKey {
            origin: log_origin(&self.trust_domain),
            verifier: self.checkpoint_verifier().to_string(),
        };
        self.sign(label, &statement)
    }
}

fn read_or_make(path: &Path) -> Result<Secret<Vec<u8>>, KeysFault> {
    if files::exists(path)? {
        return read_pkcs8(path);
    }
    let made = generate()?;
    files::write_pkcs8(path, &made)?;
    Ok(made)
}

fn read_pkcs8(path: &Path) -> Result<Secret<Vec<u8>>, KeysFault> {
    Ok(files::read_pkcs8(path, WANTED)?)
}

fn generate() -> Result<Secret<Vec<u8>>, KeysFault> {
    let made = NoteSigner::generate();
    Ok(made.map_err(|error: NoteMalformed| SignError::KeyStore(error.to_string()))?)
}

fn not_a_key(path: &Path) -> FileFault {
    FileFault::Content {
        path: path.to_owned(),
        wanted: WANTED,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use edgeward_audit::checkpoint::Checkpoint;
    use edgeward_identity::SignedObject;
    use edgeward_identity::signed::Expect;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn made() -> (tempfile::TempDir, TrustDomain, CloudKeys) {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("plant.example").unwrap();
        let keys = CloudKeys::create(folder.path(), &domain, NOW, |_| Ok(())).unwrap();
        (folder, domain, keys)
    }

    #[test]
    fn a_checkpoint_key_that_others_may_read_or_that_is_none_is_refused() {
        let (folder, domain, _) = made();
        let path = folder.path().join("keys/checkpoint.key");
        let own = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            CloudKeys::open(folder.path(), &domain, NOW),
            Err(KeysFault::File(FileFault::Exposed { .. }))
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in [
            b"".to_vec(),
            fs::read(folder.path().join("keys/log.key")).unwrap(),
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(
                CloudKeys::open(folder.path(), &domain, NOW),
                Err(KeysFault::File(FileFault::Content { .. }))
            ));
        }
        fs::write(&path, own).unwrap();
        CloudKeys::open(folder.path(), &domain, NOW).unwrap();
    }

    #[test]
    fn the_checkpoint_key_stays_and_the_key_set_leads_to_it() {
        let (folder, domain, keys) = made();
        let again = CloudKeys::open(folder.path(), &domain, NOW).unwrap();
        assert_eq!(again.checkpoint_verifier(), keys.checkpoint_verifier());
        let object = SignedObject::parse(&again.log_key_statement(NOW).unwrap()).unwrap();
        let expect = Expect {
            purpose: Purpose::Log,
            trust_domain: &domain,
            audience: EVERYBODY,
            least_number: 1,
            now: NOW,
        };
        let stated: LogKey = object
            .open_json(&again.key_set(NOW).unwrap(), &expect)
            .unwrap();
        assert_eq!(stated.origin, "plant.example/audit");
        let verifier = NoteVerifier::parse(&stated.verifier).unwrap();
        let checkpoint = Checkpoint {
            origin: stated.origin.clone(),
            size: 7,
            root: edgeward_audit::merkle::EMPTY_ROOT,
        };
        let note = checkpoint
            .sign(again.checkpoint_signer())
            .unwrap()
            .to_string();
        assert_eq!(
            Checkpoint::open(note.as_bytes(), &stated.origin, &verifier),
            Ok(checkpoint)
        );
        let stranger = NoteSigner::new("plant.example/audit", &NoteSigner::generate().unwrap());
        let stranger = stranger.unwrap();
        assert!(Checkpoint::open(note.as_bytes(), &stated.origin, stranger.verifier()).is_err());
    }

    #[test]
    fn the_witness_key_is_made_when_it_is_kept_and_signs_no_checkpoints() {
        let (folder, domain, keys) = made();
        let path = folder.path().join("keys/witness.key");
        assert!(keys.cosigner().unwrap().is_none());
        let (drawn, pkcs8) = keys.draw_cosigner().unwrap();
        assert!(!path.exists());
        keys.keep_cosigner(&pkcs8).unwrap();
        let key = keys.cosigner().unwrap().unwrap().key().clone();
        assert_eq!(key, *drawn.key());
        assert_eq!(key.name(), "plant.example/witness");
        assert_ne!(key.key(), keys.checkpoint_verifier().key());
        let again = CloudKeys::open(folder.path(), &domain, NOW).unwrap();
        assert_eq!(*again.cosigner().unwrap().unwrap().key(), key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            again.cosigner(),
            Err(KeysFault::File(FileFault::Exposed { .. }))
        ));
    }

    #[test]
    fn a_trust_domain_of_an_earlier_version_gets_the_keys_without_its_root() {
        let (folder, domain, _) = made();
        for name in ["root.key", "checkpoint.key"] {
            fs::remove_file(folder.path().join("keys").join(name)).unwrap();
        }
        let keys = CloudKeys::open(folder.path(), &domain, NOW).unwrap();
        assert!(!keys.root_is_here());
        assert!(keys.log_key_statement(NOW).is_ok());
    }
}
