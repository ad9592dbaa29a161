//! `edgeward-agent quote`: the PCRs of this machine, signed by its AK. What a profile of the policy is written from.

use clap::Args;
use edgeward_evidence::tpm::{PcrBank, PcrSelection};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::check::borrow_tpm;
use super::{Failure, Session};
use crate::root::RootError;
use crate::tpm::{PcrRequest, Priority, Quoted, quote};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward-agent quote                             firmware, boot loader, secure boot: PCR 0 to 7
  edgeward-agent quote --pcrs 0,2,4,7,11 -o json   with the signed structure, for other verifiers";

/// Sets these quotes apart from every piece of evidence: no cloud takes one for an answer to its challenge.
const LABEL: &[u8] = b"edgeward operator quote v1\n";
/// Longest nonce, in bytes.
const MAX_NONCE_BYTES: usize = 64;
const DRAWN_BYTES: usize = 16;

/// `edgeward-agent quote`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Which PCRs of the SHA-256 bank
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,1,2,3,4,5,6,7",
        value_name = "INDEX,..."
    )]
    pub pcrs: Vec<u8>,
    /// Freshness for whoever verifies it, in hex; drawn if not given
    #[arg(long, value_name = "HEX")]
    pub nonce: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    nonce: String,
    /// SHA-256 of label and nonce: the quote's qualifying data.
    qualifying_data: String,
    pcrs: Vec<Pcr>,
    reset_count: u32,
    restart_count: u32,
    /// `TPMS_ATTEST` and `TPMT_SIGNATURE`.
    attest: String,
    signature: String,
    /// `TPMT_PUBLIC`.
    ak_public: String,
}

#[derive(Serialize)]
struct Pcr {
    index: u8,
    sha256: String,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let tpm = session.config.tpm.as_ref().ok_or(Failure::NoTpm)?;
    let selection = PcrSelection::new(PcrBank::Sha256, arguments.pcrs.iter().copied())?;
    let nonce = nonce(arguments.nonce.as_deref())?;
    let request = PcrRequest {
        selection,
        qualifying_data: qualifying_data(&nonce),
    };
    let root = borrow_tpm(&session.config, tpm).await?;
    let quoted = root
        .tpm()
        .call(Priority::Session, move |device| {
            quote::quote(device, &request)
        })
        .await
        .map_err(RootError::from)?;
    let shown = Shown::new(&nonce, &quoted, root.ak_public());
    session.screen.answer(&shown, text);
    Ok(())
}

impl Shown {
    fn new(nonce: &[u8], quoted: &Quoted, ak_public: &[u8]) -> Self {
        Self {
            nonce: hex::encode(nonce),
            qualifying_data: hex::encode(qualifying_data(nonce)),
            pcrs: quoted
                .pcrs
                .iter()
                .map(|pcr| Pcr {
                    index: pcr.index,
                    sha256: hex::encode(&pcr.value),
                })
                .collect(),
            reset_count: quoted.reset_count,
            restart_count: quoted.restart_count,
            attest: hex::encode(&quoted.attest),
            signature: hex::encode(&quoted.signature),
            ak_public: hex::encode(ak_public),
        }
    }
}

fn text(shown: &Shown) -> String {
    let mut lines = vec!["PCR  SHA-256".to_owned()];
    lines.extend(
        shown
            .pcrs
            .iter()
            .map(|pcr| format!("{:<3}  {}", pcr.index, pcr.sha256)),
    );
    lines.push(format!(
        "quoted by the tpm; resets {}, restarts {}",
        shown.reset_count, shown.restart_count
    ));
    lines.join("\n")
}

fn nonce(given: Option<&str>) -> Result<Vec<u8>, Failure> {
    let Some(text) = given else {
        let mut drawn = vec![0; DRAWN_BYTES];
        SystemRandom::new()
            .fill(&mut drawn)
            .map_err(|_| Failure::Random)?;
        return Ok(drawn);
    };
    match hex::decode(text) {
        Ok(nonce) if (1..=MAX_NONCE_BYTES).contains(&nonce.len()) => Ok(nonce),
        _ => Err(Failure::Usage(format!(
            "--nonce: not 1 to {MAX_NONCE_BYTES} bytes in hex"
        ))),
    }
}

fn qualifying_data(nonce: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(LABEL);
    context.update(nonce);
    let mut data = [0; 32];
    data.copy_from_slice(context.finish().as_ref());
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_that_is_none_is_refused() {
        for text in ["", "0", "zz", &"00".repeat(MAX_NONCE_BYTES + 1)] {
            assert!(
                matches!(nonce(Some(text)), Err(Failure::Usage(_))),
                "{text}"
            );
        }
        assert_eq!(nonce(Some("00ff")).unwrap(), [0, 0xff]);
        assert_eq!(nonce(None).unwrap().len(), DRAWN_BYTES);
    }
}
