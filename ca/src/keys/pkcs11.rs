//! Keys in a PKCS#11 token: an HSM, SoftHSM, or a TPM through tpm2-pkcs11. They are made there and never leave it.
//!
//! A library is initialised once per process and a login holds for all its sessions; a [`Token`] keeps a few sessions
//! open, and opens them anew after a token's error: cards are pulled, daemons restart.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as P11, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use edgeward_identity::keys::POINT_BYTES;
use edgeward_identity::{PublicKey, Secret, SignError, Signer};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

mod uri;

pub use uri::{BadUri, MAX_URI_BYTES, TokenUri};

/// Most sessions of one key that stay open.
const MAX_SESSIONS: usize = 4;
/// Longest PIN file, in bytes.
const MAX_PIN_BYTES: u64 = 256;
/// DER of the object identifier of P-256.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Bytes of each half of a P-256 signature.
const HALF_BYTES: usize = 32;

/// Why a token is of no use. The operator's, or the token's.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    #[error("pkcs#11 library {}: {reason}", path.display())]
    Module { path: PathBuf, reason: String },
    #[error("no token called {0} is there")]
    NoToken(String),
    #[error("pin file {}: {reason}", path.display())]
    Pin { path: PathBuf, reason: String },
    #[error("token {token} refuses the pin: {reason}")]
    Login { token: String, reason: String },
    #[error("token {token} holds no key called {label}")]
    NoKey { token: String, label: String },
    #[error("token {token} holds several keys called {label}")]
    SeveralKeys { token: String, label: String },
    #[error("key {label} of token {token} is not of p-256")]
    KeyType { token: String, label: String },
    #[error("token {token}: {reason}")]
    Token { token: String, reason: String },
}

/// A token that answered once.
pub struct Token {
    uri: TokenUri,
    module: Pkcs11,
}

/// A private key in a token.
struct TokenKey {
    token: Arc<Token>,
    label: String,
    public: PublicKey,
    sessions: Mutex<Vec<(Session, ObjectHandle)>>,
}

impl Token {
    /// Loads the library, finds the token and logs in.
    pub fn open(uri: &TokenUri) -> Result<Arc<Self>, TokenFault> {
        let token = Self {
            uri: uri.clone(),
            module: module(&uri.module)?,
        };
        drop(token.session(false)?);
        Ok(Arc::new(token))
    }

    /// The key called `name`.
    pub fn key(self: &Arc<Self>, name: &str) -> Result<Arc<dyn Signer>, TokenFault> {
        self.key_called(&self.uri.label(name))
    }

    /// The key with exactly this label: one that is not ours.
    pub fn key_called(self: &Arc<Self>, label: &str) -> Result<Arc<dyn Signer>, TokenFault> {
        let session = self.session(false)?;
        let private = self.private(&session, label)?;
        let public = self.public(&session, label)?;
        Ok(Arc::new(TokenKey {
            token: self.clone(),
            label: label.to_owned(),
            public,
            sessions: Mutex::new(vec![(session, private)]),
        }))
    }

