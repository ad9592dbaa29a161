//! What to do at the node about a reason code of the cloud. The cloud's own advice stands beside its findings; this is
//! for refusals, which are a code and nothing else.

/// Codes by how they begin, the longest first where one begins another.
const ADVICE: [(&str, &str); 23] = [
    (
        "boot_log_missing",
        "the profile needs the firmware's event log: check [logs] boot in agent.toml and that the agent may read it",
    ),
    (
        "boot_log_replay_mismatch",
        "the event log is not what the TPM was told: it was altered, or is another boot's; compare with tpm2_eventlog",
    ),
    (
        "boot_log_other_boot",
        "the event log is of another boot: check [logs] boot in agent.toml",
    ),
    (
        "boot_log",
        "the event log is not one that firmware writes: check [logs] boot in agent.toml, then treat the machine as altered",
    ),
    (
        "boot_path",
        "what was booted cannot be told from the event log: update the firmware, or leave boot paths out of the profile",
    ),
    (
        "secure_boot",
        "switch Secure Boot on in the firmware's setup, restore its keys, reboot",
    ),
    (
        "profile_secure_boot",
        "switch Secure Boot on in the firmware's setup, restore its keys, reboot",
    ),
    (
        "ima_log_missing",
        "the profile needs the IMA list: boot with ima_policy=tcb ima_template=ima-ng ima_hash=sha256, check [logs] ima",
    ),
    (
        "ima_not_continued",
        "the IMA list is shorter than before or was rewritten: reboot; if it comes again, treat the machine as altered",
    ),
    (
        "ima_template",
        "boot with ima_template=ima-ng or ima_template=ima-sig",
    ),
    (
        "ima_file",
        "a file was run or read that the profile's list does not allow: edgeward node show names it; remove it and reboot",
    ),
    (
        "ima_violation",
        "a file was changed while it was measured: reboot, or have the profile ignore violations",
    ),
    (
        "ima",
        "the IMA list does not match the TPM: reboot; if it comes again, treat the machine as altered",
    ),
    (
        "log_pending",
        "the first challenge of the session brings the logs: wait a minute",
    ),
    (
        "clock",
        "set the machine's clock (timedatectl, chronyc makestep): it must not run behind the cloud's",
    ),
    (
        "profile_pcr",
        "the machine did not boot what the profile says: on the operator's machine, edgeward profile diff shows the difference",
    ),
    (
        "profile_firmware",
        "the TPM's firmware is one that the profile refuses: update it",
    ),
    (
        "profile_tier",
        "the profile asks for a better root of trust than this machine has",
    ),
    (
        "quote",
        "the TPM's answer was not taken: restart the agent; if it comes again, suspect a copy of this node",
    ),
    (
        "certify",
        "the TPM's answer was not taken: restart the agent; if it comes again, enrol again",
    ),
    (
        "ek",
        "the endorsement key is not trusted: on the operator's machine, edgeward ek-roots list",
    ),
    (
        "join",
        "another machine speaks with this node's state: both are held until an operator has looked",
    ),
    (
        "software",
        "the key file in the state folder is not the one that enrolled: enrol again",
    ),
];
const ELSE: &str =
    "on the operator's machine: edgeward node show, and edgeward audit query --verdict deny";

/// One line for people.
pub(super) fn on_refusal(code: &str) -> &'static str {
    ADVICE
        .iter()
        .find(|(begin, _)| code.starts_with(begin))
        .map_or(ELSE, |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_advice_can_be_reached_and_an_unknown_code_has_one_too() {
        for (begin, advice) in ADVICE {
            assert_eq!(
                on_refusal(begin),
                advice,
                "{begin} is hidden by an earlier one"
            );
        }
        assert_eq!(on_refusal("something_new"), ELSE);
        assert_eq!(on_refusal(""), ELSE);
    }
}
