//! How one set of roots follows another: by the signature of a root that is trusted already.
//!
//! The signed object has purpose `keys`, everybody as its audience, and the bundle's sequence as its number; its payload
//! is the whole new bundle in the SPIFFE format. A key set, the other object of this purpose, is a JSON list and a
//! bundle is a JSON object: neither is ever read as the other.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{BundleError, TrustBundle};
use crate::clock::Timestamp;
use crate::keys::{SignError, Signer};
use crate::signed::{EVERYBODY, Expect, Header, Malformed, Purpose, SignedObject, Unacceptable};
use crate::spiffe_id::TrustDomain;

/// Most steps from one bundle to another that are taken at once.
pub const MAX_STEPS: usize = 32;

/// Why a bundle does not follow another one. The one that was held stays.
#[derive(Debug, thiserror::Error)]
pub enum NoSuccession {
    #[error("signed roots: {0}")]
    Signed(#[from] Unacceptable),
    #[error("signed roots: {0}")]
    Bundle(#[from] BundleError),
    #[error("signed roots are not newer than those held: {sequence} <= {held}")]
    Behind { sequence: u64, held: u64 },
    #[error("signed roots say another sequence than their header")]
    Sequence,
    #[error("a root is of another trust domain: {0}")]
    ForeignRoot(String),
    #[error("more steps than the limit: {MAX_STEPS}")]
    TooManySteps,
}

impl NoSuccession {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signed(unacceptable) => unacceptable.code(),
            Self::Bundle(_) => "bundle_malformed",
            Self::Behind { .. } => "bundle_rollback",
            Self::Sequence => "signed_number",
            Self::ForeignRoot(_) => "bundle_foreign_root",
            Self::TooManySteps => "bundle_too_many_steps",
        }
    }
}

impl From<Malformed> for NoSuccession {
    fn from(malformed: Malformed) -> Self {
        Self::Signed(malformed.into())
    }
}

impl TrustBundle {
    /// This bundle as members of the one before will take it, signed by a root of the one before.
    pub fn sign(
        &self,
        root: &dyn Signer,
        issued: Timestamp,
        expires: Timestamp,
    ) -> Result<SignedObject, SignError> {
        let header = Header {
            purpose: Purpose::Keys,
            trust_domain: self.trust_domain().clone(),
            audience: EVERYBODY.to_owned(),
            number: self.sequence(),
            issued,
            expires,
        };
        SignedObject::sign(root, header, self.to_spiffe_json())
    }

    /// The bundle that follows this one, if one of this one's roots says so.
    pub fn followed_by(&self, object: &SignedObject, now: Timestamp) -> Result<Self, NoSuccession> {
        let sequence = object.header().number;
        if sequence <= self.sequence() {
            return Err(NoSuccession::Behind {
                sequence,
                held: self.sequence(),
            });
        }
        let expect = Expect {
            purpose: Purpose::Keys,
            trust_domain: self.trust_domain(),
            audience: EVERYBODY,
            least_number: sequence,
            now,
        };
        let keys = self.root_keys();
        let signer = keys
            .iter()
            .find(|key| key.spki_hash() == *object.key_id())
            .ok_or(Unacceptable::Key)?;
        let payload = object.open_with_key(signer, &expect)?;
        let next = Self::from_spiffe_json(self.trust_domain().clone(), payload)?;
        if next.sequence() != sequence {
            return Err(NoSuccession::Sequence);
        }
        for root in next.roots() {
            check_domain(root, self.trust_domain())?;
        }
        Ok(next)
    }

    /// As [`TrustBundle::followed_by`], over all the steps that somebody who was away has missed. Steps that this
    /// bundle has taken already are passed over; where none is left, the bundle stays as it is.
    pub fn followed_by_all(&self, steps: &[Vec<u8>], now: Timestamp) -> Result<Self, NoSuccession> {
        if steps.len() > MAX_STEPS {
            return Err(NoSuccession::TooManySteps);
        }
        let mut held = self.clone();
        let mut newest = None;
        for step in steps {
            let object = SignedObject::parse(step)?;
            let sequence = object.header().number;
            newest = newest.max(Some(sequence));
            if sequence > held.sequence() {
                held = held.followed_by(&object, now)?;
            }
        }
        match newest {
            Some(sequence) if sequence < self.sequence() => Err(NoSuccession::Behind {
                sequence,
                held: self.sequence(),
            }),
            _ => Ok(held),
        }
    }
}

