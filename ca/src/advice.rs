//! What to do about a refusal, by its code. Findings have advice of their own that knows more; this is for everything
//! that evidence, enrolment and sessions are refused for.

/// Said of a code that has no entry: none that the cloud gives out.
const UNKNOWN: &str = "Look for the code in the audit log: `edgeward audit query`.";

/// Codes with something of their own to say.
const EXACT: &[(&str, &str)] = &[
    // Attestation states.
    (
        "silent",
        "Bring the node back on line; if it is, look at its agent: `edgeward-agent status`.",
    ),
    (
        "challenge_unanswered",
        "Look at the node's agent and its TPM: `edgeward-agent status`.",
    ),
    (
        "challenge_unknown",
        "Nothing, if it happens once; if it goes on, update the agent and look at the node.",
    ),
    (
        "log_pending",
        "Wait: the node's logs are asked for as soon as its session is open.",
    ),
    (
        "evidence_incomplete",
        "Update the agent: it left out something that every answer has.",
    ),
    (
        "evidence_other_root",
        "The node's TPM was replaced: enrol it anew, or give the machine its TPM back.",
    ),
    (
        "evidence_other_subject",
        "Enrol the machine anew; if it happens again, update the agent.",
    ),
    (
        "certify_missing",
        "Update the agent: it did not prove its key when it was asked to.",
    ),
    (
        "profile_contradiction",
        "Correct the policy: profiles of the node's groups cannot all be met. `edgeward policy check`.",
    ),
    (
        "profile_mismatch",
        "See the findings: `edgeward node show`, `edgeward profile diff`.",
    ),
    // Comparisons.
    (
        "profile_tier",
        "Allow the tier in the profile, or give the node a TPM of an accepted tier.",
    ),
    (
        "profile_pcr_value",
        "If the change was planned, `edgeward profile propose` and apply it; if not, take the node out and look at it.",
    ),
    (
        "profile_firmware",
        "Update the TPM's firmware to a version that the profile does not refuse.",
    ),
    (
        "profile_secure_boot",
        "Turn Secure Boot on in the firmware's setup and reboot.",
    ),
    (
        "profile_app_control",
        "Raise the control of applications on the node; agents of this version report none.",
    ),
    (
        "apps_log_missing",
        "Update the agent: this version does not measure the applications that it runs.",
    ),
    (
        "apps_log_malformed",
        "Reboot the node; if it happens again, take it out and look at it: its log of applications is none.",
    ),
    (
        "apps_log_too_large",
        "Update the agent; if it happens again, take the node out and look at it.",
    ),
    (
        "apps_log_other_pcr",
        "Update the agent; if it happens again, take the node out and look at it.",
    ),
    (
        "apps_log_replay",
        "See what else extends the PCR that the profile names, and reboot the node; if nothing does, take it out and look at it.",
    ),
    (
        "apps_log_full",
        "Reboot the node: more happened to its applications since its boot than is measured.",
    ),
    (
        "runs_too_many",
        "Run fewer applications on the node, or such with shorter names: rules that ask what runs cannot be met.",
    ),
    (
        "boot_log_missing",
        "Let the agent read the firmware's event log: `boot_log` in agent.toml.",
    ),
    (
        "boot_log_bank_absent",
        "Activate the profile's PCR bank in the firmware's setup, so that its log has it.",
    ),
    (
        "boot_log_replay_mismatch",
        "Treat the log as forged until shown otherwise: take the node out and look at it.",
    ),
    (
        "ima_log_missing",
        "Turn IMA on with a policy that measures, and let the agent read its list: `ima_log` in agent.toml.",
    ),
    (
        "ima_file_not_allowed",
        "If the file belongs there, add it to the allow list; if not, remove it and reboot the node.",
    ),
    (
        "ima_file_other_path",
        "The file is allowed elsewhere only: move it, or list it without a path.",
    ),
    (
        "ima_file_denied",
        "Replace the file by a version that is not denied, and reboot the node.",
    ),
    (
        "ima_violation",
        "Find out what wrote to the file while it was in use, and reboot the node.",
    ),
    (
        "ima_template",
        "Boot the node with ima_template=ima-ng or ima-sig.",
    ),
    (
        "ima_list_too_large",
        "Measure less (IMA's policy), or reboot the node: the list begins anew.",
    ),
    (
        "ima_allows_nothing",
        "Name at least one file in the profile's allow list.",
    ),
    ("ima_list_sha1", "Write the profile's lists with sha256."),
    (
        "ima_list_digest_length",
        "Correct the digest in the profile's list.",
    ),
    // Applications: what is published.
    (
        "metadata-malformed",
        "Make the file anew with this version of `edgeward publisher` or `edgeward app sign`.",
    ),
    (
        "metadata-threshold",
        "Have more holders of the role's keys sign: `edgeward publisher sign FILE --signer ...` says who is missing.",
    ),
    (
        "metadata-expired",
        "Sign it anew with a later end: `edgeward publisher root renew`, `edgeward publisher renew`, or `edgeward app sign --renew PUBLISHER`.",
    ),
    (
        "metadata-rollback",
        "Take a higher version than the one in force: `edgeward publisher list` and `edgeward app list` show it.",
    ),
    (
        "metadata-version",
        "A root follows by one: submit every root in between, in order.",
    ),
    (
        "metadata-mismatch",
        "Try again; if it happens again, look at the cloud's database: what it serves is not what it signed.",
    ),
    (
        "metadata-keys",
        "Correct the role's keys: each once, and no more signatures wanted than there are keys.",
    ),
    (
        "metadata-missing",
        "Submit in order: the root, the image role, then releases.",
    ),
    (
        "metadata-inconsistent",
        "Make the root with this version of `edgeward publisher root`: nodes want consistent snapshots.",
    ),
    (
        "metadata-full",
        "Withdraw what is not needed any more: there are limits to publishers and to releases of one.",
    ),
    (
        "online-key",
        "Name the cloud's key for timestamp and snapshot in the root: `edgeward publisher online-key`.",
    ),
    (
        "publisher-unknown",
        "Name the publisher in the image role: `edgeward publisher add`, sign and submit it.",
    ),
    (
        "publisher-threshold",
        "Have more of the publisher's holders sign; keys count that both the image role and the policy name.",
    ),
    (
        "manifest-malformed",
        "Sign the app anew with this version of `edgeward app sign`.",
    ),
    (
        "chunk-mismatch",
        "Publish again: bytes were changed on their way or on the disk they came from.",
    ),
    (
        "app-incomplete",
        "Publish again with `edgeward app publish`, which uploads what the cloud lacks.",
    ),
    (
        "app-release-changed",
        "Give the release a new version: one that was published never changes.",
    ),
    (
        "app-release-equal",
        "Give the release another version: 2.3 and 2.3.0 are one to nodes.",
    ),
    (
        "apps-full",
        "Withdraw releases, or raise `max_bytes` or `publisher_bytes` in [apps] of edgeward.toml.",
    ),
    ("apps-busy", "Try again."),
    (
        "apps-denied-full",
        "Deny the rest in the policy (`deny` in `[apps.x]`) or remove the publisher: revocations are kept for good, and there is a limit.",
    ),
    (
        "app-no-way-back",
        "See what nodes have (`edgeward app nodes`): back leads to the release that a node had before, once. Else publish a higher version.",
    ),
    // The TPM's clock and keys.
    (
        "clock_ahead",
        "Set the node's clock (NTP): it refuses others too early.",
    ),
    (
        "clock_unsafe",
        "Nothing, after a power cut: the next evidence passes. If it goes on, look at the TPM.",
    ),
    (
        "clock_not_advanced",
        "Evidence was repeated, or the TPM's clock stands still: take the node out and look at it.",
    ),
    (
        "pcr_bank_sha1",
        "Activate the SHA-256 bank in the TPM: SHA-1 proves nothing.",
    ),
    (
        "pcr_selection_mismatch",
        "Update the agent and activate the profile's PCR bank in the TPM.",
    ),
    // Enrolment.
    (
        "token_refused",
        "Make a new token: `edgeward token create`.",
    ),
    (
        "token_expired",
        "Make a new token: `edgeward token create`.",
    ),
    (
        "token_revoked",
        "Make a new token: `edgeward token create`.",
    ),
    (
        "token_used",
        "Make a new token, or one with more uses: `edgeward token create --uses`.",
    ),
    (
        "token_ek_mismatch",
        "The token is for another TPM: make one for this machine.",
    ),
    ("node_name_refused", "Use a name that the token allows."),
    (
        "node_name_missing",
        "Give the machine a name: `name` in agent.toml, or in the token.",
    ),
    (
        "node_name_taken",
        "Choose another name, or remove the node that has it: `edgeward node remove`.",
    ),
    (
        "ek_already_enrolled",
        "This TPM is enrolled under another name: remove that node first, or let it come back as itself.",
    ),
    (
        "node_attached",
        "The node is on line: if this is another machine, its identity was copied; quarantine it.",
    ),
    (
        "node_quarantined",
        "Find out why: `edgeward audit query --node`; then `edgeward node release`.",
    ),
    (
        "node_status",
        "An operator's word keeps it out: approve or release it, `edgeward node list` says which.",
    ),
    (
        "node_unknown",
        "The node was removed: enrol the machine anew with a token.",
    ),
    (
        "svid_unknown",
        "Its certificate is not one that the cloud knows: enrol the machine anew with a token.",
    ),
    (
        "tier_lower",
        "A name's tier never falls by itself: `edgeward node replace-tpm NAME --tier TIER` allows it, if the machine may have less.",
    ),
    (
        "tier_software",
        "Give the machine a TPM, or name tier software in the profile of its group.",
    ),
    (
        "svid_key_denied",
        "The key was taken from its node: enrol the machine anew.",
    ),
    (
        "fleet_full",
        "Remove nodes that are gone: `edgeward node remove`.",
    ),
    ("pending", "Approve it: `edgeward node approve`."),
    (
        "recoveries_used_up",
        "Let it back in by hand, once you know why it returns so often: `edgeward node approve`.",
    ),
    (
        "join_overtaken",
        "Nothing: a message of an earlier connection came late, and the agent comes back.",
    ),
    (
        "join_behind",
        "Two machines use one identity: find the copy and switch it off, then `edgeward node release`.",
    ),
    (
        "ek_not_listed",
        "If the machine is yours: `edgeward ek-roots allow`, with the EK's SHA-256 read on the machine.",
    ),
    (
        "ek_denied",
        "This TPM is refused by an operator: `edgeward ek-roots eks`.",
    ),
    (
        "ek_chain_untrusted",
        "Import its maker's certificates: `edgeward ek-roots import`.",
    ),
    (
        "ek_bad_der",
        "If its maker is known for it, accept this one certificate: `edgeward ek-roots lenient`.",
    ),
    (
        "ek_roca",
        "The key can be broken (ROCA): update the TPM's firmware and clear it, or replace it.",
    ),
    // Sessions.
    (
        "session_displaced",
        "Another session of this node passed; if nobody restarted it, its identity was copied.",
    ),
    (
        "session_not_passed",
        "See why its evidence is refused: `edgeward node show`.",
    ),
    (
        "session_flood",
        "Update the agent; if it goes on, quarantine the node.",
    ),
    ("cloud_shutdown", "Nothing: the agent comes back."),
    (
        "internal",
        "Look at the cloud's log: the fault is not the node's.",
    ),
    (
        "unavailable",
        "Wait, and look at the cloud's log if it goes on.",
    ),
];

