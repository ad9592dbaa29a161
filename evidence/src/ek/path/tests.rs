use serde::Deserialize;

use super::*;
use crate::ek::certificate::parse_end_entity;
use crate::ek::der::Strictness;
use crate::vectors;

const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const EK_CERTIFICATE: &str = "2.23.133.8.1";

/// Rules that these checks do not have, on purpose; a part of a case's name with `::` in front, or its end. Everything
/// else must end as the case says.
const SKIPPED: [(&str, &str); 8] = [
    ("::san::", "names of servers: an EK certificate has none"),
    (
        "::nc::permitted",
        "name constraints are refused altogether, so what they permit is refused too",
    ),
    (
        "::aki::",
        "key identifiers are hints for path building, and an authority's own affair",
    ),
    ("root-missing-ski", "the same"),
    (
        "root-non-critical-basic-constraints",
        "roots are pinned by hand",
    ),
    (
        "max-chain-depth-1-self-issued",
        "the limit counts every certificate",
    ),
    (
        "cryptographydotio-chain",
        "purposes of web servers are not told apart",
    ),
    ("pedantic", "marked so by the vectors themselves"),
];

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    features: Option<Vec<String>>,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
    max_chain_depth: Option<usize>,
}

fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).unwrap().into_contents()
}

fn judge(case: &Case) -> Result<(), EkRefused> {
    // Roots that cannot be pinned are no roots; what cannot be parsed was not sent.
    let parse = |list: &[String]| -> Vec<Issuer> {
        list.iter()
            .filter_map(|pem| Issuer::parse(&der(pem), Strictness::Strict).ok())
            .collect()
    };
    let (anchors, candidates) = (
        parse(&case.trusted_certs),
        parse(&case.untrusted_intermediates),
    );
    let leaf = der(&case.peer_certificate);
    parse_end_entity(&leaf, Strictness::Strict)?;
    let rules = Rules {
        candidates: &candidates.iter().collect::<Vec<_>>(),
        anchors: &anchors.iter().collect::<Vec<_>>(),
        usage: SERVER_AUTH,
        now: Timestamp::from_secs(match case.validation_time.as_deref() {
            Some("2023-07-10T00:00:00+00:00") => 1_688_947_200,
            Some(other) => panic!("a case with another time: {other}"),
            // 2024-06-01: all cases without a time were made in 2023 and last for years.
            None => 1_717_200_000,
        }),
        // The cases count intermediates only.
        max_chain: case.max_chain_depth.unwrap_or(8).min(8) + 2,
    };
    verify(&Signed::parse(&leaf)?, rules).map(|_| ())
}

#[test]
fn public_path_cases_end_as_they_must() {
    let Some(bytes) = vectors::read("x509-limbo/limbo.json") else {
        return;
    };
    let limbo: Limbo = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(limbo.testcases.len(), 69);
    let mut compared = 0;
    let mut wrong = Vec::new();
    for case in &limbo.testcases {
        let pedantic = case
            .features
            .iter()
            .flatten()
            .any(|feature| feature.starts_with("pedantic"));
        let skipped = SKIPPED
            .iter()
            .any(|(pattern, _)| match pattern.starts_with("::") {
                true => case.id.contains(pattern),
                false => case.id.ends_with(pattern),
            });
        if pedantic || skipped {
            continue;
        }
        let verdict = judge(case);
        if verdict.is_ok() != (case.expected_result == "SUCCESS") {
            wrong.push((case.id.clone(), verdict));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared >= 30, "{compared}");
}

fn keylime(name: &str) -> Option<Issuer> {
    let bytes = vectors::read(&format!("ek-ca-certificates/keylime/{name}.pem"))?;
    Some(
        Issuer::parse(
            &pem::parse(bytes).unwrap().into_contents(),
            Strictness::Strict,
        )
        .unwrap(),
    )
}

#[test]
fn real_makers_roots_issued_what_is_known_of_them() {
    // 2024-06-01.
    let now = Timestamp::from_secs(1_717_200_000);
    let issued = |root: &Issuer, subject: &Issuer| {
        let rules = Rules {
            candidates: &[],
            anchors: &[root],
            usage: EK_CERTIFICATE,
            now,
            max_chain: 5,
        };
        verify(&subject.signed(), rules)
            .map(|_| ())
            .map_err(|refused| refused.code())
    };
    let pairs = [
        ("STM_ECC_01RT", "STM_ECC_01I", Ok(())),
        ("STM_RSA_RT", "STM_RSA_01I", Ok(())),
        ("STM_RSA_RT", "STM_RSA_02I", Ok(())),
        ("STM_RSA_RT", "STM_RSA_04I", Ok(())),
        ("STM_RSA_RT", "STM_RSA_05I", Ok(())),
        ("STM_RSA_RT", "STM_RSA_06I", Ok(())),
        ("GS_TPM_RT", "STM_RSA_RT", Ok(())),
        // Signed with SHA-1.
        ("IFX_RSA_RT", "IFX_RSA_17I", Err("ek_chain_signature")),
        ("IFX_RSA_RT", "IFX_RSA_03I", Err("ek_chain_signature")),
        // Its issuer is not here.
        ("IFX_RSA_RT", "INTEL_I", Err("ek_chain_untrusted")),
        ("STM_ECC_01RT", "STM_RSA_01I", Err("ek_chain_untrusted")),
    ];
    for (root, subject, expected) in pairs {
        let (Some(root_certificate), Some(certificate)) = (keylime(root), keylime(subject)) else {
            return;
        };
        assert_eq!(
            issued(&root_certificate, &certificate),
            expected,
            "{root} issued {subject}"
        );
    }
}
