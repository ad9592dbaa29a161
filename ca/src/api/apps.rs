//! Releases of applications: what publishers signed, carried here by operators, and what is read of it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use edgeward_apps::manifest::{MAX_CHUNKS, MAX_MANIFEST_BYTES};
use edgeward_apps::{AppName, Digest, Manifest, PublisherName, Version};

use super::extract::{Body, Named, Pairs, Raw};
use super::problem::Problem;
use super::views::{
    AppView, MissingRequest, MissingView, ProblemView, PublishedView, ReleaseDetail, ReleaseName,
    ReleaseView,
};
use super::{Cloud, Items, items};
use crate::access::Principal;
use crate::apps::shelf::Kind;
use crate::apps::{Named as Release, NotTaken, PublishedRelease};
use crate::store::director::DeniedRow;

/// Largest body of these routes, in bytes: a manifest.
#[allow(clippy::cast_possible_truncation, reason = "8 MiB")]
pub(super) const MAX_UPLOAD_BYTES: usize = MAX_MANIFEST_BYTES as usize;
/// Most uploads of content at a time: what bounds the memory that they take.
pub(super) const MAX_UPLOADS: usize = 16;

/// List what is published, or one app of it.
#[utoipa::path(get, path = "/api/v1/apps", tag = "apps", operation_id = "app_list",
    params(("app" = Option<String>, Query, description = "publisher/name")),
    responses((status = 200, body = Items<AppView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): Cloud,
    Pairs(pairs): Pairs,
) -> Result<Json<Items<AppView>>, Problem> {
    let only: Option<AppName> = match pairs.iter().find(|(key, _)| key == "app") {
        Some((_, text)) => Some(name_of(text)?),
        None => None,
    };
    api.apps.look().await?;
    let releases = api.apps.releases();
    let denied = api.store.denied_apps().await?;
    let wanted = releases
        .apps
        .iter()
        .filter(|(app, _)| only.as_ref().is_none_or(|only| only == *app));
    let views = wanted.map(|(app, versions)| AppView {
        app: app.to_string(),
        versions: versions
            .iter()
            .rev()
            .map(|(version, release)| view(version, release, &denied))
            .collect(),
    });
    Ok(items(views.collect()))
}

