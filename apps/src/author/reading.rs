//! What metadata says that somebody is asked to sign, or to build upon. Nothing here is verified: [`super::tally`]
//! counts signatures, and a node's word is [`crate::image`]'s.

use std::collections::BTreeMap;

use edgeward_identity::Timestamp;
use serde_json::Value;

use super::{Envelope, RoleKey, Signers, Unauthored};
use crate::digest::Digest;
use crate::image::KeyText;
use crate::name::PublisherName;

/// Roles that a root names.
pub const TOP_ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// Of which kind metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Root,
    /// The image role, or a publisher's.
    Targets,
    Snapshot,
    Timestamp,
}

impl Envelope {
    pub fn kind(&self) -> Result<Kind, Unauthored> {
        match self.text("_type")? {
            "root" => Ok(Kind::Root),
            "targets" => Ok(Kind::Targets),
            "snapshot" => Ok(Kind::Snapshot),
            "timestamp" => Ok(Kind::Timestamp),
            _ => Err(Unauthored::Shape),
        }
    }

    pub fn version(&self) -> Result<u64, Unauthored> {
        let version = self.signed.get("version").and_then(Value::as_u64);
        version.ok_or(Unauthored::Shape)
    }

    pub fn expires(&self) -> Result<Timestamp, Unauthored> {
        let time: jiff::Timestamp = self
            .text("expires")?
            .parse()
            .map_err(|_| Unauthored::Time)?;
        u64::try_from(time.as_second())
            .map(Timestamp::from_secs)
            .map_err(|_| Unauthored::Time)
    }

    /// Who signs the roles that a root names.
    pub fn top_roles(&self) -> Result<BTreeMap<&'static str, Signers>, Unauthored> {
        let mut found = BTreeMap::new();
        for name in TOP_ROLES {
            let role = self.signed.get("roles").and_then(|roles| roles.get(name));
            let role = role.ok_or(Unauthored::Shape)?;
            found.insert(name, signers(role, self.signed.get("keys"))?);
        }
        Ok(found)
    }

    /// The publishers of an image role.
    pub fn publishers(&self) -> Result<BTreeMap<PublisherName, Signers>, Unauthored> {
        let Some(delegations) = self.signed.get("delegations") else {
            return Ok(BTreeMap::new());
        };
        let roles = delegations.get("roles").and_then(Value::as_array);
        let mut found = BTreeMap::new();
        for role in roles.ok_or(Unauthored::Shape)? {
            let name = role.get("name").and_then(Value::as_str);
            let name = name.and_then(|name| name.parse().ok());
            let name: PublisherName = name.ok_or(Unauthored::Shape)?;
            let own = signers(role, delegations.get("keys"))?;
            if found.insert(name, own).is_some() {
                return Err(Unauthored::Shape);
            }
        }
        Ok(found)
    }

    /// The manifests that a publisher signs for, by their target paths.
    pub fn manifests(&self) -> Result<BTreeMap<String, (u64, Digest)>, Unauthored> {
        let targets = self.signed.get("targets").and_then(Value::as_object);
        let mut found = BTreeMap::new();
        for (path, target) in targets.ok_or(Unauthored::Shape)? {
            let length = target.get("length").and_then(Value::as_u64);
            let digest = target
                .get("hashes")
                .and_then(|hashes| hashes.get("sha256"))
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok());
            let pin = length.zip(digest).ok_or(Unauthored::Shape)?;
            found.insert(path.clone(), pin);
        }
        Ok(found)
    }

    fn text(&self, key: &str) -> Result<&str, Unauthored> {
        self.signed
            .get(key)
            .and_then(Value::as_str)
            .ok_or(Unauthored::Shape)
    }
}

fn signers(role: &Value, keys: Option<&Value>) -> Result<Signers, Unauthored> {
    let ids = role.get("keyids").and_then(Value::as_array);
    let threshold = role.get("threshold").and_then(Value::as_u64);
    let threshold = threshold.and_then(|threshold| usize::try_from(threshold).ok());
    let (ids, threshold) = ids.zip(threshold).ok_or(Unauthored::Shape)?;
    let key = |id: &Value| {
        let id = id.as_str().ok_or(Unauthored::Shape)?;
        let value = keys
            .and_then(|keys| keys.get(id))
            .ok_or(Unauthored::Shape)?;
        let public = value
            .get("keyval")
            .and_then(|value| value.get("public"))
            .and_then(Value::as_str);
        let text = public.and_then(KeyText::of_metadata);
        Ok(RoleKey {
            id: id.to_owned(),
            value: value.clone(),
            text: text.ok_or_else(|| Unauthored::Key(id.to_owned()))?,
        })
    };
    Ok(Signers {
        keys: ids.iter().map(key).collect::<Result<_, Unauthored>>()?,
        threshold,
    })
}
