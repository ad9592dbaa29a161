//! Registrations of workloads: processes on a node that may have an identity of their own, and how they are known.

use edgeward_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::seconds::Seconds;

/// Lifetime of a workload's X.509-SVID where the registration says nothing.
pub const DEFAULT_WORKLOAD_TTL: Seconds = Seconds::from_hours(1);
/// Shortest lifetime that may be asked for: renewal at half of it must reach the cloud in time.
pub const MIN_WORKLOAD_TTL: Seconds = Seconds::new(60);
/// Longest lifetime that may be asked for. Nobody denies a workload's key: it ends by its lifetime.
pub const MAX_WORKLOAD_TTL: Seconds = Seconds::from_hours(24);
/// Most workloads of one node.
pub const MAX_SLICE_WORKLOADS: usize = 1_024;
/// Longest path of a program, in bytes (Linux `PATH_MAX` less its final zero).
pub const MAX_PROGRAM_PATH_BYTES: usize = 4_095;
/// Longest name of a systemd unit, in bytes (systemd `UNIT_NAME_MAX` less its final zero).
pub const MAX_UNIT_BYTES: usize = 255;

/// One workload that a node may hold SVIDs for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub id: SpiffeId,
    /// All of them must hold for a process.
    pub selectors: Selectors,
    /// Lifetime of its X.509-SVID at most.
    pub ttl: Seconds,
}

/// What is demanded of a process; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selectors {
    /// User of the process when it connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Primary group of the process when it connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Path of the program it runs, as the node sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of that program, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// systemd unit of the system manager that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Kubernetes pod that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s: Option<Pod>,
    /// Signed application that the node started it as, `publisher/name`: by its control group, its user, and a program
    /// that is one of the application's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// Which pods; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

impl Selectors {
    /// Matches every process: never accepted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default() || self.k8s.as_ref().is_some_and(Pod::is_empty)
    }

    /// Says only which program, which every user of the machine who may run it can satisfy.
    pub fn is_program_only(&self) -> bool {
        self.uid.is_none()
            && self.gid.is_none()
            && self.unit.is_none()
            && self.k8s.is_none()
            && self.app.is_none()
    }
}

impl Pod {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