/// Show one release.
#[utoipa::path(get, path = "/api/v1/apps/{publisher}/{name}/{version}", tag = "apps", operation_id = "app_show",
    params(("publisher" = String, Path), ("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = ReleaseDetail), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(api): Cloud,
    Named((publisher, name, version)): Named<(String, String, String)>,
) -> Result<Json<ReleaseDetail>, Problem> {
    let app = name_of(&format!("{publisher}/{name}"))?;
    let version: Version = version
        .parse()
        .map_err(|why| Problem::bad_request("version", format!("{why}")))?;
    api.apps.look().await?;
    let releases = api.apps.releases();
    let versions = releases.apps.get(&app);
    let found = versions.and_then(|versions| versions.get_key_value(&version));
    let (version, release) = found.ok_or_else(|| Problem::not_found("no such release"))?;
    let bytes = api.apps.manifest(&release.digest).await?;
    let bytes = bytes.ok_or_else(|| Problem::not_found("the manifest of the release is gone"))?;
    let manifest = Manifest::parse(&bytes).map_err(NotTaken::Manifest)?;
    let denied = api.store.denied_apps().await?;
    let view = view(version, release, &denied);
    Ok(Json(detail(&app, view, &manifest)))
}

/// Publish what a publisher signed: taken if a node would take it, and if all that it names was uploaded.
#[utoipa::path(post, path = "/api/v1/apps", tag = "apps", operation_id = "app_publish",
    params(("publisher" = String, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = PublishedView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn publish(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
    Raw(bytes): Raw,
) -> Result<Json<PublishedView>, Problem> {
    let publisher = publisher_of(&pairs)?;
    let policy = api.control.policy();
    let policy = policy.and_then(|policy| policy.publisher_keys(&publisher).cloned());
    let taken = api
        .apps
        .take_releases(&publisher, bytes, policy, caller.actor())
        .await?;
    Ok(Json(PublishedView {
        publisher: publisher.to_string(),
        version: taken.version,
        published: taken.published.iter().map(release).collect(),
        withdrawn: taken.withdrawn.iter().map(release).collect(),
    }))
}

/// Say which chunks the cloud does not have.
#[utoipa::path(post, path = "/api/v1/apps/missing", tag = "apps", operation_id = "app_missing", request_body = MissingRequest,
    responses((status = 200, body = MissingView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn missing(
    State(api): Cloud,
    Body(request): Body<MissingRequest>,
) -> Result<Json<MissingView>, Problem> {
    if request.chunks.len() > MAX_CHUNKS {
        return Err(Problem::bad_request(
            "too_many",
            format!("more chunks than the limit: {MAX_CHUNKS}"),
        ));
    }
    let chunks: Vec<Digest> = request
        .chunks
        .iter()
        .map(|text| digest_of(text))
        .collect::<Result<_, _>>()?;
    let missing = api.apps.missing(chunks).await?;
    Ok(Json(MissingView {
        missing: missing.iter().map(ToString::to_string).collect(),
    }))
}

/// Upload a chunk.
#[utoipa::path(put, path = "/api/v1/apps/chunks/{sha256}", tag = "apps", operation_id = "app_chunk_put",
    params(("sha256" = String, Path), ("publisher" = String, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn put_chunk(
    State(api): Cloud,
    Named(sha256): Named<String>,
    Pairs(pairs): Pairs,
    Raw(bytes): Raw,
) -> Result<StatusCode, Problem> {
    let (publisher, digest) = (publisher_of(&pairs)?, digest_of(&sha256)?);
    api.apps.put(Kind::Chunk, &publisher, digest, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Upload a manifest.
#[utoipa::path(put, path = "/api/v1/apps/manifests/{sha256}", tag = "apps", operation_id = "app_manifest_put",
    params(("sha256" = String, Path), ("publisher" = String, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn put_manifest(
    State(api): Cloud,
    Named(sha256): Named<String>,
    Pairs(pairs): Pairs,
    Raw(bytes): Raw,
) -> Result<StatusCode, Problem> {
    let (publisher, digest) = (publisher_of(&pairs)?, digest_of(&sha256)?);
    api.apps
        .put(Kind::Manifest, &publisher, digest, bytes)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read a chunk, to carry it where the cloud does not reach.
#[utoipa::path(get, path = "/api/v1/apps/chunks/{sha256}", tag = "apps", operation_id = "app_chunk", params(("sha256" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn chunk(
    State(api): Cloud,
    Named(sha256): Named<String>,
) -> Result<Response, Problem> {
    bytes(api.apps.content(Kind::Chunk, digest_of(&sha256)?).await?)
}

/// Read a manifest.
#[utoipa::path(get, path = "/api/v1/apps/manifests/{sha256}", tag = "apps", operation_id = "app_manifest", params(("sha256" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn manifest(
    State(api): Cloud,
    Named(sha256): Named<String>,
) -> Result<Response, Problem> {
    bytes(
        api.apps
            .content(Kind::Manifest, digest_of(&sha256)?)
            .await?,
    )
}

/// Read a file of the repository's metadata, under the name that nodes know it by.
#[utoipa::path(get, path = "/api/v1/apps/metadata/{name}", tag = "apps", operation_id = "app_metadata", params(("name" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn metadata(
    State(api): Cloud,
    Named(name): Named<String>,
) -> Result<Response, Problem> {
    bytes(api.apps.metadata(&name).await?)
}

/// An upload's bytes are read only where there is room for them; callers wait for their turn until the deadline.
pub(super) async fn one_of_some(State(api): Cloud, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match api.app_uploads.acquire().await {
        Ok(_turn) => next.run(request).await,
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// A parameter of the query that must be there.
pub(super) fn parameter<'p>(
    pairs: &'p [(String, String)],
    name: &'static str,
) -> Result<&'p str, Problem> {
    let found = pairs.iter().find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.as_str())
        .ok_or_else(|| Problem::bad_request(name, format!("?{name}= is missing")))
}

fn publisher_of(pairs: &[(String, String)]) -> Result<PublisherName, Problem> {
    parameter(pairs, "publisher")?
        .parse()
        .map_err(|why| Problem::bad_request("publisher", format!("{why}")))
}

fn name_of(text: &str) -> Result<AppName, Problem> {
    text.parse()
        .map_err(|why| Problem::bad_request("app", format!("{why}")))
}

fn digest_of(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|why| Problem::bad_request("digest", format!("{why}")))
}

fn bytes(found: Option<Vec<u8>>) -> Result<Response, Problem> {
    match found {
        Some(bytes) => {
            Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
        }
        None => Err(Problem::not_found("not in the repository")),
    }
}

fn view(
    version: &Version,
    release: &PublishedRelease,
    denied: &BTreeMap<Digest, DeniedRow>,
) -> ReleaseView {
    ReleaseView {
        version: version.to_string(),
        digest: release.digest.to_string(),
        length: release.length,
        size: release.size,
        published: release.published.into(),
        revoked: denied.get(&release.digest).map(|row| row.reason.clone()),
    }
}

fn detail(app: &AppName, release: ReleaseView, manifest: &Manifest) -> ReleaseDetail {
    ReleaseDetail {
        app: app.to_string(),
        release,
        entry: manifest.entry.path.to_string(),
        args: manifest.entry.args.clone(),
        entries: manifest.entries().len() as u64,
        chunks: manifest.chunks().count() as u64,
        identity: manifest.identity.clone(),
        image: manifest.image.map(|digest| digest.to_string()),
        writable: manifest.writable.iter().map(ToString::to_string).collect(),
        host_libraries: manifest.host_libraries,
    }
}

fn release(named: &Release) -> ReleaseName {
    ReleaseName {
        app: named.app.to_string(),
        version: named.version.to_string(),
        digest: named.digest.to_string(),
    }
}

impl From<NotTaken> for Problem {
    fn from(why: NotTaken) -> Self {
        let detail = why.to_string();
        match (why.code(), why) {
            (_, NotTaken::Store(error)) => error.into(),
            (_, NotTaken::Record(error)) => error.into(),
            (None, why) => Self::internal(&why),
            (Some(code), NotTaken::Incomplete { missing, .. }) => Self::conflict(code, detail)
                .with_findings(missing.iter().map(ToString::to_string).collect()),
            (Some(code @ ("chunk-mismatch" | "manifest-malformed" | "metadata-malformed")), _) => {
                Self::bad_request(code, detail)
            }
            (Some(code), _) => Self::conflict(code, detail),
        }
    }
}
