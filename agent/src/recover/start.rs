//! At the start: does what is stored still open, and is the key of the certificate still there? If not, the node comes
//! back before anything else begins, for without its identity it can do nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{Clock, Svid};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{Loss, NotBack, Pace, known_from};
use crate::boot::Boot;
use crate::enrol::{Attempt, Claim, Enrolment, Known, Progress};
use crate::root::{Root, RootError};
use crate::state::{Found, Origin, StateError, StateFolder, Stored};
use crate::status::{Answer, Request, Server, Sources};
use crate::tpm::{Priority, SvidSlot, TpmError};

/// A node whose identity is lost, and what it holds for its way back.
pub struct Lost {
    pub loss: Loss,
    pub known: Known,
    /// None: what was sealed does not open any more.
    stored: Option<Stored>,
}

/// What a recovery works with.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    pub state_dir: &'a Path,
    /// Addresses of the cloud instead of those stored; usually empty.
    pub cloud: &'a [String],
    pub root: &'a dyn Root,
    pub boot: &'a Boot,
    pub clock: &'a Arc<dyn Clock>,
}

/// Looks at what is stored. None: nothing is lost that would keep a node from starting, or it never was one.
pub async fn look(parts: Parts<'_>) -> Result<Option<Lost>, NotBack> {
    let opened = StateFolder::open(parts.state_dir, parts.root).await;
    let lost = match opened {
        Err(error) if error.is_foreign() => {
            let origin = Origin::read(parts.state_dir, parts.root)?;
            let known = Known {
                trust: origin.trust()?,
                node: origin.node,
                addresses: origin.addresses,
            };
            Some(Lost {
                loss: Loss::StateKey,
                known,
                stored: None,
            })
        }
        Err(error) => return Err(NotBack::NotEnrolled(error.into())),
        Ok((_, Found { held: None, .. })) => None,
        Ok((
            _,
            Found {
                held: Some(stored), ..
            },
        )) => match has_key(&stored, parts.root).await? {
            true => None,
            false => Some(lost_with(Loss::SvidKey, stored, parts)?),
        },
    };
    Ok(lost.map(|lost| lost.through(parts.cloud)))
}

/// As [`look`], for whoever says that the node must come back whatever is stored.
pub async fn insist(parts: Parts<'_>) -> Result<Lost, NotBack> {
    if let Some(lost) = look(parts).await? {
        return Ok(lost);
    }
    let (_, found) = StateFolder::open(parts.state_dir, parts.root)
        .await
        .map_err(|error| NotBack::NotEnrolled(error.into()))?;
    let loss = match found.rolled_back {
        true => Loss::RolledBack,
        false => Loss::Rejected,
    };
    match found.held {
        Some(stored) => Ok(lost_with(loss, stored, parts)?.through(parts.cloud)),
        None => Err(crate::state::NoOrigin::Absent(parts.state_dir.to_owned()).into()),
    }
}

/// When the certificate that is stored ends; none where there is none, or its key is gone.
pub async fn svid_ends(parts: Parts<'_>) -> Option<edgeward_identity::Timestamp> {
    let (_, found) = StateFolder::open(parts.state_dir, parts.root).await.ok()?;
    let stored = found.held.filter(|_| !found.rolled_back)?;
    svid(&stored, parts.root)
        .await
        .ok()
        .map(|svid| svid.leaf().not_after)
}

impl Lost {
    fn through(mut self, cloud: &[String]) -> Self {
        if !cloud.is_empty() {
            self.known.addresses = cloud.to_vec();
        }
        self
    }

    /// One attempt; stored and acknowledged when it returns.
    pub async fn once(&self, parts: Parts<'_>, progress: &dyn Progress) -> Result<(), NotBack> {
        let slot = self
            .stored
            .as_ref()
            .map_or(SvidSlot::default(), |stored| stored.slot.other());
        let enrolment = Enrolment {
            claim: Claim::Recover(&self.known),
            root: parts.root,
            boot: parts.boot,
            clock: parts.clock.clone(),
            slot,
        };
        let mut new = match enrolment.once(progress).await? {
            Attempt::Issued(new) => new,
            Attempt::Pending { .. } => {
                return Err(NotBack::Waits(self.known.node.name().to_owned()));
            }
            Attempt::Later { code, .. } => return Err(NotBack::Later(code)),
        };
        let mut folder = match &self.stored {
            Some(before) => {
                new.stored.keep_of(before);
                StateFolder::open(parts.state_dir, parts.root)
                    .await
                    .map(|(folder, _)| folder)
            }
            None => StateFolder::anew(parts.state_dir, parts.root).await,
        }
        .map_err(stored)?;
        folder
            .write_new_epoch(parts.root, &new.stored, &new.recent)
            .await
            .map_err(stored)?;
        progress.step("stored; telling the cloud");
        new.acknowledge().await;
        Ok(())
    }
}