fn check_domain(der: &[u8], trust_domain: &TrustDomain) -> Result<(), NoSuccession> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(der)
        .map_err(|_| BundleError::Certificate)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| BundleError::Certificate)?;
    let found = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .unwrap_or_default();
    match found == format!("spiffe://{trust_domain}") {
        true => Ok(()),
        false => Err(NoSuccession::ForeignRoot(found)),
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::testing::{TEST_NOW, TestAuthority};

    const DOMAIN: &str = "plant.example";

    fn bundle(sequence: u64, of: &[&TestAuthority]) -> TrustBundle {
        let roots: Vec<CertificateDer<'static>> = of
            .iter()
            .flat_map(|authority| authority.bundle().roots().to_vec())
            .collect();
        TrustBundle::new(TrustDomain::new(DOMAIN).unwrap(), sequence, 300, roots).unwrap()
    }

    fn step(bundle: &TrustBundle, by: &TestAuthority) -> Vec<u8> {
        let expires = TEST_NOW.plus(std::time::Duration::from_secs(60));
        bundle
            .sign(by.root_key().as_ref(), TEST_NOW, expires)
            .unwrap()
            .to_bytes()
    }

    fn take(held: &TrustBundle, steps: &[Vec<u8>]) -> Result<TrustBundle, &'static str> {
        held.followed_by_all(steps, TEST_NOW)
            .map_err(|refused| refused.code())
    }

    #[test]
    fn roots_that_no_trusted_root_signed_are_refused() {
        let (old, new, thief) = (
            TestAuthority::new(DOMAIN),
            TestAuthority::new(DOMAIN),
            TestAuthority::new(DOMAIN),
        );
        let held = bundle(1, &[&old]);
        let next = bundle(2, &[&old, &new]);
        // A root cannot introduce itself, and a stranger cannot introduce anybody.
        assert_eq!(take(&held, &[step(&next, &new)]), Err("signed_key"));
        assert_eq!(take(&held, &[step(&next, &thief)]), Err("signed_key"));
        let mut torn = step(&next, &old);
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(take(&held, &[torn]), Err("signed_signature"));
        let mut edited = step(&next, &old);
        let middle = edited.len() / 2;
        edited[middle] ^= 1;
        assert_eq!(take(&held, &[edited]), Err("signed_signature"));
    }

    #[test]
    fn a_set_of_roots_never_goes_back() {
        let (old, new) = (TestAuthority::new(DOMAIN), TestAuthority::new(DOMAIN));
        let held = bundle(5, &[&new]);
        let before = bundle(4, &[&old, &new]);
        assert_eq!(take(&held, &[step(&before, &new)]), Err("bundle_rollback"));
        // The same step once more changes nothing.
        let same = bundle(5, &[&old, &new]);
        assert_eq!(take(&held, &[step(&same, &new)]), Ok(held.clone()));
        assert_eq!(take(&held, &[]), Ok(held));
    }

    #[test]
    fn roots_of_another_trust_domain_and_no_roots_at_all_are_refused() {
        let old = TestAuthority::new(DOMAIN);
        let foreign = TestAuthority::new("other.example");
        let held = bundle(1, &[&old]);
        let next = bundle(2, &[&old, &foreign]);
        assert_eq!(
            take(&held, &[step(&next, &old)]),
            Err("bundle_foreign_root")
        );
        let domain = TrustDomain::new("other.example").unwrap();
        let other = TrustBundle::new(domain, 2, 300, old.bundle().roots().to_vec()).unwrap();
        assert_eq!(
            take(&held, &[step(&other, &old)]),
            Err("signed_trust_domain")
        );
        let header = |number| Header {
            purpose: Purpose::Keys,
            trust_domain: TrustDomain::new(DOMAIN).unwrap(),
            audience: EVERYBODY.to_owned(),
            number,
            issued: TEST_NOW,
            expires: TEST_NOW.plus(std::time::Duration::from_secs(60)),
        };
        let signed = |payload: &[u8], number| {
            SignedObject::sign(old.root_key().as_ref(), header(number), payload.to_vec())
                .unwrap()
                .to_bytes()
        };
        let none = signed(b"{\"keys\":[],\"spiffe_sequence\":2}", 2);
        assert_eq!(take(&held, &[none]), Err("bundle_malformed"));
        // A key set is of the same purpose, and is no set of roots.
        assert_eq!(take(&held, &[signed(b"[]", 2)]), Err("bundle_malformed"));
        let lying = signed(&bundle(9, &[&old]).to_spiffe_json(), 2);
        assert_eq!(take(&held, &[lying]), Err("signed_number"));
    }

    #[test]
    fn an_expired_step_and_too_many_steps_are_refused() {
        let old = TestAuthority::new(DOMAIN);
        let held = bundle(1, &[&old]);
        let expired = bundle(2, &[&old])
            .sign(old.root_key().as_ref(), TEST_NOW, TEST_NOW)
            .unwrap()
            .to_bytes();
        assert_eq!(take(&held, &[expired]), Err("signed_expired"));
        let one = step(&bundle(2, &[&old]), &old);
        let many = vec![one; MAX_STEPS + 1];
        assert_eq!(take(&held, &many), Err("bundle_too_many_steps"));
    }

    #[test]
    fn whoever_was_away_takes_every_step_it_missed() {
        let (a, b, c) = (
            TestAuthority::new(DOMAIN),
            TestAuthority::new(DOMAIN),
            TestAuthority::new(DOMAIN),
        );
        let steps = [
            step(&bundle(2, &[&a, &b]), &a),
            step(&bundle(3, &[&b]), &b),
            step(&bundle(4, &[&b, &c]), &b),
            step(&bundle(5, &[&c]), &c),
        ];
        let newest = bundle(5, &[&c]);
        assert_eq!(take(&bundle(1, &[&a]), &steps), Ok(newest.clone()));
        assert_eq!(take(&bundle(3, &[&b]), &steps), Ok(newest));
        // Without the step that introduced the next root there is no way on.
        assert_eq!(take(&bundle(1, &[&a]), &steps[1..]), Err("signed_key"));
    }
}
