//! Where each key is kept: in a file, or in a PKCS#11 token.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use edgeward_identity::{Signer, SoftwareKey};
use parking_lot::Mutex;
use serde::Deserialize;

use super::KeysFault;
use super::files;
use super::ledger::Place;
use super::pkcs11::{BadUri, Token, TokenUri};

/// Whose key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Root,
    Issuing,
    Results,
    Control,
    Log,
    Jwt,
    /// Snapshot and timestamp of the image repository.
    AppsOnline,
    /// What each node should have.
    Director,
}

/// `[keys.<owner>]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyStores {
    pub root: Kept,
    pub issuing: Kept,
    pub results: Kept,
    pub control: Kept,
    pub log: Kept,
    pub jwt: Kept,
    pub apps_online: Kept,
    pub director: Kept,
}

/// One table of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kept {
    pub store: Store,
}

/// `"file"`, or an RFC 7512 URI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Store {
    #[default]
    File,
    Token(Box<TokenUri>),
}

/// The stores in use, with the tokens that were opened.
#[derive(Default)]
pub(crate) struct Stores {
    choice: KeyStores,
    tokens: Mutex<BTreeMap<TokenUri, Arc<Token>>>,
}

impl FromStr for Store {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        match text {
            "file" => Ok(Self::File),
            uri => Ok(Self::Token(Box::new(uri.parse()?))),
        }
    }
}

impl TryFrom<String> for Store {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map_err(|error: BadUri| format!("neither \"file\" nor a pkcs#11 uri: {error}"))
    }
}

impl Owner {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Results => "results",
            Self::Control => "control",
            Self::Log => "log",
            Self::Jwt => "jwt",
            Self::AppsOnline => "apps-online",
            Self::Director => "director",
        }
    }
}

impl Stores {
    pub(crate) fn new(choice: KeyStores) -> Self {
        Self {
            choice,
            tokens: Mutex::default(),
        }
    }

    /// The key called `name`, where it is. `None`: its file is not there.
    pub(crate) fn open(
        &self,
        owner: Owner,
        folder: &Path,
        name: &str,
        place: Place,
    ) -> Result<Option<Arc<dyn Signer>>, KeysFault> {
        match place {
            Place::File => {
                let path = folder.join(format!("{name}.key"));
                match files::exists(&path)? {
                    true => Ok(Some(Arc::new(files::read_key(&path)?))),
                    false => Ok(None),
                }
            }
            Place::Pkcs11 => match self.store(owner) {
                Store::Token(uri) => Ok(Some(self.token(uri)?.key(name)?)),
                Store::File => Err(KeysFault::Elsewhere {
                    key: name.to_owned(),
                    owner: owner.as_str(),
                }),
            },
        }
    }

    /// A new key called `name`, where the configuration wants it.
    pub(crate) fn make(
        &self,
        owner: Owner,
        folder: &Path,
        name: &str,
    ) -> Result<(Arc<dyn Signer>, Place), KeysFault> {
        match self.store(owner) {
            Store::File => {
                let key = SoftwareKey::generate()?;
                files::write_key(&folder.join(format!("{name}.key")), &key)?;
                Ok((Arc::new(key), Place::File))
            }
            Store::Token(uri) => Ok((self.token(uri)?.make(name)?, Place::Pkcs11)),
        }
    }

    /// A key that is made once and never rotated by itself.
    pub(crate) fn fixed(&self, owner: Owner, folder: &Path) -> Result<Arc<dyn Signer>, KeysFault> {
        self.named(owner, folder, owner.as_str())
    }

    /// As [`Stores::fixed`], of one that followed another under a name of its own.
    pub(crate) fn named(
        &self,
        owner: Owner,
        folder: &Path,
        name: &str,
    ) -> Result<Arc<dyn Signer>, KeysFault> {
        let in_file = files::exists(&folder.join(format!("{name}.key")))?;
        let place = match (self.store(owner), in_file) {
            (Store::Token(_), true) => return Err(KeysFault::InFile(owner.as_str())),
            (Store::Token(_), false) => Place::Pkcs11,
            (Store::File, _) => Place::File,
        };
        self.open(owner, folder, name, place)?
            .ok_or(KeysFault::Missing(owner.as_str()))
    }

    fn store(&self, owner: Owner) -> &Store {
        let kept = match owner {
            Owner::Root => &self.choice.root,
            Owner::Issuing => &self.choice.issuing,
            Owner::Results => &self.choice.results,
            Owner::Control => &self.choice.control,
            Owner::Log => &self.choice.log,
            Owner::Jwt => &self.choice.jwt,
            Owner::AppsOnline => &self.choice.apps_online,
            Owner::Director => &self.choice.director,
        };
        &kept.store
    }

    fn token(&self, uri: &TokenUri) -> Result<Arc<Token>, KeysFault> {
        let mut tokens = self.tokens.lock();
        if let Some(token) = tokens.get(uri) {
            return Ok(token.clone());
        }
        let token = Token::open(uri)?;
        tokens.insert(uri.clone(), token.clone());
        Ok(token)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}