/// Families of codes whose members ask for the same.
const BEGINNINGS: &[(&str, &str)] = &[
    (
        "boot_log_",
        "Treat the log as forged until shown otherwise; a firmware that writes wrong logs needs an update, or a profile without `secure_boot`.",
    ),
    (
        "secure_boot_",
        "Update the firmware, or compare PCR 7 in the profile in place of `secure_boot`.",
    ),
    (
        "boot_path_",
        "Update the firmware, or compare PCR 4 in the profile.",
    ),
    (
        "boot_",
        "Bring the node on line: a boot without the cloud counts only where it measured what it did before.",
    ),
    (
        "ima_",
        "Reboot the node; if it happens again, take the node out and look at it: its list is not what its TPM measured.",
    ),
    (
        "policy_",
        "Look at `edgeward policy history` and `edgeward policy stage status`, then apply again.",
    ),
    (
        "profile_",
        "Update the agent and activate the profile's PCR bank in the TPM.",
    ),
    (
        "pcr_",
        "Take the node out and look at it: the values are not what its TPM signed.",
    ),
    (
        "clock_",
        "The TPM counts backwards: evidence is old or of another TPM. Take the node out and look at it.",
    ),
    (
        "quote_",
        "Update the agent; if it goes on, take the node out: its evidence was made for something else or changed.",
    ),
    (
        "certify_",
        "Update the agent; if it goes on, take the node out: its evidence was made for something else or changed.",
    ),
    (
        "signature_",
        "Update the agent; if it goes on, take the node out and look at it.",
    ),
    (
        "software_",
        "Update the agent; if it goes on, take the node out and look at it.",
    ),
    (
        "ak_",
        "Update the agent: it made an attestation key that proves nothing.",
    ),
    (
        "svid_key_",
        "Update the agent: its identity's key is not one that stays in the TPM.",
    ),
    (
        "ek_roots_",
        "Correct the file of certificates: `edgeward ek-roots import` names what is wrong.",
    ),
    (
        "ek_",
        "This TPM's certificate proves nothing: import its maker's, or allow the EK by hand: `edgeward ek-roots`.",
    ),
    (
        "tpm_structure_",
        "Update the agent; if it goes on, look at its TPM.",
    ),
    (
        "attest_",
        "Update the agent; if it goes on, look at its TPM.",
    ),
    ("token_", "Make a new token: `edgeward token create`."),
    ("enrol_", "Try again; if it goes on, update the agent."),
    (
        "recover_",
        "Enrol the machine anew with a token: `edgeward token create`.",
    ),
    (
        "session_",
        "Nothing, if it happens once: the agent comes back. If it goes on, update the agent.",
    ),
    ("join_", "Update the agent."),
    (
        "result_",
        "Update the agent; if it goes on, look at the cloud's log.",
    ),
    (
        "signed_",
        "Update the agent, and compare the clocks of node and cloud.",
    ),
    (
        "random_",
        "Look at the cloud's log: the fault is not the node's.",
    ),
];

