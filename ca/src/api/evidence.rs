//! The kept evidence of a node: what profiles are made and judged from.

use axum::Json;
use axum::extract::State;

use super::extract::{Named, Pairs};
use super::problem::Problem;
use super::views::ProblemView;
use super::{Api, Cloud};
use crate::profiles::{EvidenceView, NodeEvidence};
use crate::store::evidence::Which;

/// Most answers with logs that are made at a time: each may have two boot logs of 1 MiB and two lists of 2 MiB.
pub(super) const MAX_WITH_LOGS: usize = 4;

/// Show the newest evidence of a node and the newest that passed, with their logs if asked for.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/evidence", tag = "nodes", operation_id = "node_evidence",
    params(("name" = String, Path), ("logs" = Option<bool>, Query, description = "with the boot log and the IMA list; false if absent")),
    responses((status = 200, body = NodeEvidence), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(api): Cloud,
    Named(name): Named<String>,
    Pairs(pairs): Pairs,
) -> Result<Json<NodeEvidence>, Problem> {
    let logs = wants_logs(&pairs)?;
    if api.store.node(&name).await?.is_none() {
        return Err(Problem::not_found("no such node"));
    }
    let _turn = match logs {
        true => Some(
            api.with_logs
                .acquire()
                .await
                .map_err(|error| Problem::internal(&error))?,
        ),
        false => None,
    };
    Ok(Json(NodeEvidence {
        latest: view(&api, &name, Which::Latest, logs).await?,
        passed: view(&api, &name, Which::Passed, logs).await?,
        node: name,
    }))
}

async fn view(
    api: &Api,
    name: &str,
    which: Which,
    logs: bool,
) -> Result<Option<EvidenceView>, Problem> {
    let row = api.store.evidence(name, which).await?;
    Ok(row.map(|row| EvidenceView::of(row, logs)))
}

fn wants_logs(pairs: &[(String, String)]) -> Result<bool, Problem> {
    match pairs {
        [] => Ok(false),
        [(key, value)] if key == "logs" && value == "true" => Ok(true),
        [(key, value)] if key == "logs" && value == "false" => Ok(false),
        _ => Err(Problem::bad_request(
            "query",
            "accepted: logs=true or logs=false",
        )),
    }
}
