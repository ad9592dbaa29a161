//! What the first start makes: the trust domain and its first operator. Later starts find both, and the policy in force.

use std::path::{Path, PathBuf};

use anyhow::Context;
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::bundle::spki_hash_of_certificate;
use edgeward_identity::{Kind, Signer, SoftwareKey, SpiffeId, SvidLeaf, Timestamp};
use edgeward_policy::CompiledPolicy;

use crate::access::Role;
use crate::audit::AuditLog;
use crate::config::Config;
use crate::issue::{Issued, MAX_OPERATOR_LIFETIME};
use crate::keys::{CloudKeys, KeysFault, files};
use crate::rollout::Rollout;
use crate::store::Store;
use crate::store::operators::Operator;

/// Name of the first operator.
pub const ADMIN: &str = "admin";

/// The first operator as its certificate says.
pub(super) struct Admin {
    issued: Issued,
}

/// Opens the trust domain, or makes it together with the first operator's key and certificate.
pub(super) fn keys(config: &Config, now: Timestamp) -> anyhow::Result<(CloudKeys, Option<Admin>)> {
    let keys = match CloudKeys::exist(&config.data)? {
        true => CloudKeys::open_in(
            &config.data,
            &config.trust_domain,
            config.keys.clone(),
            now,
        ),
        false => {
            tracing::info!(trust_domain = %config.trust_domain, "first start: making the trust domain");
            let stores = config.keys.clone();
            CloudKeys::create_in(&config.data, &config.trust_domain, stores, now, |keys| {
                make_admin(config, keys, now)
            })
        }
    }
    .with_context(|| format!("keys in {}", config.data.display()))?;
    let admin = read_admin(&config.data)?;
    Ok((keys, admin))
}

/// The first operator's context: `context.toml`, `admin.key`, `admin.crt`, `bundle.json`. To be taken to the operator's
/// machine (`edgeward context add`).
pub fn admin_folder(data: &Path) -> PathBuf {
    data.join(ADMIN)
}

/// Enters the first operator where there is none yet, with the record of the trust domain.
pub(super) async fn operators(
    store: &Store,
    audit: &AuditLog,
    admin: Option<&Admin>,
    now: Timestamp,
) -> anyhow::Result<()> {
    let Some(admin) = admin else {
        return Ok(());
    };
    if !store.operators().await?.is_empty() {
        return Ok(());
    }
    let operator = Operator {
        name: ADMIN.to_owned(),
        role: Role::Admin,
        key: admin.issued.leaf.key,
        expires: admin.issued.leaf.not_after,
        added: now,
        added_by: Actor::Cloud.to_string(),
        revoked: None,
        revoked_by: None,
    };
    let mut tx = store.begin("operator.first").await?;
    tx.add_operator(&operator).await?;
    let subject = SpiffeId::new(audit.keeper().trust_domain(), Kind::Operator, ADMIN)?;
    let event = |kind| Event::new(now, Actor::Cloud, kind).subject(subject.clone());
    audit
        .record_in(&mut tx, event(EventKind::CloudInitialised))
        .await?;
    let added = admin
        .issued
        .recorded_in(event(EventKind::OperatorAdded).allowed());
    audit.record_in(&mut tx, added).await?;
    tx.note_issued(&admin.issued, now).await?;
    tx.commit().await?;
    Ok(())
}

/// The policy in force. One that this version no longer compiles stops the start: nothing would be enforced as its
/// owner meant it.
pub(super) async fn policy(store: &Store) -> anyhow::Result<Option<CompiledPolicy>> {
    compiled(store, store.policy_in_force().await?).await
}

/// The policy that was being tried when the cloud ended, and how far that was.
pub(super) async fn staged(store: &Store) -> anyhow::Result<Option<(Rollout, CompiledPolicy)>> {
    let Some(rollout) = store.open_rollout().await? else {
        return Ok(None);
    };
    let candidate = compiled(store, rollout.number).await?;
    Ok(candidate.map(|candidate| (rollout, candidate)))
}

async fn compiled(store: &Store, number: u64) -> anyhow::Result<Option<CompiledPolicy>> {
    let Some((_, files)) = store.policy(number).await? else {
        return Ok(None);
    };
    let compiled = CompiledPolicy::compile_stored(&files, number).map_err(|report| {
        let first = report.diagnostics.first().map(ToString::to_string);
        anyhow::anyhow!(
            "policy {number} no longer compiles: {}",
            first.unwrap_or_default()
        )
    })?;
    Ok(Some(compiled))
}

fn make_admin(config: &Config, keys: &CloudKeys, now: Timestamp) -> Result<(), KeysFault> {
    let folder = admin_folder(&config.data);
    files::private_directory(&folder)?;
    let key = SoftwareKey::generate()?;
    let id = SpiffeId::new(keys.trust_domain(), Kind::Operator, ADMIN)
        .expect("a short name of plain letters");
    let issued = keys
        .issuer()
        .issue_operator(&id, key.public_key(), MAX_OPERATOR_LIFETIME, now)
        .map_err(|_| KeysFault::Mismatch("admin.crt"))?;
    files::write_key(&folder.join("admin.key"), &key)?;
    files::write_certificates(&folder.join("admin.crt"), &issued.chain)?;
    files::write_public(&folder.join("bundle.json"), &keys.bundle().to_spiffe_json())?;
    let context = format!(
        "addresses = {:?}\ntrust_domain = {:?}\nbundle = \"bundle.json\"\ncertificate = \"admin.crt\"\nkey = \"admin.key\"\n",
        config.advertise,
        keys.trust_domain().as_str(),
    );
    files::write_public(&folder.join("context.toml"), context.as_bytes())?;
    Ok(())
}

/// `None` once the operator has taken the files away.
fn read_admin(data: &Path) -> anyhow::Result<Option<Admin>> {
    let path = admin_folder(data).join("admin.crt");
    if !files::exists(&path)? {
        return Ok(None);
    }
    let chain = files::read_certificates(&path)?;
    let [leaf, issuing, ..] = chain.as_slice() else {
        anyhow::bail!("admin.crt holds no chain of certificates");
    };
    let leaf = SvidLeaf::parse(leaf).context("admin.crt")?;
    let issuer = spki_hash_of_certificate(issuing).context("admin.crt")?;
    let issued = Issued {
        leaf,
        issuer,
        chain,
    };
    Ok(Some(Admin { issued }))
}
