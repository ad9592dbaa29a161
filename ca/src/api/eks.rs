//! What operators say about single EKs and EK certificates.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};
use edgeward_evidence::Digest;

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{EkRequest, EkView, ProblemView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::store::eks::{EkList, ListedEk, MAX_EKS};
use crate::store::nodes::NodeStatus;

/// Longest note, in bytes.
const MAX_NOTE_BYTES: usize = 256;

/// List EKs and EK certificates that operators put on a list. Those in the cloud's folder are not among them.
#[utoipa::path(get, path = "/api/v1/eks", tag = "cloud", operation_id = "ek_list",
    responses((status = 200, body = Items<EkView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<EkView>>, Problem> {
    let nodes = nodes_by_ek(&api).await?;
    let rows = api.store.listed_eks().await?;
    Ok(items(
        rows.into_iter().map(|row| view(row, &nodes)).collect(),
    ))
}

/// Put an EK, or an EK certificate, on a list. Denying one keeps its TPM from enrolling again; a node that enrolled
/// with it before is cut off by `quarantine`.
#[utoipa::path(post, path = "/api/v1/eks", tag = "cloud", operation_id = "ek_put", request_body = EkRequest,
    responses((status = 200, body = EkView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<EkRequest>,
) -> Result<Json<EkView>, Problem> {
    if request.note.len() > MAX_NOTE_BYTES || request.note.chars().any(char::is_control) {
        return Err(Problem::bad_request(
            "note",
            format!("longer than {MAX_NOTE_BYTES} bytes, or with control characters"),
        ));
    }
    let row = ListedEk {
        digest: digest_of(&request.digest)?,
        list: request.list,
        note: request.note,
        added: api.now(),
        added_by: caller.actor().to_string(),
    };
    let mut tx = api.store.begin("ek.put").await?;
    if tx.count_eks().await? >= MAX_EKS {
        return Err(Problem::conflict(
            "eks_full",
            format!("more than {MAX_EKS} EKs on lists"),
        ));
    }
    tx.put_ek(&row).await?;
    let event = Event::new(row.added, caller.actor().clone(), EventKind::EkListed)
        .detail("ek", row.digest)
        .detail("list", row.list.as_str())
        .detail("note", &row.note);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.ek.look().await?;
    let nodes = nodes_by_ek(&api).await?;
    Ok(Json(view(row, &nodes)))
}

/// Take an EK, or an EK certificate, off a list.
#[utoipa::path(delete, path = "/api/v1/eks/{list}/{digest}", tag = "cloud", operation_id = "ek_remove", params(("list" = String, Path), ("digest" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(api): Cloud,
    caller: Principal,
    Named((list, digest)): Named<(String, String)>,
) -> Result<StatusCode, Problem> {
    let list: EkList = list
        .parse()
        .map_err(|_| Problem::bad_request("list", "not allowed, denied or encoding"))?;
    let digest = digest_of(&digest)?;
    let mut tx = api.store.begin("ek.remove").await?;
    if !tx.remove_ek(list, &digest).await? {
        return Err(Problem::not_found("not on that list"));
    }
    let event = Event::new(api.now(), caller.actor().clone(), EventKind::EkUnlisted)
        .detail("ek", digest)
        .detail("list", list.as_str());
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.ek.look().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn digest_of(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|_| Problem::bad_request("digest", "not a sha-256 in hex"))
}

async fn nodes_by_ek(api: &Api) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in api.store.nodes().await? {
        if let Some(ek) = row.root.ek()
            && row.status != NodeStatus::Removed
        {
            nodes.entry(ek.to_owned()).or_default().push(row.name);
        }
    }
    Ok(nodes)
}

fn view(row: ListedEk, nodes: &BTreeMap<String, Vec<String>>) -> EkView {
    let digest = row.digest.to_string();
    EkView {
        nodes: nodes.get(&digest).cloned().unwrap_or_default(),
        digest,
        list: row.list,
        note: row.note,
        added: row.added.into(),
        added_by: row.added_by,
    }
}
