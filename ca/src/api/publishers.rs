//! Who may publish: the root and the image role, signed offline and carried here by operators.

use axum::Json;
use axum::extract::State;
use edgeward_apps::PublisherName;

use super::apps::parameter;
use super::extract::{Pairs, Raw};
use super::problem::Problem;
use super::views::{
    EndingView, OnlineKeyView, ProblemView, PublisherView, PublishersView, RoleTaken, RoleView,
};
use super::{Api, Cloud};
use crate::access::Principal;
use crate::store::apps::RoleRow;

/// Show the root, the image role and its publishers, and what of them ends soon.
#[utoipa::path(get, path = "/api/v1/publishers", tag = "publishers", operation_id = "publisher_list",
    responses((status = 200, body = PublishersView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<PublishersView>, Problem> {
    api.apps.look().await?;
    let releases = api.apps.releases();
    let role = |name: &str| releases.roles.get(name).map(view);
    let count = |publisher: &PublisherName| -> u64 {
        let own = releases
            .apps
            .iter()
            .filter(|(app, _)| app.publisher() == publisher);
        own.map(|(_, versions)| versions.len() as u64).sum()
    };
    let publishers = releases
        .publishers
        .iter()
        .map(|(name, keys)| PublisherView {
            publisher: name.to_string(),
            threshold: keys.threshold.into(),
            keys: keys.keys.iter().map(ToString::to_string).collect(),
            signed: role(name.as_str()),
            releases: count(name),
        });
    Ok(Json(PublishersView {
        online_key: api.apps.online_key(),
        next_online_key: api.apps.next_online_key(),
        root: role("root"),
        image: role("targets"),
        timestamp: role("timestamp"),
        publishers: publishers.collect(),
        ending: endings(&api),
    }))
}

/// Put a root or an image role in force. Its signatures are checked as nodes check them: who uploads it does not matter.
#[utoipa::path(put, path = "/api/v1/publishers/metadata", tag = "publishers", operation_id = "publisher_metadata",
    params(("role" = String, Query, description = "`root` or `targets`")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = RoleTaken), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
    Raw(bytes): Raw,
) -> Result<Json<RoleTaken>, Problem> {
    let role = parameter(&pairs, "role")?;
    let taken = match role {
        "root" => api.apps.take_root(bytes, caller.actor()).await?,
        "targets" => api.apps.take_image(bytes, caller.actor()).await?,
        _ => return Err(Problem::bad_request("role", "neither root nor targets")),
    };
    Ok(Json(RoleTaken {
        role: role.to_owned(),
        version: taken.version,
        expires: taken.expires.into(),
        no_longer_hold: taken.no_longer_hold,
    }))
}

/// Make the next key for snapshot and timestamp, which signs once a root names it. Repeated, it shows the one that waits.
#[utoipa::path(post, path = "/api/v1/publishers/online-key", tag = "publishers", operation_id = "publisher_online_key",
    responses((status = 200, body = OnlineKeyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn prepare_online_key(
    State(api): Cloud,
    caller: Principal,
) -> Result<Json<OnlineKeyView>, Problem> {
    let key = api.apps.prepare_online_key(caller.actor()).await?;
    Ok(Json(OnlineKeyView { key }))
}

fn endings(api: &Api) -> Vec<EndingView> {
    let endings = api.apps.endings(api.now()).into_iter();
    endings
        .map(|ending| EndingView {
            role: ending.role,
            expires: ending.expires.into(),
            urgency: ending.urgency,
        })
        .collect()
}

fn view(row: &RoleRow) -> RoleView {
    RoleView {
        name: row.name.clone(),
        version: row.version,
        expires: row.expires.into(),
        digest: row.sha256.to_string(),
    }
}
