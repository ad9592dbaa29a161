//! What this node says of its applications: to the cloud, and to people at the local socket.

use std::collections::BTreeMap;

use edgeward_apps::{AppName, Digest, Version};
use edgeward_wire::limits::MAX_APPS_SAID;
use edgeward_wire::v1;
use serde::{Deserialize, Serialize};

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppsReport {
    /// How they are controlled at exec: empty on a node that has none.
    pub control: String,
    /// Number of the director's word that is held; 0: none.
    pub director: u64,
    /// Number of the word that `apps` is by: nothing runs any more that it does not let run.
    #[serde(default)]
    pub acted_on: u64,
    /// `granting`, or why nothing is installed; empty on a node that has none.
    pub standing: String,
    pub apps: BTreeMap<AppName, AppReport>,
}

/// One.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppReport {
    /// In use.
    pub version: Option<Version>,
    /// Of its manifest.
    pub digest: Option<Digest>,
    /// What the director wants, where that is another.
    pub wanted: Option<Version>,
    pub state: State,
    /// Why it is refused or failed: a stable code.
    pub code: String,
    /// The same, for people.
    pub reason: String,
    /// Bytes, while they are fetched.
    pub fetched: u64,
    pub to_fetch: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is known and nothing was done yet.
    #[default]
    Waiting,
    Fetching,
    Installed,
    Starting,
    Running,
    Stopped,
    Failed,
    Refused,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Installed => "installed",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

impl AppsReport {
    /// For the cloud. `measured`: which record of the log of applications changed last what runs.
    pub fn to_wire(&self, measured: u64) -> v1::AppsState {
        let apps = self.apps.iter().take(MAX_APPS_SAID);
        v1::AppsState {
            app_control: self.control.clone(),
            director_number: self.director,
            acted_on: self.acted_on,
            apps: apps.map(|(app, said)| said.to_wire(app)).collect(),
            measured,
        }
    }
}

impl AppReport {
    fn to_wire(&self, app: &AppName) -> v1::AppState {
        let digest = |digest: &Digest| digest.as_bytes().to_vec();
        v1::AppState {
            app: app.to_string(),
            version: self
                .version
                .as_ref()
                .map(Version::to_string)
                .unwrap_or_default(),
            sha256: self.digest.as_ref().map(digest).unwrap_or_default(),
            state: self.state.as_str().to_owned(),
            code: self.code.clone(),
            fetched: self.fetched,
            wanted: self.to_fetch,
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward_wire::said::STATES;

    use super::*;

    #[test]
    fn the_cloud_knows_every_state_that_there_is() {
        let all = [
            State::Waiting,
            State::Fetching,
            State::Installed,
            State::Starting,
            State::Running,
            State::Stopped,
            State::Failed,
            State::Refused,
        ];
        assert_eq!(all.map(State::as_str), STATES);
        let untouched = AppReport::default().to_wire(&"acme/x".parse().unwrap());
        assert!(STATES.contains(&untouched.state.as_str()));
    }
}
