//! Publishers, releases and their content over the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::when::When;

/// All of `GET /api/v1/publishers`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishersView {
    /// What the root must name for snapshot and timestamp, as `ecdsa-p256:` and the point.
    pub online_key: String,
    /// What the next root may name in its place; absent while nobody turns the key over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_online_key: Option<String>,
    /// The newest root, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RoleView>,
    /// The image role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<RoleView>,
    /// What this cloud signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<RoleView>,
    pub publishers: Vec<PublisherView>,
    /// Offline roles that somebody should sign anew, the most urgent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ending: Vec<EndingView>,
}

/// `POST /api/v1/publishers/online-key`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OnlineKeyView {
    /// As `ecdsa-p256:` and the point.
    pub key: String,
}

/// An offline role that ends soon, or has ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndingView {
    /// `root`, `targets` or a publisher.
    pub role: String,
    pub expires: When,
    /// 1: within 60 days, 2: within 30, 3: within 7, 4: it has ended, and nodes install nothing that rests on it.
    pub urgency: u8,
}

/// Metadata of a role.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RoleView {
    /// Under which `GET /api/v1/apps/metadata/{name}` has it.
    #[serde(default)]
    pub name: String,
    /// SHA-256 of the file.
    #[serde(default)]
    pub digest: String,
    pub version: u64,
    pub expires: When,
}

/// Who may publish, as the image role says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublisherView {
    pub publisher: String,
    /// How many keys must sign.
    pub threshold: u64,
    /// `ed25519:…` and `ecdsa-p256:…`.
    pub keys: Vec<String>,
    /// What it signed; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<RoleView>,
    /// Releases that it signs for.
    pub releases: u64,
}

/// Answer to a root or image role that was taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RoleTaken {
    /// `root` or `targets`.
    pub role: String,
    pub version: u64,
    pub expires: When,
    /// Publishers whose releases do not hold any more under it, until they sign again.
    #[serde(default)]
    pub no_longer_hold: Vec<String>,
}

/// `POST /api/v1/apps/missing`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingRequest {
    /// SHA-256 of chunks, lower-case hex.
    pub chunks: Vec<String>,
}

/// Those that are not here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MissingView {
    pub missing: Vec<String>,
}

/// Answer to what a publisher signed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishedView {
    pub publisher: String,
    pub version: u64,
    /// Releases that are new.
    pub published: Vec<ReleaseName>,
    /// Releases that it signs for no more.
    pub withdrawn: Vec<ReleaseName>,
}

/// One release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseName {
    /// `publisher/name`.
    pub app: String,
    pub version: String,
    /// SHA-256 of its manifest.
    pub digest: String,
}

/// One of `GET /api/v1/apps`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AppView {
    /// `publisher/name`.
    pub app: String,
    /// Highest first.
    pub versions: Vec<ReleaseView>,
}

/// A release in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    pub version: String,
    /// SHA-256 of its manifest.
    pub digest: String,
    /// Bytes of its manifest.
    pub length: u64,
    /// Bytes of its files.
    pub size: u64,
    pub published: When,
    /// Why it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// `GET /api/v1/apps/{publisher}/{name}/{version}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseDetail {
    /// `publisher/name`.
    pub app: String,
    #[serde(flatten)]
    pub release: ReleaseView,
    /// What is started.
    pub entry: String,
    pub args: Vec<String>,
    /// Files and links.
    pub entries: u64,
    pub chunks: u64,
    /// The workload identity that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// SHA-256 of the manifest of the OCI image that it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Folders outside of its own tree that it may write to.
    pub writable: Vec<String>,
    pub host_libraries: bool,
}
