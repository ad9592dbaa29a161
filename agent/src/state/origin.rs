//! What a node must still know when its sealed state is lost: its name, its cloud, its roots.
//!
//! `TPM2_Clear` takes the storage root away and with it the key of the sealed files. This file is not sealed, for there
//! is nothing secret in it; it is vouched for by a key that survives the clearing, so that nobody who edits a disk can
//! send a node to another cloud. There is no trust on first use on the way back either.

use std::path::{Path, PathBuf};

use edgeward_identity::bundle::BundleError;
use edgeward_identity::{DenyList, SpiffeId, TrustBundle, TrustView};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::file::{self, FileError};
use super::held::Blob;
use super::{StateError, Stored};
use crate::root::Root;

const FILE: &str = "origin";
const LABEL: &[u8] = b"edgeward origin v1\0";

/// As it lies in the file, vouched for as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    pub node: SpiffeId,
    /// Addresses of the cloud, `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// SPIFFE bundle (JSON): the roots that the cloud must prove to stand under.
    pub trust_bundle: Blob,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vouched {
    /// The origin's JSON, as it was vouched for.
    origin: Blob,
    #[serde(with = "hex::serde")]
    signature: Vec<u8>,
}

/// There is no origin that may be believed.
#[derive(Debug, thiserror::Error)]
pub enum NoOrigin {
    #[error("no origin in {0}: this machine was never enrolled with this state folder")]
    Absent(PathBuf),
    /// Says the name that the file claims, for people; nothing else is done with it.
    #[error(
        "the state folder belongs to another tpm than this machine's, or was altered; it says it is of {0}"
    )]
    Foreign(String),
    #[error("the origin is malformed")]
    Malformed,
    #[error("the origin's trust bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Origin {
    pub fn of(stored: &Stored) -> Self {
        Self {
            node: stored.node.clone(),
            addresses: stored.addresses.clone(),
            trust_bundle: stored.trust_bundle.clone(),
        }
    }

    /// The folder's origin, if this root vouched for it.
    pub fn read(folder: &Path, root: &dyn Root) -> Result<Self, NoOrigin> {
        let bytes = file::read_bounded(&folder.join(FILE))?
            .ok_or_else(|| NoOrigin::Absent(folder.to_owned()))?;
        let (vouched, origin) = parse(&bytes)?;
        match root.has_vouched(&message(&vouched.origin.0), &vouched.signature) {
            true => Ok(origin),
            false => Err(NoOrigin::Foreign(origin.node.to_string())),
        }
    }

    /// Whether bytes have a form that [`Origin::read`] would look at. For tests of the parser.
    pub fn is_well_formed(bytes: &[u8]) -> bool {
        parse(bytes).is_ok_and(|(_, origin)| origin.trust().is_ok())
    }

    /// Writes it where it says something new. A root that cannot vouch has no way back without a token: nothing is
    /// written.
    pub(super) async fn write(&self, folder: &Path, root: &dyn Root) -> Result<(), StateError> {
        if Self::read(folder, root).is_ok_and(|known| known == *self) {
            return Ok(());
        }
        let origin = serde_json::to_vec(self).map_err(StateError::Serialise)?;
        let Some(signature) = root.vouch(&message(&origin)).await? else {
            return Ok(());
        };
        let vouched = Vouched {
            origin: Blob(origin),
            signature,
        };
        let bytes = serde_json::to_vec(&vouched).map_err(StateError::Serialise)?;
        file::replace(&folder.join(FILE), &bytes)?;
        Ok(())
    }

    /// What the cloud must prove on the way back. Which keys are denied is not known any more.
    pub fn trust(&self) -> Result<TrustView, NoOrigin> {
        let domain = self.node.trust_domain().clone();
        Ok(TrustView {
            bundle: TrustBundle::from_spiffe_json(domain, &self.trust_bundle.0)?,
            deny: DenyList::default(),
        })
    }
}

/// What a file says; believed only when its signature is found good.
fn parse(bytes: &[u8]) -> Result<(Vouched, Origin), NoOrigin> {
    let vouched: Vouched = serde_json::from_slice(bytes).map_err(|_| NoOrigin::Malformed)?;
    let origin = serde_json::from_slice(&vouched.origin.0).map_err(|_| NoOrigin::Malformed)?;
    Ok((vouched, origin))
}

fn message(origin: &[u8]) -> Vec<u8> {
    [LABEL, digest(&SHA256, origin).as_ref()].concat()
}

#[cfg(test)]
mod tests {
    use edgeward_identity::testing::TestAuthority;

    use super::*;
    use crate::root::SoftwareRoot;
    use crate::root::fake::FakeRoot;

    fn origin(name: &str) -> Origin {
        let authority = TestAuthority::new("plant.example");
        Origin {
            node: authority.id(name),
            addresses: vec!["cloud:7443".to_owned()],
            trust_bundle: authority.bundle().to_spiffe_json().into(),
        }
    }

    #[tokio::test]
    async fn an_origin_file_of_another_root_or_with_one_byte_changed_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let root = FakeRoot::new(1);
        assert!(matches!(
            Origin::read(folder.path(), &root),
            Err(NoOrigin::Absent(_))
        ));
        origin("node/a").write(folder.path(), &root).await.unwrap();
        let other = Origin::read(folder.path(), &FakeRoot::new(2));
        assert!(matches!(other, Err(NoOrigin::Foreign(name)) if name.ends_with("/node/a")));
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut vouched: Vouched = serde_json::from_str(&text).unwrap();
        let altered = String::from_utf8(vouched.origin.0.clone())
            .unwrap()
            .replace("cloud:7443", "thief:7443");
        vouched.origin = Blob(altered.into_bytes());
        std::fs::write(&path, serde_json::to_vec(&vouched).unwrap()).unwrap();
        assert!(matches!(
            Origin::read(folder.path(), &root),
            Err(NoOrigin::Foreign(_))
        ));
        std::fs::write(&path, b"{}").unwrap();
        assert!(matches!(
            Origin::read(folder.path(), &root),
            Err(NoOrigin::Malformed)
        ));
    }

    #[tokio::test]
    async fn an_origin_file_is_read_back_and_written_only_where_it_says_something_new() {
        let folder = tempfile::tempdir().unwrap();
        let root = FakeRoot::new(1);
        let first = origin("node/a");
        first.write(folder.path(), &root).await.unwrap();
        assert_eq!(Origin::read(folder.path(), &root).unwrap(), first);
        let before = std::fs::metadata(folder.path().join(FILE))
            .unwrap()
            .modified()
            .unwrap();
        first.write(folder.path(), &root).await.unwrap();
        let after = std::fs::metadata(folder.path().join(FILE))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(before, after);
        let moved = Origin {
            addresses: vec!["elsewhere:7443".to_owned()],
            ..first
        };
        moved.write(folder.path(), &root).await.unwrap();
        assert_eq!(Origin::read(folder.path(), &root).unwrap(), moved);
        assert_eq!(moved.trust().unwrap().deny.number(), 0);
    }

    #[tokio::test]
    async fn a_root_that_survives_nothing_leaves_no_origin_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = SoftwareRoot::new(folder.path());
        origin("node/a").write(folder.path(), &root).await.unwrap();
        assert!(matches!(
            Origin::read(folder.path(), &root),
            Err(NoOrigin::Absent(_))
        ));
    }
}
