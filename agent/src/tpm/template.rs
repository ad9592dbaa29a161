//! Public templates of every key this agent makes, and whether a key found in the TPM was made from one.

use tss_esapi::Error;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek as standard_ek};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme,
    KeyedHashScheme, Public, PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters,
    SymmetricDefinitionObject,
};

use super::EkKind;

/// Distinguishes our AK from other primaries of the same shape.
const AK_LABEL: &[u8; 32] = b"edgeward attestation key, v1    ";

/// The EK of the TCG EK Credential Profile 2.5: L-1, L-2 or H-3.
pub(super) fn ek(kind: EkKind) -> Result<Public, Error> {
    let selection = match kind {
        EkKind::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        EkKind::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        EkKind::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
    };
    standard_ek::create_ek_public_from_default_template_2(selection, None)
}

/// The attestation key: signs nothing but what the TPM itself made.
pub(super) fn ak() -> Result<Public, Error> {
    signing(true, labelled(AK_LABEL)?)
}

/// The SVID's key. Another label gives another key, the same label the same: no blob to keep.
pub(super) fn svid(label: &[u8; 32]) -> Result<Public, Error> {
    signing(false, labelled(label)?)
}

/// A key that is kept in a file: drawn by the TPM, so that it needs no label.
pub(super) fn kept() -> Result<Public, Error> {
    signing(false, EccPoint::default())
}

/// The storage root under which the state's key is sealed.
pub(super) fn storage_root() -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    )
    .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// Sealed data: no dictionary-attack protection, no PCR policy that a firmware update would break.
pub(super) fn sealed() -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

/// Whether `found` has the shape of `template`: everything but the unique part, which is the key itself.
pub(super) fn same_shape(found: &Public, template: &Public) -> bool {
    let common = found.object_attributes() == template.object_attributes()
        && found.name_hashing_algorithm() == template.name_hashing_algorithm()
        && found.auth_policy() == template.auth_policy();
    let parameters = match (found, template) {
        (
            Public::Rsa {
                parameters: found, ..
            },
            Public::Rsa {
                parameters: template,
                ..
            },
        ) => found == template,
        (
            Public::Ecc {
                parameters: found, ..
            },
            Public::Ecc {
                parameters: template,
                ..
            },
        ) => found == template,
        _ => false,
    };
    common && parameters
}

fn labelled(label: &[u8; 32]) -> Result<EccPoint, Error> {
    let x = EccParameter::try_from(label.as_slice())?;
    Ok(EccPoint::new(x, EccParameter::default()))
}

fn signing(restricted: bool, unique: EccPoint) -> Result<Public, Error> {
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters = PublicEccParametersBuilder::new()
        .with_ecc_scheme(scheme)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(restricted)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(signing_attributes(restricted)?)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(unique)
        .build()
}

fn signing_attributes(restricted: bool) -> Result<ObjectAttributes, Error> {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(restricted)
        .with_sign_encrypt(true)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_shape_is_not_ours() {
        let ak = ak().unwrap();
        let svid = svid(&[1; 32]).unwrap();
        assert!(!same_shape(&svid, &ak));
        assert!(!same_shape(
            &ek(EkKind::P256).unwrap(),
            &ek(EkKind::P384).unwrap()
        ));
        assert!(!same_shape(
            &ek(EkKind::Rsa2048).unwrap(),
            &ek(EkKind::P256).unwrap()
        ));
        assert!(same_shape(&svid, &super::svid(&[2; 32]).unwrap()));
    }

    #[test]
    fn only_the_ak_is_restricted_and_both_sign_during_a_lockout() {
        for (public, restricted) in [(ak().unwrap(), true), (svid(&[0; 32]).unwrap(), false)] {
            let attributes = public.object_attributes();
            assert_eq!(attributes.restricted(), restricted);
            assert!(attributes.no_da() && attributes.fixed_tpm() && attributes.fixed_parent());
            assert!(attributes.sign_encrypt() && !attributes.decrypt());
        }
    }
}
