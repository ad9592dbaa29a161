//! Answers as they come: from the contract's messages.

use edgeward_evidence::tpm::{ClockInfo, PcrSelection, PcrValue};
use edgeward_evidence::verify::{AttestEvidence, QuoteEvidence, SignedAttest, SvidProof};
use edgeward_identity::Timestamp;
use edgeward_wire::v1;

use super::judge::Refusal;
use crate::store::results::Counters;

/// An answer, parsed as far as the contract goes. Structures inside are judged later.
#[derive(Clone, Debug)]
pub struct Answer {
    pub root: Root,
    pub logs: v1::Logs,
    /// As the agent says.
    pub app_control: String,
    /// The node's own clock.
    pub time: Timestamp,
}

/// What proves where it comes from.
#[derive(Clone, Debug)]
pub enum Root {
    Tpm(AttestEvidence),
    /// A signature by the SVID key.
    Software(Vec<u8>),
}

impl Answer {
    pub fn from_wire(message: v1::AttestEvidence) -> Result<Self, Refusal> {
        Ok(Self {
            root: Root::from_wire(message.root.ok_or(Refusal::Incomplete)?)?,
            logs: message.logs.unwrap_or_default(),
            app_control: message.app_control,
            time: Timestamp::from_millis(message.time),
        })
    }
}

impl Root {
    fn from_wire(root: v1::attest_evidence::Root) -> Result<Self, Refusal> {
        use v1::attest_evidence::Root;
        match root {
            Root::Software(proof) => Ok(Self::Software(proof.signature)),
            Root::Tpm(evidence) => {
                let quote = quote_from_wire(evidence.quote.ok_or(Refusal::Incomplete)?)?;
                let svid = match evidence.svid_public.is_empty() {
                    true => SvidProof::Current,
                    false => SvidProof::Renewed {
                        public: evidence.svid_public,
                        certify: SignedAttest {
                            attest: evidence.certify_attest,
                            signature: evidence.certify_signature,
                        },
                    },
                };
                Ok(Self::Tpm(AttestEvidence { svid, quote }))
            }
        }
    }
}

/// A quote from the contract's message.
pub(crate) fn quote_from_wire(quote: v1::Quote) -> Result<QuoteEvidence, Refusal> {
    let pcr_values = quote
        .pcrs
        .into_iter()
        .map(|pcr| {
            Ok(PcrValue {
                index: u8::try_from(pcr.index).map_err(|_| Refusal::Incomplete)?,
                value: pcr.digest,
            })
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    Ok(QuoteEvidence {
        quote: SignedAttest {
            attest: quote.attest,
            signature: quote.signature,
        },
        pcr_values,
    })
}

/// A selection as the contract says it.
pub(crate) fn selection_to_wire(selection: &PcrSelection) -> v1::PcrSelection {
    v1::PcrSelection {
        bank: u32::from(selection.bank().hash().id()),
        indexes: selection.indexes().map(u32::from).collect(),
    }
}

impl From<ClockInfo> for Counters {
    fn from(clock: ClockInfo) -> Self {
        Self {
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            clock: clock.clock_ms,
            safe: clock.safe,
        }
    }
}

impl From<Counters> for ClockInfo {
    fn from(counters: Counters) -> Self {
        Self {
            clock_ms: counters.clock,
            reset_count: counters.reset_count,
            restart_count: counters.restart_count,
            safe: counters.safe,
        }
    }
}
