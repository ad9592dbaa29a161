//! Answers to challenges, made beside the session so that nothing waits for the TPM or for a file.

use std::sync::Arc;

use edgeward_evidence::Exporter;
use edgeward_evidence::tpm::{Attest, PcrBank};
use edgeward_identity::{PublicKey, SpiffeId, Timestamp};
use edgeward_wire::v1;
use ring::digest::{Context, SHA256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::apps::guard::GuardState;
use crate::apps::level;
use crate::apps::measure::Measure;
use crate::clock::NodeClock;
use crate::logs::{IMA_PCR, LogReader, QuotedIma};
use crate::root::{Conversation, Root, RootError, nonce_of};
use crate::state::SignedTime;
use crate::tpm::SvidSlot;

/// Most answers under way: a challenge and its repetition.
const MAX_ANSWERS: usize = 2;

/// What answers are made from.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) root: Arc<dyn Root>,
    pub(super) logs: Arc<LogReader>,
    pub(super) measure: Measure,
    pub(super) clock: Arc<NodeClock>,
    pub(super) boot_key: PublicKey,
    pub(super) node: SpiffeId,
    pub(super) guard: Option<watch::Receiver<GuardState>>,
    pub(super) exporter: Exporter,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) evidence: v1::AttestEvidence,
    /// The cloud's time beside the TPM's clock, where both are known.
    pub(super) moment: Option<SignedTime>,
}

/// The answers under way on one connection.
pub(super) struct Answers {
    sources: Sources,
    under_way: JoinSet<Result<Made, RootError>>,
}

impl Answers {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            under_way: JoinSet::new(),
        }
    }

    /// Begins an answer.
    pub(super) fn challenge(&mut self, slot: SvidSlot, challenge: v1::AttestChallenge) {
        if self.under_way.len() >= MAX_ANSWERS {
            tracing::warn!("a challenge is left out: earlier ones are still being answered");
            return;
        }
        self.under_way
            .spawn(self.sources.clone().answer(slot, challenge));
    }

    /// The next answer that is ready; waits for ever while none is under way.
    pub(super) async fn next(&mut self) -> Result<Made, RootError> {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => tracing::error!(%error, "answering a challenge ended early"),
                None => std::future::pending().await,
            }
        }
    }
}

impl Sources {
    async fn answer(
        self,
        slot: SvidSlot,
        challenge: v1::AttestChallenge,
    ) -> Result<Made, RootError> {
        let talk = Conversation {
            trust_domain: self.node.trust_domain().clone(),
            exporter: self.exporter,
            nonce: nonce_of(&challenge.nonce)?,
            boot_key: self.boot_key,
        };
        // Before the quote: the floor that follows from the pair must not be late.
        let signed = self.clock.signed();
        let mut root = self
            .root
            .attest(slot, &self.node, &talk, &challenge)
            .await?;
        let moment = signed.and_then(|time| moment_of(&root, time));
        let logs = match challenge.logs.clone() {
            Some(wanted) => {
                let apps = self.read_apps(&wanted, &root).await;
                let ima = quoted_ima(&root, &challenge);
                Some(v1::Logs {
                    apps,
                    ..self.read_logs(wanted, ima).await?
                })
            }
            None => None,
        };
        leave_out_known(&mut root, &challenge.pcrs_known);
        let evidence = v1::AttestEvidence {
            nonce: challenge.nonce,
            root: Some(root),
            logs,
            app_control: self.app_control(),
            time: self.clock.wall().millis(),
        };
        Ok(Made { evidence, moment })
    }

    /// After the quote, so that the log holds all that the quoted PCR covers.
    async fn read_apps(
        &self,
        wanted: &v1::LogsWanted,
        root: &v1::attest_evidence::Root,
    ) -> Option<v1::AppsPart> {
        let pcr = wanted.apps_pcr_plus_one.checked_sub(1)?;
        let quoted = &quote_of(root)?.pcrs;
        let quoted = quoted.iter().find(|quoted| quoted.index == pcr)?;
        let pcr = u8::try_from(pcr).ok()?;
        let part = self.measure.part(pcr, wanted.apps_known, &quoted.digest);
        let part = part.await;
        metrics::counter!("edgeward_log_bytes_sent_total", "log" => "apps")
            .increment(u64::try_from(part.records.len()).unwrap_or(u64::MAX));
        Some(part)
    }

    /// As it is at this moment, not as it was when the guard came.
    fn app_control(&self) -> String {
        let word = |guard: &watch::Receiver<GuardState>| level::word(&guard.borrow());
        self.guard.as_ref().map_or("", word).to_owned()
    }

