//! Reasons as people need them: what is wrong, where, what would be right, what to do.

use serde::{Deserialize, Serialize};

/// Most accepted values that are listed in one finding.
pub const MAX_EXPECTED: usize = 8;

/// One thing that is not as a profile says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Stable reason code.
    pub code: String,
    pub pcr: Option<u8>,
    /// Which event of which log, as people name it; may be empty.
    pub event: String,
    pub found: String,
    /// What would have been right, at most [`MAX_EXPECTED`] of it; may be empty.
    pub expected: Vec<String>,
    /// What to do about it, in one sentence.
    pub advice: String,
}

impl Finding {
    pub(super) fn new(code: &str, found: impl Into<String>, advice: &str) -> Self {
        Self {
            code: code.to_owned(),
            pcr: None,
            event: String::new(),
            found: found.into(),
            expected: Vec::new(),
            advice: advice.to_owned(),
        }
    }

    pub(super) fn at(mut self, pcr: u8) -> Self {
        self.pcr = Some(pcr);
        self
    }

    pub(super) fn event(mut self, event: String) -> Self {
        self.event = event;
        self
    }

    pub(super) fn expected(mut self, values: impl IntoIterator<Item = String>) -> Self {
        self.expected = values.into_iter().take(MAX_EXPECTED).collect();
        self
    }
}