    /// Makes a key that cannot be read, called `name`. One that is there already is taken: people make keys in
    /// ceremonies, and a first start may have been stopped.
    pub fn make(self: &Arc<Self>, name: &str) -> Result<Arc<dyn Signer>, TokenFault> {
        match self.key(name) {
            Err(TokenFault::NoKey { .. }) => {}
            other => return other,
        }
        let label = self.uri.label(name);
        let session = self.session(true)?;
        let mut id = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id)
            .map_err(|_| self.fault("the random source failed"))?;
        let shared = |private| {
            vec![
                Attribute::Token(true),
                Attribute::Private(private),
                Attribute::Label(label.clone().into_bytes()),
                Attribute::Id(id.to_vec()),
            ]
        };
        let mut public = shared(false);
        public.extend([
            Attribute::EcParams(P256_OID.to_vec()),
            Attribute::Verify(true),
        ]);
        let mut private = shared(true);
        private.extend([
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ]);
        session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map_err(|error| self.fault(error))?;
        drop(session);
        self.key(name)
    }

    fn session(&self, writes: bool) -> Result<Session, TokenFault> {
        let slot = self.slot()?;
        let session = match writes {
            true => self.module.open_rw_session(slot),
            false => self.module.open_ro_session(slot),
        }
        .map_err(|error| self.fault(error))?;
        let pin = read_pin(&self.uri.pin)?;
        let pin = AuthPin::new(pin.expose().clone().into());
        match session.login(UserType::User, Some(&pin)) {
            // One login is for all sessions of the process.
            Ok(()) | Err(P11::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => Err(TokenFault::Login {
                token: self.uri.token.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn slot(&self) -> Result<Slot, TokenFault> {
        let slots = self
            .module
            .get_slots_with_token()
            .map_err(|error| self.fault(error))?;
        slots
            .into_iter()
            .find(|slot| {
                self.module.get_token_info(*slot).is_ok_and(|info| {
                    let serial = self.uri.serial.as_deref();
                    info.label().trim_end() == self.uri.token
                        && serial.is_none_or(|serial| info.serial_number().trim_end() == serial)
                })
            })
            .ok_or_else(|| TokenFault::NoToken(self.uri.token.clone()))
    }

    fn private(&self, session: &Session, label: &str) -> Result<ObjectHandle, TokenFault> {
        self.object(session, label, ObjectClass::PRIVATE_KEY)
    }

    fn public(&self, session: &Session, label: &str) -> Result<PublicKey, TokenFault> {
        let handle = self.object(session, label, ObjectClass::PUBLIC_KEY)?;
        let wrong = || TokenFault::KeyType {
            token: self.uri.token.clone(),
            label: label.to_owned(),
        };
        let attributes = session
            .get_attributes(handle, &[AttributeType::EcPoint])
            .map_err(|error| self.fault(error))?;
        let point = attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                Attribute::EcPoint(point) => Some(point),
                _ => None,
            });
        let point = point.ok_or_else(wrong)?;
        // An OCTET STRING by the standard; some tokens give the bare point.
        let bare = match point.split_at_checked(2) {
            Some(([0x04, 0x41], bare)) if bare.len() == POINT_BYTES => bare,
            _ => point.as_slice(),
        };
        PublicKey::from_point(bare).map_err(|_| wrong())
    }

    fn object(
        &self,
        session: &Session,
        label: &str,
        class: ObjectClass,
    ) -> Result<ObjectHandle, TokenFault> {
        let found = session
            .find_objects(&[
                Attribute::Class(class),
                Attribute::KeyType(KeyType::EC),
                Attribute::Label(label.as_bytes().to_vec()),
            ])
            .map_err(|error| self.fault(error))?;
        let (token, label) = (self.uri.token.clone(), label.to_owned());
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(TokenFault::NoKey { token, label }),
            _ => Err(TokenFault::SeveralKeys { token, label }),
        }
    }

    fn fault(&self, reason: impl fmt::Display) -> TokenFault {
        TokenFault::Token {
            token: self.uri.token.clone(),
            reason: reason.to_string(),
        }
    }
}

impl TokenKey {
    fn sign_once(&self, hash: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let kept = self.sessions.lock().pop();
        let (session, key) = match kept {
            Some(kept) => kept,
            None => {
                let session = self.token.session(false)?;
                let key = self.token.private(&session, &self.label)?;
                (session, key)
            }
        };
        // Tokens know this mechanism, which takes the hash; few know the one that hashes.
        let raw = session
            .sign(&Mechanism::Ecdsa, key, hash)
            .map_err(|error| self.token.fault(error))?;
        let mut sessions = self.sessions.lock();
        if sessions.len() < MAX_SESSIONS {
            sessions.push((session, key));
        }
        Ok(raw)
    }
}

impl Signer for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let hash = digest(&SHA256, message);
        let failed = |fault: TokenFault| SignError::KeyStore(fault.to_string());
        let raw = match self.sign_once(hash.as_ref()) {
            Ok(raw) => raw,
            Err(fault) => {
                tracing::warn!(%fault, "token failed: once more with a new session");
                metrics::counter!("edgeward_token_failures_total").increment(1);
                self.sessions.lock().clear();
                self.sign_once(hash.as_ref()).map_err(failed)?
            }
        };
        let der =
            der_of(&raw).ok_or_else(|| SignError::KeyStore("not a p-256 signature".to_owned()))?;
        // A token that signs with another key than it shows must not be believed.
        self.public
            .verify(message, &der)
            .map_err(|_| SignError::KeyStore(format!("{} is another key", self.label)))?;
        Ok(der)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("token", &self.uri.token)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("token", &self.token)
            .field("label", &self.label)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The library, initialised once: PKCS#11 allows no second time in one process.
fn module(path: &Path) -> Result<Pkcs11, TokenFault> {
    static MODULES: OnceLock<Mutex<BTreeMap<PathBuf, Pkcs11>>> = OnceLock::new();
    let mut modules = MODULES.get_or_init(Mutex::default).lock();
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let fault = |reason: P11| TokenFault::Module {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let module = Pkcs11::new(path).map_err(fault)?;
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    match module.initialize(arguments) {
        Ok(()) | Err(P11::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(fault(error)),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

fn read_pin(path: &Path) -> Result<Secret<String>, TokenFault> {
    let fault = |reason: String| TokenFault::Pin {
        path: path.to_owned(),
        reason,
    };
    let about = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(fault(format!(
            "readable by others than its owner: mode {mode:o}"
        )));
    }
    if about.len() > MAX_PIN_BYTES {
        return Err(fault(format!("larger than {MAX_PIN_BYTES} bytes")));
    }
    let text =
        Secret::new(std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?);
    let pin = text.expose().trim_end_matches(['\r', '\n']);
    match pin.is_empty() {
        true => Err(fault("empty".to_owned())),
        false => Ok(Secret::new(pin.to_owned())),
    }
}

/// `r || s` as DER: two integers, shortest form, positive.
fn der_of(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 2 * HALF_BYTES {
        return None;
    }
    let (r, s) = raw.split_at(HALF_BYTES);
    let body = [integer(r)?, integer(s)?].concat();
    let length = u8::try_from(body.len()).ok()?;
    Some([&[0x30, length], body.as_slice()].concat())
}

fn integer(half: &[u8]) -> Option<Vec<u8>> {
    let zeros = half.iter().take_while(|byte| **byte == 0).count();
    let (_, digits) = half.split_at_checked(zeros)?;
    let sign: &[u8] = match digits.first()? {
        0x80.. => &[0],
        _ => &[],
    };
    let length = u8::try_from(sign.len().checked_add(digits.len())?).ok()?;
    Some([&[0x02, length], sign, digits].concat())
}

#[cfg(test)]
mod tests;
