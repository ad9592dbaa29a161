//! What a list says of its machine, as far as it was followed.

use super::policy::Comparison;
use super::state::ImaState;
use super::{BOOT_AGGREGATE, ImaEntry, ImaPolicy, ImaRefused, Violations, escaped};
use crate::digest::Digest;
use crate::tpm::PcrBank;

/// Most refused files that are kept by name; the rest are counted.
pub const MAX_REFUSED_FILES: usize = 16;

/// A node's list since its boot, replayed and judged by one policy. Once a file was refused it stays so until the
/// machine reboots: it did run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaVerdict {
    policy: Digest,
    state: ImaState,
    refused: u64,
    files: Vec<RefusedFile>,
}

/// A measurement that the policy does not let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// Which entry of the list, from 0.
    pub entry: u64,
    pub fault: FileFault,
    /// Escaped. Not covered by anything in a violation.
    pub path: String,
    /// `algorithm:hex`.
    pub digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileFault {
    NotAllowed,
    OtherPath,
    Denied,
    Violation,
}

impl ImaVerdict {
    /// Before the first entry after a boot.
    pub fn new(bank: PcrBank, policy: &ImaPolicy) -> Self {
        Self {
            policy: policy.hash(),
            state: ImaState::new(bank),
            refused: 0,
            files: Vec::new(),
        }
    }

    /// Replays and judges `entries`, the first of which is number `first` of the list, until PCR 10 is `quoted`. Entries
    /// after that were measured after the quote: they are left for the next answer. A node reads its list after
    /// the quote, so that what the quote covers is in it.
    ///
    /// The value may not be reached: more entries are to come, or the list is not what the TPM saw. Then
    /// [`ImaVerdict::reached`] is false, and [`crate::appraise`] lets nothing pass.
    pub fn follow(
        &self,
        first: u64,
        entries: &[ImaEntry<'_>],
        quoted: &[u8],
        policy: &ImaPolicy,
    ) -> Result<Self, ImaRefused> {
        if self.policy != policy.hash() {
            return Err(ImaRefused::OtherPolicy);
        }
        if first != self.state.entries() {
            return Err(ImaRefused::NotContinued {
                known: self.state.entries(),
                first,
            });
        }
        let mut next = self.clone();
        for entry in entries {
            if next.reached(quoted) {
                break;
            }
            let index = next.state.entries();
            next.state.step(entry)?;
            next.judge(index, entry, policy);
        }
        Ok(next)
    }

    /// Whether the entries followed so far give this value of PCR 10, and are therefore all there were at the quote.
    pub fn reached(&self, quoted: &[u8]) -> bool {
        self.state.matches(quoted)
    }

    /// How many entries are known: what a node need not send again.
    pub fn known(&self) -> u64 {
        self.state.entries()
    }

    pub fn state(&self) -> &ImaState {
        &self.state
    }

    /// Hash of the policy that it was judged by.
    pub fn policy(&self) -> &Digest {
        &self.policy
    }

    /// How many measurements the policy did not let pass.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The first [`MAX_REFUSED_FILES`] of them.
    pub fn files(&self) -> &[RefusedFile] {
        &self.files
    }

    fn judge(&mut self, index: u64, entry: &ImaEntry<'_>, policy: &ImaPolicy) {
        let fault = if entry.is_violation() {
            match policy.violations() {
                Violations::Ignore => return,
                Violations::Fail => FileFault::Violation,
            }
        } else if index == 0 && entry.path() == BOOT_AGGREGATE {
            // Over PCRs that are quoted themselves, and no file.
            return;
        } else {
            match policy.compare(entry.file(), entry.path()) {
                Comparison::Allowed => return,
                Comparison::Unknown => FileFault::NotAllowed,
                Comparison::OtherPath => FileFault::OtherPath,
                Comparison::Denied => FileFault::Denied,
            }
        };
        self.refused += 1;
        if self.files.len() < MAX_REFUSED_FILES {
            self.files.push(RefusedFile {
                entry: index,
                fault,
                path: escaped(entry.path()),
                digest: entry.file().to_string(),
            });
        }
    }
}
