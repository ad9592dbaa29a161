//! Breaking the glass over the local socket: the one thing that it changes, for root and the agent's own user alone.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_identity::Secret;
use edgeward_wire::break_glass::{MAX_APPROVAL_BYTES, MAX_CODE_TEXT_BYTES, MAX_SEALED_BYTES};
use serde::{Deserialize, Serialize};
use tokio::net::unix::UCred;

use super::Answer;
use crate::break_glass::{Desk, MAX_APPROVALS, NotOpened, OpenGlass, Order};
use crate::view::NodeView;

/// Longest request, in bytes: a file and all its approvals in base64.
pub const MAX_ACT_BYTES: usize =
    (MAX_SEALED_BYTES + MAX_APPROVALS * MAX_APPROVAL_BYTES) / 3 * 4 + 4096;
/// The folder of an export that has the repository.
const EXPORTED: &str = "image";
/// How every request that changes something begins.
pub(super) const ACT_BEGINS: &[u8] = b"{\"act\":";

/// What may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    OpenGlass {
        /// Base64.
        sealed: String,
        code: String,
        /// Base64 each.
        approvals: Vec<String>,
    },
    CloseGlass {
        number: Option<u64>,
    },
    /// Look into a folder of this machine for applications.
    ImportApps {
        folder: PathBuf,
    },
    /// Read all that is installed, against what its publishers signed.
    VerifyApps,
}

/// What is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlassStatus {
    pub number: u64,
    pub name: String,
    pub rules: Vec<String>,
    /// Names of the operators who approved.
    pub by: Vec<String>,
    pub left_secs: u64,
}

impl Act {
    pub fn open(sealed: &[u8], code: &str, approvals: &[Vec<u8>]) -> Self {
        Self::OpenGlass {
            sealed: STANDARD.encode(sealed),
            code: code.to_owned(),
            approvals: approvals.iter().map(|one| STANDARD.encode(one)).collect(),
        }
    }

    fn into_order(self) -> Option<Order> {
        Some(match self {
            Self::ImportApps { .. } | Self::VerifyApps => return None,
            Self::CloseGlass { number } => Order::Close { number },
            Self::OpenGlass {
                sealed,
                code,
                approvals,
            } => {
                let code = Secret::new(code);
                if approvals.len() > MAX_APPROVALS || code.expose().len() > MAX_CODE_TEXT_BYTES {
                    return None;
                }
                let approvals = approvals.iter().map(|one| STANDARD.decode(one).ok());
                Order::Open {
                    sealed: STANDARD.decode(&sealed).ok()?,
                    code,
                    approvals: approvals.collect::<Option<_>>()?,
                }
            }
        })
    }
}

/// Reads one request that changes something.
pub fn parse_act(line: &[u8]) -> Result<Act, serde_json::Error> {
    serde_json::from_slice(line)
}

/// Whether this client may change anything: the socket's group may only look.
pub(super) fn may_act(client: Option<UCred>) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    client.is_some_and(|client| client.uid() == 0 || client.uid() == own)
}

pub(super) async fn perform(desk: Option<(Desk, NodeView)>, line: &[u8]) -> Answer {
    let refused = |reason: String| Answer::Refused { reason };
    let act = match parse_act(line) {
        Ok(act) => act,
        Err(error) => return refused(format!("not a request: {error}")),
    };
    if let Act::ImportApps { .. } | Act::VerifyApps = act {
        return perform_on_apps(desk.map(|(_, view)| view), act).await;
    }
    let Some(order) = act.into_order() else {
        return refused("not base64, or more approvals than the limit".to_owned());
    };
    let result = match &desk {
        Some((desk, _)) => desk.order(order).await,
        None => Err(NotOpened::NotNow),
    };
    match (result, desk) {
        (Ok(open), Some((_, view))) => Answer::Glass {
            open: shown(&view, &open),
        },
        (Ok(_), None) => refused("nothing is open".to_owned()),
        (Err(error), _) => Answer::NotOpened {
            code: error.code().to_owned(),
            reason: error.to_string(),
        },
    }
}

async fn perform_on_apps(view: Option<NodeView>, act: Act) -> Answer {
    let refused = |reason: String| Answer::Refused { reason };
    let Some(view) = view else {
        return refused("the agent is not that far yet".to_owned());
    };
    let Some(orders) = view.app_orders.get().cloned() else {
        return refused("the agent's configuration has no [apps]".to_owned());
    };
    let answer = match act {
        Act::ImportApps { folder } if folder.is_absolute() => {
            if let Err(reason) = check_export(&folder).await {
                return Answer::Refused { reason };
            }
            let imported = orders.import(folder).await;
            imported.map(|imported| Answer::Apps {
                report: imported.report,
            })
        }
        Act::ImportApps { folder } => Some(Answer::Refused {
            reason: format!("not an absolute path: {}", folder.display()),
        }),
        _ => {
            let releases = orders.verify().await;
            releases.map(|releases| Answer::Verified { releases })
        }
    };
    // Nobody took the order: the volume is not there, say.
    answer.unwrap_or_else(|| {
        let why = view.apps.borrow().standing.clone();
        refused(format!("applications cannot be managed now: {why}"))
    })
}

/// Whether the agent sees what an export has: it may see less of the machine than whoever asks.
async fn check_export(folder: &Path) -> Result<(), String> {
    let image = folder.join(EXPORTED);
    match tokio::fs::metadata(&image).await {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => Err(format!("{}: not a folder", image.display())),
        Err(error) => Err(format!(
            "{}: the agent does not see it: {error}. `edgeward app export` makes it; as a service the agent sees neither /tmp nor /home",
            image.display()
        )),
    }
}

pub(super) fn shown(view: &NodeView, open: &[OpenGlass]) -> Vec<GlassStatus> {
    let now = view.clock.boottime();
    let shown = open.iter().map(|one| GlassStatus {
        number: one.number,
        name: one.name.to_string(),
        rules: one.rules.iter().map(ToString::to_string).collect(),
        by: one.by.iter().map(|id| id.name().to_owned()).collect(),
        left_secs: one.until.since(now).as_secs(),
    });
    shown.collect()
}
