//! Why a command did not do what it was asked, by whose fault it is, and the exit code that says so.

use std::path::PathBuf;

use edgeward_identity::bundle::BundleError;
use edgeward_identity::keys::KeyError;
use edgeward_identity::svid::SvidError;
use edgeward_runtime::exit;

use super::sources::SourceFault;
use crate::advice;
use crate::api::views::ProblemView;
use crate::when::NotATime;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cloud said no.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Box<ProblemView>),
    /// Everything was said already.
    #[error("failed")]
    Quiet,
    #[error("cannot reach the cloud: {0}")]
    Unreachable(String),
    /// The TLS alert.
    #[error("the cloud refuses this certificate: {0}")]
    Certificate(String),
    #[error("the cloud's answer is not understood: {0}")]
    Answer(String),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Time(#[from] NotATime),
    #[error("no context is chosen: edgeward context add DIR, or --context DIR")]
    NoContext,
    #[error("context {name}: {reason}")]
    Context { name: String, reason: String },
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: may be read by others than its owner: chmod 600", .0.display())]
    Exposed(PathBuf),
    #[error("{}: not {wanted}", path.display())]
    Content { path: PathBuf, wanted: &'static str },
    #[error("trust bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error("certificate: {0}")]
    Svid(#[from] SvidError),
    #[error("key: {0}")]
    Key(#[from] KeyError),
    #[error("key: {0}")]
    Sign(#[from] edgeward_identity::SignError),
    #[error(transparent)]
    Sources(#[from] SourceFault),
    /// Keys, metadata or content of applications are not as they must be.
    #[error("{0}")]
    Unsound(String),
    /// The question cannot be answered, and why.
    #[error("{0}")]
    NoAnswer(String),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Time(_) => exit::USAGE,
            Self::NoContext
            | Self::Context { .. }
            | Self::Exposed(_)
            | Self::Content { .. }
            | Self::Bundle(_)
            | Self::Svid(_)
            | Self::Key(_) => exit::BAD_CONFIG,
            Self::Refused(_)
            | Self::Quiet
            | Self::Unreachable(_)
            | Self::Certificate(_)
            | Self::Answer(_)
            | Self::File { .. }
            | Self::Sign(_)
            | Self::NoAnswer(_)
            | Self::Unsound(_)
            | Self::Sources(_) => exit::FAILED,
        }
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// More lines for people, below the first.
    pub(super) fn more(&self) -> &[String] {
        match self {
            Self::Refused(problem) => &problem.findings,
            _ => &[],
        }
    }

    /// What to do about it, where the cloud's code says so.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(problem) => advice::exact(&problem.code),
            _ => None,
        }
    }
}