    async fn read_logs(
        &self,
        wanted: v1::LogsWanted,
        quoted: Option<QuotedIma>,
    ) -> Result<v1::Logs, RootError> {
        let logs = self.logs.clone();
        let read = tokio::task::spawn_blocking(move || logs.read(&wanted, quoted.as_ref()))
            .await
            .map_err(|_| RootError::Logs)?;
        let boot = read.boot.as_ref().map_or(0, |boot| boot.log.len());
        let ima = read.ima.as_ref().map_or(0, |ima| ima.entries.len());
        for (log, bytes) in [("boot", boot), ("ima", ima)] {
            metrics::counter!("edgeward_log_bytes_sent_total", "log" => log)
                .increment(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        Ok(read)
    }
}

fn quote_of(root: &v1::attest_evidence::Root) -> Option<&v1::Quote> {
    match root {
        v1::attest_evidence::Root::Tpm(tpm) => tpm.quote.as_ref(),
        v1::attest_evidence::Root::Software(_) => None,
    }
}

/// What the quote says of PCR 10, if it is asked for.
fn quoted_ima(
    root: &v1::attest_evidence::Root,
    challenge: &v1::AttestChallenge,
) -> Option<QuotedIma> {
    let bank = u16::try_from(challenge.pcr_selection.as_ref()?.bank).ok()?;
    let pcr = quote_of(root)?
        .pcrs
        .iter()
        .find(|pcr| pcr.index == IMA_PCR)?;
    Some(QuotedIma {
        bank: PcrBank::from_id(bank).ok()?,
        value: pcr.digest.clone(),
    })
}

fn moment_of(root: &v1::attest_evidence::Root, time: Timestamp) -> Option<SignedTime> {
    let attest = Attest::parse(&quote_of(root)?.attest).ok()?;
    Some(SignedTime {
        time,
        tpm: attest.clock,
    })
}

/// Values that the cloud knows by the quote's digest need not be sent.
fn leave_out_known(root: &mut v1::attest_evidence::Root, known: &[u8]) {
    let v1::attest_evidence::Root::Tpm(tpm) = root else {
        return;
    };
    let Some(quote) = &mut tpm.quote else {
        return;
    };
    let mut context = Context::new(&SHA256);
    for pcr in &quote.pcrs {
        context.update(&pcr.digest);
    }
    if context.finish().as_ref() == known {
        quote.pcrs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tpm(pcrs: &[(u32, u8)]) -> v1::attest_evidence::Root {
        let pcrs = pcrs.iter().map(|(index, byte)| v1::PcrValue {
            index: *index,
            digest: vec![*byte; 32],
        });
        v1::attest_evidence::Root::Tpm(v1::TpmEvidence {
            quote: Some(v1::Quote {
                pcrs: pcrs.collect(),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn sent(root: &v1::attest_evidence::Root) -> usize {
        quote_of(root).unwrap().pcrs.len()
    }

    #[test]
    fn pcr_values_are_left_out_only_where_the_cloud_knows_the_very_same() {
        let known = ring::digest::digest(&SHA256, &[[1; 32], [2; 32]].concat());
        let cases = [
            (vec![(0, 1), (4, 3)], known.as_ref(), 2),
            (vec![(0, 1)], known.as_ref(), 1),
            (vec![(0, 1), (4, 2)], &[], 2),
            (vec![(0, 1), (4, 2)], known.as_ref(), 0),
        ];
        for (pcrs, known, left) in cases {
            let mut root = tpm(&pcrs);
            leave_out_known(&mut root, known);
            assert_eq!(sent(&root), left, "{pcrs:?}");
        }
    }

    #[test]
    fn the_ima_list_is_cut_by_the_quoted_pcr_10_and_by_no_other() {
        let challenge = |bank| v1::AttestChallenge {
            pcr_selection: Some(v1::PcrSelection {
                bank,
                indexes: Vec::new(),
            }),
            ..Default::default()
        };
        assert_eq!(quoted_ima(&tpm(&[(11, 7)]), &challenge(0x000b)), None);
        assert_eq!(quoted_ima(&tpm(&[(10, 7)]), &challenge(0x0004)), None);
        let quoted = quoted_ima(&tpm(&[(9, 1), (10, 7)]), &challenge(0x000b)).unwrap();
        assert_eq!((quoted.bank, quoted.value), (PcrBank::Sha256, vec![7; 32]));
    }
}
