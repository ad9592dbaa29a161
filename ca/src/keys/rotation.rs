//! Turning the authorities over. Each step writes what it needs, then the ledger: a stop in between leaves the step
//! before, and the same command goes on from there.
//!
//! Root keys are needed where a root signs: to prepare and publish (the one that is active), to retire a root (the one
//! that stays). Activation needs none, so that it can happen by itself.

use std::sync::Arc;

use edgeward_identity::{Signer, SpkiHash, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use super::certificates::{self, CertificateFault};
use super::keyring::{self, Ring};
use super::ledger::{Authority, Ledger, NotNow, Role, State};
use super::stores::Owner;
use super::{CloudKeys, KeysFault, files, sign_key_set};

impl CloudKeys {
    /// Makes keys and certificates of a new authority; a root comes with an issuing authority of its own.
    pub fn prepare(&self, role: Role, now: Timestamp) -> Result<SpkiHash, KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        ring.ledger.may_prepare(role)?;
        let root = active(&ring.ledger, Role::Root)?;
        let signer = self.root_signer(root, "to sign the new certificate")?;
        let new = match role {
            Role::Issuing => vec![self.new_issuing(root, signer.as_ref(), now)?],
            Role::Root => self.new_root(&ring, root, signer.as_ref(), now)?,
        };
        let key = new
            .iter()
            .find(|authority| authority.role == role)
            .map(|authority| authority.key)
            .ok_or(KeysFault::Ledger)?;
        self.commit(ring.ledger.clone().prepared(new))?;
        Ok(key)
    }

    /// Signs the set of roots that names the prepared one; members that take it trust what it will sign.
    pub fn publish(&self, now: Timestamp) -> Result<SpkiHash, KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        let coming = ring
            .ledger
            .in_state(Role::Root, State::Prepared)
            .chain(ring.ledger.in_state(Role::Issuing, State::Prepared))
            .next()
            .ok_or(NotNow::Nothing)?;
        let key = coming.key;
        let step = match coming.role {
            // Peers know an issuing authority by the chain that it is presented with.
            Role::Issuing => None,
            Role::Root => {
                let next = ring.ledger.clone().published(None, now);
                let root = active(&ring.ledger, Role::Root)?;
                Some(self.sign_roots(&next, root, "to sign the new root in", now)?)
            }
        };
        self.commit(ring.ledger.clone().published(step, now))?;
        Ok(key)
    }

    /// What is published signs from now on. Needs no root key.
    pub fn activate(&self, now: Timestamp) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        self.commit(ring.ledger.clone().activated(now)?)
    }

    /// What this one signed is to be replaced at once.
    pub fn taint(&self, key: &SpkiHash, now: Timestamp) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        self.commit(ring.ledger.clone().tainted(key, now)?)
    }

    /// Trusted by nobody from now on, with all that is below it; the private key's file goes.
    pub fn retire(&self, key: &SpkiHash, now: Timestamp) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        let authority = ring.ledger.may_retire(key)?;
        let step = match authority.role == Role::Root && authority.state.is_trusted() {
            false => None,
            true => {
                let next = ring.ledger.clone().retired(key, None, now);
                let root = active(&ring.ledger, Role::Root)?;
                Some(self.sign_roots(&next, root, "to sign the old root out", now)?)
            }
        };
        self.commit(ring.ledger.clone().retired(key, step, now))?;
        keyring::sweep(&self.folder, &self.ledger())
    }

    /// How much of the fleet must hold a published root before it becomes active.
    pub fn activate_at(&self, percent: u8) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        let mut ledger = self.ring.load().ledger.clone();
        ledger.activate_at = percent.min(100);
        self.commit(ledger)
    }

    fn commit(&self, ledger: Ledger) -> Result<(), KeysFault> {
        keyring::write_ledger(&self.folder, &ledger)?;
        let ring = Ring::open(&self.folder, &self.trust_domain, &self.stores)?;
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    fn new_issuing(
        &self,
        root: &Authority,
        root_signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Authority, KeysFault> {
        let name = format!("issuing-{}", random_id()?);
        let (key, place) = self.stores.make(Owner::Issuing, &self.folder, &name)?;
        let certificate = certificates::issuing(
            &self.trust_domain,
            key.public_key(),
            &keyring::certificate(&self.folder, root)?,
            root_signer,
            now,
        )?;
        files::write_certificates(&self.folder.join(format!("{name}.crt")), &[certificate])?;
        Ok(Authority {
            role: Role::Issuing,
            key: key.public_key().spki_hash(),
            name,
            place,
            state: State::Prepared,
            since: now,
            above: Some(root.key),
        })
    }

    fn new_root(
        &self,
        ring: &Ring,
        before: &Authority,
        before_signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Vec<Authority>, KeysFault> {
        let name = format!("root-{}", random_id()?);
        let (key, place) = self.stores.make(Owner::Root, &self.folder, &name)?;
        let certificate = certificates::root(&self.trust_domain, key.as_ref(), now)?;
        files::write_certificates(&self.folder.join(format!("{name}.crt")), &[certificate])?;
        let root = Authority {
            role: Role::Root,
            key: key.public_key().spki_hash(),
            name,
            place,
            state: State::Prepared,
            since: now,
            above: Some(before.key),
        };
        let cross = certificates::cross(
            &self.trust_domain,
            key.public_key(),
            &keyring::certificate(&self.folder, before)?,
            before_signer,
            now,
        )?;
        files::write_certificates(&self.folder.join(keyring::cross_name(&root)), &[cross])?;
        let issuing = self.new_issuing(&root, key.as_ref(), now)?;
        let number = ring.key_set.header().number.saturating_add(1);
        let set = sign_key_set(
            &self.trust_domain,
            key.as_ref(),
            &self.purpose_keys(),
            number,
            now,
        )?;
        files::write_public(
            &self.folder.join(keyring::key_set_name(&root)),
            &set.to_bytes(),
        )?;
        Ok(vec![root, issuing])
    }

    /// The set of roots of `next`, signed by `root`, which the set before names.
    fn sign_roots(
        &self,
        next: &Ledger,
        root: &Authority,
        why: &'static str,
        now: Timestamp,
    ) -> Result<Vec<u8>, KeysFault> {
        let signer = self.root_signer(root, why)?;
        let mut next = next.clone();
        next.sequence = next.sequence.saturating_add(1);
        let bundle = keyring::bundle(&self.folder, &self.trust_domain, &next)?;
        let expires = now.plus(certificates::ROOT_LIFETIME);
        Ok(bundle.sign(signer.as_ref(), now, expires)?.to_bytes())
    }

    /// The key of a root, if it is here now.
    pub(super) fn root_signer(
        &self,
        root: &Authority,
        why: &'static str,
    ) -> Result<Arc<dyn Signer>, KeysFault> {
        keyring::key(&self.stores, &self.folder, root)?.ok_or_else(|| KeysFault::RootNeeded {
            path: self.folder.join(format!("{}.key", root.name)),
            why,
        })
    }
}

fn active(ledger: &Ledger, role: Role) -> Result<&Authority, KeysFault> {
    ledger.active(role).ok_or(KeysFault::Ledger)
}

/// Eight hexadecimal digits: names of files and of keys in tokens.
pub(super) fn random_id() -> Result<String, CertificateFault> {
    let mut bytes = [0; 4];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CertificateFault::Random)?;
    Ok(hex::encode(bytes))
}
