//! What to do about an application that a node does not run: by the code that the node gives. The agent says it on the
//! machine, the cloud's commands beside what nodes tell.

/// Codes with what to do about them, in the order of the alphabet.
const ADVICE: &[(&str, &str)] = &[
    (
        "agent-held",
        "See why the node is granted nothing (`edgeward-agent status`): until it is, nothing new runs there.",
    ),
    (
        "app-denied",
        "Nothing, if it was meant: it was revoked or the policy denies it. Else publish another version, without what is denied.",
    ),
    (
        "app-expired",
        "Bring the node on line: the director's word, or the repository's metadata, under which it was to be installed has ended.",
    ),
    (
        "app-image-unsigned",
        "Have the image signed with the keys that the policy names (`[publisher.x] cosign`), and release it with that signature as another version.",
    ),
    (
        "app-not-allowed",
        "If it belongs there, allow it for a group of the node: `allow` in `[apps.x]` of the policy.",
    ),
    (
        "app-not-assigned",
        "Nothing, if it was meant: no `install` of the policy names it for this node any more.",
    ),
    (
        "app-not-running",
        "See how it ended (`edgeward audit query --type app.ended --node NODE`) and what it said (the agent's log); it is tried again, up to once a minute.",
    ),
    (
        "app-rollback",
        "Publish a higher version, or order `edgeward app back`: a node goes below nothing that it had by itself.",
    ),
    (
        "app-rules",
        "Join or remove rules of `[apps.x]` in the policy: this node has more of them than it may.",
    ),
    (
        "app-too-old",
        "Publish a version that the rule allows, or lower `min_version` in `[apps.x]` of the policy.",
    ),
    (
        "app-unproven",
        "See the reason (`edgeward-agent apps list`): cloud and publisher must name the same bytes, so sign again and publish what the image role and the policy both know.",
    ),
    (
        "apps-disk",
        "Look at the node's disks and its log: what was fetched or installed could not be written or read.",
    ),
    (
        "apps-full",
        "Make room: a larger volume (`edgeward-agent apps volume --mebibytes`), space on the disk of the state folder, or a higher `store_bytes` in [apps] of agent.toml.",
    ),
    (
        "apps-no-root",
        "Give the node its first root: `root` in [apps] of agent.toml, or `[apps_root] sha256` in the policy, the digest of the file with all its signatures.",
    ),
    (
        "apps-no-source",
        "Bring the node on line, or carry what it needs there: `edgeward app export`, `edgeward-agent apps import`.",
    ),
    (
        "apps-paced",
        "Wait a minute: releases follow each other faster than the TPM's counter may be raised. What is ready lies whole on the node.",
    ),
    (
        "apps-unordered",
        "Bring the node on line: it has no word of the director or no policy yet.",
    ),
    (
        "apps-unreachable",
        "Bring the node on line, or carry what it needs there: `edgeward app export`, `edgeward-agent apps import`. If it is on line, publish again: content may be missing.",
    ),
    (
        "apps-volume",
        "Mount the volume: `systemctl start edgeward-apps-volume`, or `edgeward-agent apps volume`; the reason says what is wrong with it.",
    ),
    (
        "chunk-missing",
        "Wait: it is fetched again. If it goes on, look at the disk of the node's state folder.",
    ),
    (
        "director-expired",
        "Bring the node on line: the director's word that it holds has ended.",
    ),
    (
        "director-rollback",
        "Bring a newer export: the director's word that came is older than the one the node holds.",
    ),
    (
        "guard-away",
        "Start the guard: `systemctl start edgeward-guard`; if it does not stay, its log says why.",
    ),
    (
        "journal",
        "Make room for the node's journal, or let it reach the cloud, which empties it: what is not recorded is not installed.",
    ),
    (
        "metadata-expired",
        "See whose signatures ended (`edgeward publisher list`) and have it signed anew; from a stick: export again. If nothing ended, set the node's clock.",
    ),
    (
        "metadata-malformed",
        "Ask another source, or make the file anew with this version of `edgeward publisher` or `edgeward app sign`.",
    ),
    (
        "metadata-missing",
        "Export again, all of it; if the cloud itself lacks it: `edgeward publisher submit`, `edgeward app publish`.",
    ),
    (
        "metadata-rollback",
        "Export again, if it came from a stick. From the cloud: its database was put back; submit the newest root, image role and releases again.",
    ),
    (
        "metadata-unproven",
        "Compare the node's root with the operators' (`root` in [apps], `[apps_root] sha256`); if they are the same, somebody changed the metadata on its way.",
    ),
    (
        "state-unwritable",
        "Look at the disk of the node's state folder and at its TPM: what cannot be remembered is not installed.",
    ),
];

/// What to do about a code that a node gives; `None`: nothing is known of it here.
pub fn advice(code: &str) -> Option<&'static str> {
    ADVICE
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, advice)| *advice)
}

/// Every code that there is advice for.
pub fn codes() -> impl Iterator<Item = &'static str> {
    ADVICE.iter().map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NotAdmitted;
    use crate::name::{AppName, Version};

    #[test]
    fn every_reason_not_to_admit_has_advice_and_an_unknown_code_has_none() {
        assert_eq!(advice(""), None);
        assert_eq!(advice("app-"), None);
        let app: AppName = "acme/collector".parse().unwrap();
        let version: Version = "1.0".parse().unwrap();
        let refusals = [
            NotAdmitted::TooManyRules,
            NotAdmitted::NotAllowed(app.clone(), version.clone()),
            NotAdmitted::TooOld {
                app: app.clone(),
                version: version.clone(),
                least: version.clone(),
            },
            NotAdmitted::Denied(String::new()),
            NotAdmitted::Rollback {
                app,
                version: version.clone(),
                highest: version,
            },
            NotAdmitted::DirectorRollback {
                number: 1,
                highest: 2,
            },
            NotAdmitted::Expired,
        ];
        for refused in refusals {
            assert!(advice(refused.code()).is_some(), "{}", refused.code());
        }
    }

    #[test]
    fn the_table_is_sorted_and_each_line_is_one_that_people_read() {
        assert!(ADVICE.is_sorted_by(|(one, _), (other, _)| one < other));
        for (code, advice) in ADVICE {
            assert!(advice.ends_with('.') && advice.len() < 200, "{code}");
        }
    }
}
