//! Terms on which certificates are trusted although they are not as they should be, or not at the end of a path.

use rcgen::SigningKey;

use super::*;

const ON_ANY_ORDER: Terms = Terms {
    anchor: false,
    sets_in_any_order: true,
    after_its_end: false,
};

/// A name of one set with two attributes in the wrong order, as Nuvoton's authorities have.
fn disordered_name() -> Vec<u8> {
    let attribute = |last: u8, text: &str| {
        let pair = [tlv(0x06, &[0x55, 4, last]), tlv(0x0c, text.as_bytes())].concat();
        tlv(0x30, &pair)
    };
    let set = [attribute(10, "Nobody Technology"), attribute(3, "Root")].concat();
    tlv(0x30, &tlv(0x31, &set))
}

/// The certificate with other names, signed anew.
fn renamed(certificate: &[u8], issuer: &[u8], subject: Option<&[u8]>, key: &KeyPair) -> Vec<u8> {
    let parts = der::children(certificate).unwrap();
    let fields = der::children(parts[0].1).unwrap();
    let mut body = Vec::new();
    for (index, (_, field)) in fields.iter().enumerate() {
        body.extend_from_slice(match (index, subject) {
            (3, _) => issuer,
            (5, Some(subject)) => subject,
            _ => field,
        });
    }
    let body = tlv(0x30, &body);
    let signature = [&[0], key.sign(&body).unwrap().as_slice()].concat();
    tlv(
        0x30,
        &[body, parts[1].1.to_vec(), tlv(0x03, &signature)].concat(),
    )
}

/// A maker whose names break DER: its root, and the EK certificate under it.
struct Disordered {
    tpm: SoftwareTpm,
    root: Vec<u8>,
    leaf: Vec<u8>,
}

impl Disordered {
    fn new() -> Self {
        let tpm = SoftwareTpm::new();
        let Authority { issuer, der } = root(authority_params("to be renamed"));
        let leaf = leaf_params()
            .signed_by(&ecc_key(&tpm.ek_public()), &issuer)
            .unwrap();
        let name = disordered_name();
        Self {
            root: renamed(&der, &name, Some(&name), issuer.key()),
            leaf: renamed(leaf.der(), &name, None, issuer.key()),
            tpm,
        }
    }

    fn verify(&self, roots: &EkRoots) -> Result<VerifiedEk, EkRefused> {
        let ek = self.tpm.ek_public().to_bytes();
        verify_ek_certificate(&[&self.leaf], &ek, roots, NOW)
    }
}

fn pinned(bytes: &[u8], terms: Terms, lists: EkLists) -> (EkRoots, Vec<roots::RefusedFile>) {
    let file = EkFile {
        tier: Tier::Hardware,
        name: "maker.der",
        bytes,
        terms,
    };
    EkRoots::load(&[file], lists)
}

/// Test 12.
#[test]
fn a_set_out_of_order_is_refused_unless_its_certificate_or_root_is_listed() {
    let maker = Disordered::new();
    let (strict, refused) = pinned(&maker.root, Terms::default(), EkLists::default());
    assert_eq!(refused[0].code(), "ek_bad_der");
    assert_eq!(maker.verify(&strict).unwrap_err().code(), "ek_bad_der");
    let (listed, refused) = pinned(&maker.root, ON_ANY_ORDER, EkLists::default());
    assert_eq!(refused, []);
    assert_eq!(maker.verify(&listed).unwrap().tier().get(), Tier::Hardware);
    // The leaf alone on the list: it may be read, and leads nowhere.
    let lists = EkLists {
        sets_in_any_order: BTreeSet::from([Digest::of(&maker.leaf)]),
        ..EkLists::default()
    };
    let (leaf_only, _) = EkRoots::load(&[], lists);
    assert_eq!(
        maker.verify(&leaf_only).unwrap_err().code(),
        "ek_chain_untrusted"
    );
}

#[test]
fn claiming_a_listed_issuer_forgives_nothing_but_the_order() {
    let maker = Disordered::new();
    let (listed, _) = pinned(&maker.root, ON_ANY_ORDER, EkLists::default());
    let other = Disordered::new();
    // The same names, another key.
    assert_eq!(
        other.verify(&listed).unwrap_err().code(),
        "ek_chain_signature"
    );
    let mut padded = maker.leaf.clone();
    padded.push(0);
    let ek = maker.tpm.ek_public().to_bytes();
    assert_eq!(
        verify_ek_certificate(&[&padded], &ek, &listed, NOW)
            .unwrap_err()
            .code(),
        "ek_bad_der"
    );
}

#[test]
fn real_roots_that_break_der_load_only_where_they_are_listed() {
    for file in ["NTC1.pem", "NTC2.pem", "NUVO_1110.pem", "NUVO_2111.pem"] {
        let Some(bytes) = vectors::read(&format!("ek-ca-certificates/keylime/{file}")) else {
            println!("vectors not found: skipped");
            return;
        };
        let (_, refused) = pinned(&bytes, Terms::default(), EkLists::default());
        assert_eq!(refused[0].code(), "ek_bad_der", "{file}");
        let (roots, refused) = pinned(&bytes, ON_ANY_ORDER, EkLists::default());
        assert_eq!(refused, [], "{file}");
        assert_eq!(roots.roots().count(), 1, "{file}");
    }
}

#[test]
fn a_pinned_intermediate_ends_a_path_only_where_its_terms_say_so() {
    let maker = Maker::new();
    let leaf = maker.leaf(&leaf_params());
    let ek = maker.tpm.ek_public().to_bytes();
    let verify = |terms: Terms| {
        let (roots, refused) = pinned(&maker.intermediate.der, terms, EkLists::default());
        assert_eq!(refused, []);
        verify_ek_certificate(&[&leaf], &ek, &roots, NOW).map_err(|refused| refused.code())
    };
    assert_eq!(verify(Terms::default()).unwrap_err(), "ek_chain_untrusted");
    let anchor = Terms {
        anchor: true,
        ..Terms::default()
    };
    assert_eq!(verify(anchor).unwrap().tier().get(), Tier::Hardware);
}

/// Test 3, the exception.
#[test]
fn what_a_maker_that_is_gone_issued_counts_only_by_an_operators_word() {
    let end = rcgen::date_time_ymd(2025, 6, 1);
    let tpm = SoftwareTpm::new();
    let mut params = authority_params("gone");
    params.not_after = end;
    let Authority { issuer, der } = root(params);
    let ek = tpm.ek_public().to_bytes();
    let code = |leaf: &CertificateParams, terms: Terms| {
        let (roots, refused) = pinned(&der, terms, EkLists::default());
        assert_eq!(refused, []);
        let leaf = leaf.signed_by(&ecc_key(&tpm.ek_public()), &issuer).unwrap();
        match verify_ek_certificate(&[leaf.der()], &ek, &roots, NOW) {
            Ok(verified) => match verified.anchor() {
                EkAnchor::Certificate { ended: true, .. } => "ended",
                _ => "good",
            },
            Err(refused) => refused.code(),
        }
    };
    let by_word = Terms {
        after_its_end: true,
        ..Terms::default()
    };
    let long = leaf_params();
    let mut short = leaf_params();
    short.not_after = end;
    let mut future = leaf_params();
    future.not_before = rcgen::date_time_ymd(2030, 1, 1);
    assert_eq!(code(&long, Terms::default()), "ek_chain_expired");
    assert_eq!(code(&short, Terms::default()), "ek_expired");
    assert_eq!(code(&future, by_word), "ek_not_yet_valid");
    assert_eq!(code(&long, by_word), "good");
    assert_eq!(code(&short, by_word), "ended");
}
