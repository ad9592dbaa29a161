//! Who signed already, and who is still missing: for people who sign one after the other.

use std::collections::BTreeSet;

use super::{Envelope, Signers, Unauthored};
use crate::image::KeyText;

/// The signatures of metadata, counted under one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub signed: BTreeSet<KeyText>,
    pub missing: BTreeSet<KeyText>,
    pub threshold: usize,
    /// Key ids whose signature is none of this authority's, or does not verify.
    pub others: Vec<String>,
}

impl Tally {
    pub fn is_complete(&self) -> bool {
        self.threshold > 0 && self.signed.len() >= self.threshold
    }

    /// How many more signatures are needed.
    pub fn wanting(&self) -> usize {
        self.threshold.saturating_sub(self.signed.len())
    }
}

impl Envelope {
    /// Counts keys, not ids: one key under two ids signs once.
    pub fn tally(&self, authority: &Signers) -> Result<Tally, Unauthored> {
        let bytes = self.to_sign()?;
        let mut signed = BTreeSet::new();
        let mut others = Vec::new();
        for (id, signature) in &self.signatures {
            let key = authority.keys.iter().find(|key| key.id() == id);
            let verified = key.filter(|key| {
                hex::decode(signature)
                    .is_ok_and(|signature| key.text().verify(&bytes, &signature).is_ok())
            });
            match verified {
                Some(key) => drop(signed.insert(key.text().clone())),
                None => others.push(id.clone()),
            }
        }
        let missing = authority
            .keys
            .iter()
            .map(|key| key.text().clone())
            .filter(|key| !signed.contains(key))
            .collect();
        Ok(Tally {
            signed,
            missing,
            threshold: authority.threshold,
            others,
        })
    }

    /// Whether anybody signed at all.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// The key of an authority under the id that its metadata gives it, and the signature that is to be added.
    pub fn add_checked(
        &mut self,
        authority: &Signers,
        key: &KeyText,
        signature: &[u8],
    ) -> Result<bool, Unauthored> {
        let bytes = self.to_sign()?;
        let Some(own) = authority.keys.iter().find(|own| own.text() == key) else {
            return Ok(false);
        };
        match key.verify(&bytes, signature).is_ok() {
            true => self.add(own, signature).map(|()| true),
            false => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edgeward_identity::{Signer, SoftwareKey};

    use super::*;
    use crate::author::{Kind, RoleKey};
    use crate::testing::{acme, role_key, signers, tomorrow};

    fn key_text(key: &SoftwareKey) -> KeyText {
        role_key(key).text().clone()
    }

    #[test]
    fn strangers_broken_signatures_and_one_key_twice_do_not_count() {
        let keys: Vec<SoftwareKey> = (0..3).map(|_| SoftwareKey::generate().unwrap()).collect();
        let [first, second, stranger] = keys.as_slice() else {
            unreachable!()
        };
        let authority = signers(&[first, second], 2);
        let mut envelope = Envelope::releases(1, tomorrow(), &BTreeMap::new()).unwrap();
        let bytes = envelope.to_sign().unwrap();
        let add = |envelope: &mut Envelope, key: &SoftwareKey, bytes: &[u8]| {
            envelope
                .add(&role_key(key), &key.sign(bytes).unwrap())
                .unwrap();
        };
        add(&mut envelope, first, &bytes);
        add(&mut envelope, first, &bytes);
        add(&mut envelope, second, b"something else");
        add(&mut envelope, stranger, &bytes);
        let tally = envelope.tally(&authority).unwrap();
        assert!(!tally.is_complete());
        assert_eq!(tally.signed, BTreeSet::from([key_text(first)]));
        assert_eq!(tally.missing, BTreeSet::from([key_text(second)]));
        assert_eq!((tally.others.len(), tally.wanting()), (2, 1));
        add(&mut envelope, second, &bytes);
        assert!(envelope.tally(&authority).unwrap().is_complete());
        // An authority that needs nobody is none.
        assert!(!envelope.tally(&signers(&[first], 0)).unwrap().is_complete());
    }

    #[test]
    fn one_key_under_two_ids_signs_once() {
        let key = SoftwareKey::generate().unwrap();
        let own = role_key(&key);
        let twin = RoleKey {
            id: "00".repeat(32),
            ..own.clone()
        };
        let authority = Signers {
            keys: vec![own.clone(), twin.clone()],
            threshold: 2,
        };
        let mut envelope = Envelope::releases(1, tomorrow(), &BTreeMap::new()).unwrap();
        let signature = key.sign(&envelope.to_sign().unwrap()).unwrap();
        envelope.add(&own, &signature).unwrap();
        envelope.add(&twin, &signature).unwrap();
        let tally = envelope.tally(&authority).unwrap();
        assert_eq!((tally.signed.len(), tally.is_complete()), (1, false));
    }

    #[test]
    fn what_was_written_is_read_back_and_a_signature_is_checked_before_it_is_added() {
        let key = SoftwareKey::generate().unwrap();
        let other = SoftwareKey::generate().unwrap();
        let ed25519 = RoleKey::ed25519(&[7; 32]).unwrap();
        let mut both = signers(&[&key], 1);
        both.keys.push(ed25519.clone());
        let image =
            Envelope::image(4, tomorrow(), &BTreeMap::from([(acme(), both.clone())])).unwrap();
        let mut image = Envelope::parse(&image.to_bytes()).unwrap();
        assert_eq!(
            (image.kind().unwrap(), image.version().unwrap()),
            (Kind::Targets, 4)
        );
        assert_eq!(image.expires().unwrap().secs(), tomorrow().secs());
        let read = image.publishers().unwrap();
        let texts: Vec<&KeyText> = read[&acme()].keys.iter().map(RoleKey::text).collect();
        assert_eq!(texts, [&key_text(&key), ed25519.text()]);
        let bytes = image.to_sign().unwrap();
        let signature = key.sign(&bytes).unwrap();
        let authority = signers(&[&key], 1);
        assert!(
            !image
                .add_checked(&authority, &key_text(&other), &other.sign(&bytes).unwrap())
                .unwrap()
        );
        assert!(
            !image
                .add_checked(&authority, &key_text(&key), b"none")
                .unwrap()
        );
        assert!(!image.is_signed());
        assert!(
            image
                .add_checked(&authority, &key_text(&key), &signature)
                .unwrap()
        );
        assert!(image.tally(&authority).unwrap().is_complete());
    }
}