/// What to do about a code.
pub fn advice(code: &str) -> &'static str {
    known(code).unwrap_or(UNKNOWN)
}

/// What to do about a code that has an entry of its own: families fit what nodes are refused for, not every answer.
pub fn exact(code: &str) -> Option<&'static str> {
    let found = EXACT.iter().find(|(known, _)| *known == code);
    found.map(|(_, advice)| *advice)
}

fn known(code: &str) -> Option<&'static str> {
    let family = || BEGINNINGS.iter().find(|(start, _)| code.starts_with(start));
    exact(code).or_else(|| family().map(|(_, advice)| *advice))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// The sources whose refusals a node or its operator may see.
    const SOURCES: [&str; 7] = [
        "../evidence/src",
        "src/attest.rs",
        "src/attest",
        "src/enrol",
        "src/hub",
        "src/session.rs",
        "src/session",
    ];

    fn files(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_file() {
            let name = path.to_string_lossy();
            if name.ends_with(".rs") && !name.contains("test") {
                found.push(path.to_owned());
            }
            return;
        }
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    }

    /// Texts in quotes that look like codes.
    fn quoted(text: &str) -> impl Iterator<Item = &str> {
        text.split('"').skip(1).step_by(2).filter(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        })
    }

    /// What stands between the braces that open first.
    fn body(text: &str) -> &str {
        let mut depth = 0_usize;
        for (at, c) in text.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return text.get(..at).unwrap(),
                '}' => depth -= 1,
                _ => {}
            }
        }
        text
    }

    fn codes() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        for source in SOURCES {
            files(&root.join(source), &mut paths);
        }
        let mut codes = BTreeSet::new();
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for part in text.split("fn code(").skip(1) {
                codes.extend(quoted(body(part)).map(str::to_owned));
            }
            for part in text.split(".denied(\"").skip(1) {
                codes.insert(part.split('"').next().unwrap().to_owned());
            }
        }
        codes
    }

    #[test]
    fn every_code_that_a_publisher_or_operator_of_applications_may_see_has_advice() {
        let sources = [
            "../apps/src/image/codes.rs",
            "src/apps/refusal.rs",
            "src/api/director.rs",
        ];
        let codes = sources.map(|path| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            std::fs::read_to_string(path).unwrap()
        });
        let is_code = |word: &&str| {
            word.contains('-') && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-'))
        };
        let mut found = 0;
        for text in &codes {
            for code in text.split('"').skip(1).step_by(2).filter(is_code) {
                if code == "app-unproven" {
                    continue;
                }
                found += 1;
                assert!(exact(code).is_some(), "{code}");
            }
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn every_code_that_can_appear_has_advice() {
        let codes = codes();
        assert!(codes.len() > 150, "{}", codes.len());
        for known_one in ["quote_nonce_mismatch", "ima_violation", "silent"] {
            assert!(codes.contains(known_one), "{known_one}");
        }
        let without: Vec<&String> = codes.iter().filter(|code| known(code).is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
        assert_eq!(advice("no_such_code"), UNKNOWN);
    }

    #[test]
    fn no_entry_is_there_twice_or_hidden_by_another() {
        let mut seen = BTreeSet::new();
        for (code, advice) in EXACT {
            assert!(seen.insert(*code), "{code}");
            assert!(advice.ends_with('.') && advice.len() < 200, "{code}");
        }
        for (index, (start, _)) in BEGINNINGS.iter().enumerate() {
            let hidden = BEGINNINGS
                .iter()
                .take(index)
                .any(|(other, _)| start.starts_with(other));
            assert!(!hidden, "{start}");
        }
    }
}
