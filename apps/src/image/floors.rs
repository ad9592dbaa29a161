//! The highest versions that were accepted. They belong into the agent's sealed state under the TPM's epoch: a disk
//! that is wiped or put back then lowers nothing unnoticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageRefused;
use super::authority::Authority;
use crate::digest::Digest;

/// What no later metadata may go below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFloors {
    /// Version of the newest root.
    pub root: u64,
    /// By role: `timestamp`, `snapshot`, `targets`, publishers.
    pub roles: BTreeMap<String, RoleFloor>,
}

/// A version, and under which keys it was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleFloor {
    pub version: u64,
    /// Digest over the keys and the threshold. Whoever stole keys may have signed the highest version there is; new keys
    /// from above start anew, or no right release could ever follow (TUF 1.0.33, 5.3.11).
    pub authority: Digest,
}

impl ImageFloors {
    /// Floors that somebody else states: the director to a node that lost its state. The higher ones hold.
    #[must_use]
    pub fn joined(mut self, stated: &Self) -> Self {
        self.root = self.root.max(stated.root);
        for (role, floor) in &stated.roles {
            match self.roles.get_mut(role) {
                Some(own) if own.authority == floor.authority => {
                    own.version = own.version.max(floor.version)
                }
                Some(_) => {}
                None => {
                    self.roles.insert(role.clone(), floor.clone());
                }
            }
        }
        self
    }

    pub(super) fn check(
        &self,
        role: &str,
        version: u64,
        authority: &Authority,
    ) -> Result<(), ImageRefused> {
        match self.roles.get(role) {
            Some(floor)
                if version < floor.version && floor.authority == authority.fingerprint() =>
            {
                Err(ImageRefused::Rollback {
                    role: role.to_owned(),
                    version,
                    highest: floor.version,
                })
            }
            _ => Ok(()),
        }
    }

    /// `version` was verified.
    pub(super) fn raise(
        &mut self,
        role: &str,
        version: u64,
        authority: &Authority,
    ) -> Result<(), ImageRefused> {
        self.check(role, version, authority)?;
        let floor = RoleFloor {
            version,
            authority: authority.fingerprint(),
        };
        self.roles.insert(role.to_owned(), floor);
        Ok(())
    }
}
