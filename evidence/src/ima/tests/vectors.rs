//! Published lists, read in place where they are present.

use super::*;
use crate::vectors::read;

fn of(path: &str) -> Option<Vec<u8>> {
    read(&format!("ima-logs/{path}"))
}

#[test]
fn a_real_list_replays_to_its_known_value_with_every_template_digest_right() {
    let Some(text) = of("rust-keylime/ascii_runtime_measurements") else {
        return;
    };
    let binary = binary_of_ascii(&text).unwrap();
    let entries = parse_binary(&binary).unwrap();
    assert_eq!(entries.len(), 826);
    assert!(
        entries
            .iter()
            .all(|entry| entry.template() == Template::ImaNg)
    );
    assert!(entries.iter().all(|entry| !entry.is_violation()));
    assert_eq!(
        hex::encode(replay(&entries, HashAlg::Sha1)),
        "82231c67a69da98dc5b3aa10f6343d33109225fc"
    );
    // Every digest and every order counts.
    for index in 0..entries.len() - 1 {
        let mut swapped = entries.clone();
        swapped.swap(index, index + 1);
        if entries[index] != entries[index + 1] {
            assert_ne!(
                replay(&swapped, HashAlg::Sha1),
                replay(&entries, HashAlg::Sha1)
            );
        }
        if index > 20 {
            break;
        }
    }
}

#[test]
fn lists_of_one_line_and_of_none_replay_to_their_known_values() {
    let (Some(one), Some(none)) = (
        of("rust-keylime/ima_log.txt"),
        of("rust-keylime/empty_ima_log.txt"),
    ) else {
        return;
    };
    let binary = binary_of_ascii(&one).unwrap();
    let entries = parse_binary(&binary).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].path(), BOOT_AGGREGATE);
    assert_eq!(
        hex::encode(replay(&entries, HashAlg::Sha1)),
        "703b9083e1f35ae2faf8aee75f0541c709c53c77"
    );
    let binary = binary_of_ascii(&none).unwrap();
    assert!(parse_binary(&binary).unwrap().is_empty());
}

#[test]
fn a_list_with_sha512_has_a_violation_and_a_right_line_and_passes_its_allow_list_alone() {
    let (Some(text), Some(allowed), Some(base)) = (
        of("keylime/ima-log-sha512"),
        of("keylime/allowlist-sha512"),
        of("keylime/policy-sha512"),
    ) else {
        return;
    };
    let binary = binary_of_ascii(&text).unwrap();
    let entries = parse_binary(&binary).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].is_violation() && !entries[1].is_violation());
    let ones = HashAlg::Sha1.digest(&[&[0; 20], &[0xff; 20]]);
    assert_eq!(replay(&entries[..1], HashAlg::Sha1), ones);
    let template = HashAlg::Sha1.digest(&[entries[1].data()]);
    assert_eq!(
        hex::encode(&template),
        "edc4bec94ffdeb86c4062d9841b41da5c94c7a5d"
    );
    assert_eq!(
        replay(&entries, HashAlg::Sha1),
        HashAlg::Sha1.digest(&[&ones, &template])
    );
    let digest_of = |hex_digits: &[u8]| hex::decode(hex_digits).unwrap();
    let allowed = digest_of(allowed.split(|byte| *byte == b' ').next().unwrap());
    let base: serde_json::Value = serde_json::from_slice(&base).unwrap();
    let base = digest_of(
        base["digests"]["/base_policy_data"][0]
            .as_str()
            .unwrap()
            .as_bytes(),
    );
    let policy = |digest: &[u8]| {
        let file = ListedFile {
            hash: HashAlg::Sha512,
            digest,
            path: Some(b"/data"),
        };
        ImaPolicy::new([file], [], Violations::Ignore).unwrap()
    };
    let compare = |policy: &ImaPolicy| policy.compare(entries[1].file(), entries[1].path());
    assert_eq!(compare(&policy(&allowed)), policy::Comparison::Allowed);
    assert_eq!(compare(&policy(&base)), policy::Comparison::Unknown);
}

/// Their template digests have 32 bytes, which no SHA-1 template has; and were they right, the algorithm would not be.
#[test]
fn lists_of_unknown_algorithms_are_refused() {
    for name in ["sm3_256", "unknown"] {
        let Some(text) = of(&format!("keylime/ima-log-{name}")) else {
            return;
        };
        let refused = binary_of_ascii(&text).unwrap_err();
        assert_eq!(refused.code(), "ima_template_hash", "{name}");
        let text = String::from_utf8(text).unwrap();
        let shorter: String = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                format!("10 {} {}\n", words[1].split_at(40).0, words[2..].join(" "))
            })
            .collect();
        let refused = binary_of_ascii(shorter.as_bytes()).unwrap_err();
        assert_eq!(refused.code(), "ima_algorithm", "{name}");
    }
}

#[test]
fn no_list_cut_or_altered_anywhere_makes_a_parser_panic() {
    let Some(text) = of("rust-keylime/ascii_runtime_measurements") else {
        return;
    };
    let text: Vec<u8> = text.into_iter().take(4000).collect();
    let binary =
        binary_of_ascii(&text[..text.iter().rposition(|byte| *byte == b'\n').unwrap()]).unwrap();
    for bytes in [text, binary] {
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 0xff;
            for input in [&bytes[..index], &bytes[index..], &altered] {
                let _ = parse_binary(input);
                let _ = window(input, 1, 300);
                let _ = binary_of_ascii(input);
            }
        }
    }
}
