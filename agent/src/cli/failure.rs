//! Why a command did not do what it was asked, and the exit code that says so.

use std::path::PathBuf;
use std::time::Duration;

use edgeward_evidence::tpm::pcr::BadSelection;
use edgeward_identity::{SpiffeId, TrustDomain};
use edgeward_runtime::config::BadConfig;
use edgeward_runtime::exit;
use edgeward_runtime::telemetry::BadFilter;
use edgeward_wire::token::TokenError;

use crate::apps::volume::VolumeError;
use crate::enrol::{NotEnrolled, hint};
use crate::machine::NotTaken;
use crate::recover::NotBack;
use crate::root::RootError;
use crate::state::{LockError, NoOrigin, StateError};
use crate::status::AskFailed;
use crate::tpm::TpmError;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] BadConfig),
    #[error(transparent)]
    Log(#[from] BadFilter),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("token file {}: {source}", path.display())]
    TokenFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    GlassFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    KeyFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("applications that are assigned and not here yet: {0}")]
    Lacking(usize),
    #[error("installed releases with files that are not as signed: {0}")]
    Altered(usize),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("this machine is a node of another trust domain: {0}")]
    OtherTrustDomain(TrustDomain),
    #[error("not enrolled: {0}")]
    NotEnrolled(#[from] NotEnrolled),
    #[error(
        "this machine is {0}, and its tpm was cleared: its state does not open, but it can come back"
    )]
    Cleared(SpiffeId),
    #[error("{0}")]
    OtherTpm(NoOrigin),
    #[error("nothing is lost: the certificate is good until {0}, and its key is there")]
    NothingLost(String),
    #[error("not recovered: {0}")]
    NotBack(#[from] NotBack),
    #[error("not recovered within {}", humantime::format_duration(*.0))]
    NotBackInTime(Duration),
    #[error("not enrolled within {}", humantime::format_duration(*.0))]
    NotApproved(Duration),
    #[error(transparent)]
    Ask(#[from] AskFailed),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("pcr selection: {0}")]
    Pcrs(#[from] BadSelection),
    #[error("there is no tpm: [tpm] tcti = \"none\"")]
    NoTpm,
    #[error("the tpm is in use by the running agent, and takes one client at a time")]
    TpmInUse,
    #[error("the random source failed")]
    Random,
    /// Everything was said already.
    #[error("")]
    Quiet,
    #[error("{0:#}")]
    Service(anyhow::Error),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Log(_) => exit::BAD_CONFIG,
            Self::Usage(_) | Self::Token(_) | Self::Pcrs(_) => exit::USAGE,
            _ => exit::FAILED,
        }
    }

    /// What an operator can do about it, where the failure does not say all.
    pub(super) fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::NotEnrolled(error) => hint(error)?,
            Self::OtherTrustDomain(_) => "--force gives that identity up",
            Self::Cleared(_) => {
                "edgeward-agent recover needs no token; --force enrols with the token instead, and keeps the old state beside"
            }
            Self::OtherTpm(_) => {
                "for the same name with this tpm the token must come from: edgeward node replace-tpm NAME. --force enrols, and keeps the old state beside"
            }
            Self::NothingLost(_) => "--force recovers all the same; the cloud counts it",
            Self::NotBack(error) => error.hint()?,
            Self::NotBackInTime(_) => {
                "run the command once more, or start the agent: it goes on asking"
            }
            Self::NotApproved(_) => {
                "the same token and machine may ask again: run the command once more"
            }
            Self::NotTaken(NotTaken::Lock(LockError::Taken(_))) => {
                "stop it first: systemctl stop edgeward-agent"
            }
            Self::NotTaken(NotTaken::Root(RootError::Tpm(error)))
            | Self::Root(RootError::Tpm(error))
            | Self::State(StateError::Root(RootError::Tpm(error))) => tpm_hint(error)?,
            Self::State(StateError::ForeignKey { .. } | StateError::File(_)) => {
                "if this machine's tpm was cleared: edgeward-agent recover; if it was replaced: edgeward node replace-tpm NAME, then edgeward-agent enrol --force"
            }
            Self::Ask(AskFailed::Connect { source, .. }) => match source.kind() {
                std::io::ErrorKind::PermissionDenied => "ask as root",
                _ => "is it running? systemctl status edgeward-agent",
            },
            Self::TpmInUse => "stop the agent first: systemctl stop edgeward-agent",
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

fn tpm_hint(error: &TpmError) -> Option<&'static str> {
    hint(&NotEnrolled::Root(RootError::Tpm(error.clone())))
}