/// Comes back, for as long as that takes. False: the agent is to end before.
pub async fn until_back(
    lost: &Lost,
    parts: Parts<'_>,
    socket: &Path,
    token: &CancellationToken,
) -> bool {
    let says = Arc::new(Says {
        what: format!("{} has lost its identity ({})", lost.known.node, lost.loss),
        last: Mutex::new("asking the cloud for it".to_owned()),
    });
    let ended = token.child_token();
    let _ends = ended.clone().drop_guard();
    let serving = match Server::bind(socket) {
        Ok(server) => Some(tokio::spawn(server.serve(says.clone(), ended.clone()))),
        Err(error) => {
            tracing::warn!(%error, "no local socket while this node comes back");
            None
        }
    };
    let back = ask(lost, parts, &says, token).await;
    ended.cancel();
    if let Some(serving) = serving {
        let _ = serving.await;
    }
    back
}

async fn ask(lost: &Lost, parts: Parts<'_>, says: &Says, token: &CancellationToken) -> bool {
    let mut pace = Pace::new(parts.clock.boottime());
    loop {
        let attempt = tokio::select! {
            () = token.cancelled() => return false,
            attempt = lost.once(parts, &Quiet) => attempt,
        };
        let Err(error) = attempt else {
            tracing::info!(node = %lost.known.node, loss = lost.loss.code(), "this node has its identity back");
            return true;
        };
        let now = parts.clock.boottime();
        pace.failed(now, Duration::ZERO, random());
        let wait = pace.wait(now);
        tracing::warn!(%error, hint = error.hint(), again_in_s = wait.as_secs(), "this node is not back yet");
        metrics::counter!("edgeward_recovery_failures_total").increment(1);
        *says.last.lock() = format!("the last attempt failed: {error}");
        tokio::select! {
            () = token.cancelled() => return false,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Nobody watches.
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, line: &str) {
        tracing::debug!(line, "coming back");
    }
}

/// A byte for a wait; without randomness the longest.
pub fn random() -> u8 {
    let mut byte = [0];
    SystemRandom::new()
        .fill(&mut byte)
        .map_or(u8::MAX, |()| u8::from_be_bytes(byte))
}

/// The local socket before there is a view.
struct Says {
    what: String,
    last: Mutex<String>,
}

impl Sources for Says {
    fn answer(&self, _request: Request) -> Answer {
        Answer::Refused {
            reason: format!("{}; {}", self.what, self.last.lock()),
        }
    }
}

fn lost_with(loss: Loss, stored: Stored, parts: Parts<'_>) -> Result<Lost, NotBack> {
    Ok(Lost {
        loss,
        known: known_from(&stored, parts.clock.now())?,
        stored: Some(stored),
    })
}

fn stored(error: StateError) -> NotBack {
    NotBack::NotEnrolled(error.into())
}

/// Whether the TPM holds the key that the stored certificate is of. A TPM that does not answer is no answer.
async fn has_key(stored: &Stored, root: &dyn Root) -> Result<bool, NotBack> {
    match svid(stored, root).await {
        Ok(_) => Ok(true),
        Err(NoSvid::Other) => Ok(false),
        Err(NoSvid::Root(error)) if is_missing(&error) => Ok(false),
        Err(NoSvid::Root(error)) => Err(NotBack::NotEnrolled(error.into())),
    }
}

/// Whether this says that a key is not there, and not that the TPM failed.
pub fn is_missing(error: &RootError) -> bool {
    match error {
        RootError::Tpm(TpmError::KeyMissing { .. }) => true,
        RootError::Tpm(TpmError::Failed { fault, .. }) => fault.is_absent(),
        _ => false,
    }
}

enum NoSvid {
    Root(RootError),
    /// The key in its place is another one.
    Other,
}

async fn svid(stored: &Stored, root: &dyn Root) -> Result<Svid, NoSvid> {
    let signer = root
        .signer(stored.slot, Priority::Session)
        .await
        .map_err(NoSvid::Root)?;
    let chain = stored
        .svid_chain
        .iter()
        .map(|der| CertificateDer::from(der.0.clone()))
        .collect();
    Svid::new(chain, signer).map_err(|_| NoSvid::Other)
}
