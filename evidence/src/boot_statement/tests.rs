use edgeward_identity::{Kind, Signer, SoftwareKey, SpiffeId, Tier};

use super::*;
use crate::appraise::tests::{fields, tpm_evidence};
use crate::appraise::{Logs, Profile, appraise};
use crate::result::tests::{NOW, domain, keys, node, signed};
use crate::result::{AttestationResult, ResultContext, ResultExpect, check_result};
use crate::testing::{SoftwareTpm, sha256_selection};
use crate::tpm::PcrSelection;

/// A node that was attested and then booted without the cloud.
struct Scene {
    tpm: SoftwareTpm,
    result: CheckedResult,
    node: SpiffeId,
    new_boot_key: PublicKey,
    selection: PcrSelection,
}

impl Scene {
    fn new() -> Self {
        let mut tpm = SoftwareTpm::new();
        let evidence = tpm_evidence(&mut tpm, Tier::Virtual);
        let appraisal = appraise(
            &evidence,
            &Profile::new(fields()).unwrap(),
            &Logs::default(),
        );
        let node = node("gw-1");
        let context = ResultContext {
            spiffe_id: &node,
            issued: NOW,
            deny_number: 5,
        };
        let result = AttestationResult::new(&evidence, &appraisal, &context).unwrap();
        let (key, set) = keys();
        let expect = ResultExpect {
            trust_domain: &domain(),
            spiffe_id: &node,
            svid_spki: &evidence.svid_key().spki_hash(),
            least_number: 0,
            now: NOW,
        };
        let result = check_result(&signed(&result, &key), &set, &expect).unwrap();
        tpm.reboot(true);
        Self {
            tpm,
            result,
            node,
            new_boot_key: *SoftwareKey::generate().unwrap().public_key(),
            selection: sha256_selection(&[0, 7]),
        }
    }

    fn statement(&mut self) -> BootStatement {
        let data = Transcript {
            trust_domain: self.node.trust_domain(),
            boot_key: &self.new_boot_key,
            moment: Moment::Boot {
                node: &self.node,
                ak_name: self.tpm.attestation_key().name(),
                svid_key: self.tpm.svid.public_key(),
            },
        }
        .qualifying_data();
        BootStatement {
            boot_key: self.new_boot_key,
            quote: self.tpm.quote(data.as_bytes(), &self.selection).quote,
        }
    }

    fn check(&self, statement: &BootStatement) -> Result<CheckedBoot, &'static str> {
        statement
            .check(&self.result, self.tpm.svid.public_key())
            .map_err(|refused| refused.code())
    }
}

#[test]
fn a_boot_into_anything_else_than_what_was_attested_is_refused() {
    let mut scene = Scene::new();
    scene.tpm.pcrs[7] = [8; 32];
    let statement = scene.statement();
    assert_eq!(scene.check(&statement), Err("boot_pcr_digest_mismatch"));
    let mut scene = Scene::new();
    scene.selection = sha256_selection(&[0]);
    let statement = scene.statement();
    assert_eq!(scene.check(&statement), Err("boot_pcr_selection_mismatch"));
}

#[test]
fn a_statement_by_another_ak_is_refused() {
    let mut scene = Scene::new();
    scene.tpm.ak = SoftwareKey::generate().unwrap();
    let statement = scene.statement();
    assert_eq!(scene.check(&statement), Err("boot_signature"));
}

#[test]
fn a_statement_for_another_boot_key_node_or_leaf_is_refused() {
    let mut scene = Scene::new();
    let mut statement = scene.statement();
    statement.boot_key = *SoftwareKey::generate().unwrap().public_key();
    assert_eq!(scene.check(&statement), Err("boot_binding_mismatch"));
    scene.node = SpiffeId::new(&domain(), Kind::Node, "gw-2").unwrap();
    let statement = scene.statement();
    assert_eq!(scene.check(&statement), Err("boot_binding_mismatch"));
    let mut scene = Scene::new();
    let statement = scene.statement();
    scene.tpm.svid = SoftwareKey::generate().unwrap();
    assert_eq!(scene.check(&statement), Err("boot_binding_mismatch"));
}

#[test]
fn a_quote_made_for_a_challenge_is_no_boot_statement() {
    let mut scene = Scene::new();
    let mut statement = scene.statement();
    let certify = scene.tpm.certify(&[0; 32]);
    statement.quote = certify;
    assert_eq!(scene.check(&statement), Err("boot_type"));
    let selection = scene.selection.clone();
    statement.quote = scene.tpm.quote(&[0; 32], &selection).quote;
    assert_eq!(scene.check(&statement), Err("boot_binding_mismatch"));
}

#[test]
fn within_the_attested_boot_no_other_boot_key_is_accepted() {
    let mut scene = Scene::new();
    scene.tpm.clock.reset_count -= 1;
    let statement = scene.statement();
    assert_eq!(scene.check(&statement), Err("boot_not_rebooted"));
}

#[test]
fn a_statement_of_the_same_software_carries_the_result_over_a_boot() {
    let mut scene = Scene::new();
    let statement = scene.statement();
    let statement = BootStatement::parse(&statement.to_bytes()).unwrap();
    let checked = scene.check(&statement).unwrap();
    assert_eq!(checked.boot_key(), &scene.new_boot_key);
    assert_eq!(checked.reset_count(), scene.tpm.clock.reset_count);
}

#[test]
fn a_statement_with_any_byte_cut_or_altered_is_refused() {
    let mut scene = Scene::new();
    let bytes = scene.statement().to_bytes();
    for index in 0..bytes.len() {
        assert!(
            BootStatement::parse(&bytes[..index]).is_err(),
            "cut at {index}"
        );
        let mut altered = bytes.clone();
        altered[index] ^= 1;
        let accepted =
            BootStatement::parse(&altered).is_ok_and(|statement| scene.check(&statement).is_ok());
        assert!(!accepted, "byte {index}");
    }
}
