//! What the cloud last said of this node's evidence, for the people at the node. Decides nothing.

use edgeward_identity::Timestamp;
use edgeward_wire::v1;
use serde::{Deserialize, Serialize};

/// Most findings kept.
const MAX_FINDINGS: usize = 32;
/// Most expected values kept of one finding.
const MAX_EXPECTED: usize = 16;
/// Longest text kept of one field, in characters as shown.
const MAX_TEXT_CHARS: usize = 400;

/// The newest outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When it came; none before the first of this start of the agent.
    pub at: Option<Timestamp>,
    pub refusal: Option<Refusal>,
    pub findings: Vec<Finding>,
}

/// Evidence that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The cloud's reason code.
    pub code: String,
    /// When the first of this code in a row came.
    pub since: Timestamp,
}

/// One thing that is not as the profile says. All texts can be shown as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub code: String,
    pub pcr: Option<u8>,
    /// Which event of which log; may be empty.
    pub event: String,
    pub found: String,
    pub expected: Vec<String>,
    /// What to do about it.
    pub advice: String,
    /// None where the cloud does not say.
    pub since: Option<Timestamp>,
    /// Recorded only: the profile monitors.
    pub monitored: bool,
}

impl Outcome {
    /// What `wire` says, after what was said before.
    pub fn after(&self, wire: &v1::AttestOutcome, now: Timestamp) -> Self {
        let refusal = wire.refused.as_ref().map(|refused| {
            let code = shown(&refused.code);
            let since = self
                .refusal
                .as_ref()
                .filter(|before| before.code == code)
                .map_or(now, |before| before.since);
            Refusal { code, since }
        });
        Self {
            at: Some(now),
            refusal,
            findings: wire
                .findings
                .iter()
                .take(MAX_FINDINGS)
                .map(Finding::from_wire)
                .collect(),
        }
    }
}

impl Finding {
    fn from_wire(wire: &v1::Finding) -> Self {
        Self {
            code: shown(&wire.code),
            pcr: wire
                .pcr_plus_one
                .checked_sub(1)
                .and_then(|pcr| u8::try_from(pcr).ok()),
            event: shown(&wire.event),
            found: shown(&wire.found),
            expected: wire
                .expected
                .iter()
                .take(MAX_EXPECTED)
                .map(|value| shown(value))
                .collect(),
            advice: shown(&wire.advice),
            since: (wire.since != 0).then(|| Timestamp::from_millis(wire.since)),
            monitored: wire.monitored,
        }
    }
}

/// Bounded, and without what moves a terminal's cursor or turns its text around: parts of it come from firmware and
/// file names.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, char) in text.chars().enumerate() {
        if count >= MAX_TEXT_CHARS {
            shown.push('…');
            break;
        }
        match char {
            // Marks of direction, joiners, line and paragraph separators (Unicode 15, 23.2).
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {
                shown.extend(char.escape_unicode());
            }
            char if char.is_control() => shown.extend(char.escape_default()),
            char => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> v1::AttestOutcome {
        v1::AttestOutcome {
            refused: Some(v1::Refused {
                code: code.to_owned(),
                retry_seconds: 0,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_log_says_cannot_write_on_the_screen() {
        let finding = v1::Finding {
            code: "boot_application".to_owned(),
            event: "\u{1b}[2J/EFI/\u{202e}BOOT\r\n".to_owned(),
            found: "x".repeat(100_000),
            expected: vec!["a\0".to_owned(); 1000],
            ..Default::default()
        };
        let wire = v1::AttestOutcome {
            findings: vec![finding; 1000],
            ..Default::default()
        };
        let outcome = Outcome::default().after(&wire, Timestamp::from_secs(1));
        assert_eq!(outcome.findings.len(), MAX_FINDINGS);
        let finding = outcome.findings.first().unwrap();
        assert_eq!(finding.event, "\\u{1b}[2J/EFI/\\u{202e}BOOT\\r\\n");
        assert_eq!(finding.found.chars().count(), MAX_TEXT_CHARS + 1);
        assert_eq!(finding.expected, vec!["a\\u{0}"; MAX_EXPECTED]);
        assert_eq!((finding.pcr, finding.since), (None, None));
    }

    #[test]
    fn a_refusal_is_as_old_as_the_first_of_its_code_in_a_row() {
        let at = Timestamp::from_secs;
        let first = Outcome::default().after(&refused("boot_log_missing"), at(10));
        let second = first.after(&refused("boot_log_missing"), at(20));
        assert_eq!(second.refusal.as_ref().unwrap().since, at(10));
        let other = second.after(&refused("nonce"), at(30));
        assert_eq!(other.refusal.as_ref().unwrap().since, at(30));
        let passed = other.after(&v1::AttestOutcome::default(), at(40));
        assert_eq!((passed.refusal.clone(), passed.at), (None, Some(at(40))));
        let again = passed.after(&refused("nonce"), at(50));
        assert_eq!(again.refusal.unwrap().since, at(50));
    }
}
