//! Counts of events for charts.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::query::StatsQuery;

use super::super::extract::Pairs;
use super::super::problem::Problem;
use super::super::views::{BucketView, CountView, ProblemView, StatsView};
use super::{Cloud, note_read};
use crate::access::Principal;
use crate::store::audit::{Stats, StatsFault};

/// Count events by time and by one of their fields.
#[utoipa::path(get, path = "/api/v1/audit/stats", tag = "audit", operation_id = "audit_stats",
    params(
        ("by" = Option<String>, Query, description = "type, family, verdict, node, actor, subject or rule"),
        ("top" = Option<u32>, Query, description = "Values counted by themselves, those with most events: 1 to 50; 10 if absent"),
        ("bucket" = Option<String>, Query, description = "Piece of time, as in 5m, 1h, 1d: needs from and to, at most 1000 of them"),
        ("from" = Option<String>, Query, description = "Not before (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Before (RFC 3339)"),
        ("node" = Option<String>, Query, description = "Recorded by this node, or about it: name or SPIFFE ID"),
        ("actor" = Option<String>, Query, description = "spiffe://…, apikey:<name>, cloud, anonymous"),
        ("type" = Option<String>, Query, description = "node.quarantined, or node.* for a family"),
        ("verdict" = Option<String>, Query, description = "allow, deny or none"),
        ("rule" = Option<String>, Query, description = "Id of the policy rule that decided"),
        ("serial" = Option<String>, Query, description = "Serial number of a certificate, lower-case hex"),
    ),
    responses((status = 200, body = StatsView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn stats(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
) -> Result<Json<StatsView>, Problem> {
    let asked = StatsQuery::parse(
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
        api.keys.trust_domain(),
    )
    .map_err(|error| Problem::bad_request(error.code(), error.to_string()))?;
    // A few at a time: each reads much. Callers wait for their turn until the deadline.
    let _turn = api
        .counting
        .acquire()
        .await
        .map_err(|error| Problem::internal(&error))?;
    let stats = api.store.stats(&asked).await.map_err(|fault| match fault {
        StatsFault::TooMany => Problem::new(
            StatusCode::BAD_REQUEST,
            "stats_too_many",
            format!("{fault}: ask for a shorter time"),
        ),
        StatsFault::Store(fault) => fault.into(),
    })?;
    note_read(&api, &caller, "audit", &pairs).await?;
    Ok(Json(view(stats, &asked)))
}

fn view(stats: Stats, asked: &StatsQuery) -> StatsView {
    let counted: u64 = stats.values.iter().map(|(_, count)| count).sum();
    StatsView {
        others: match asked.by {
            Some(_) => stats.total.saturating_sub(counted),
            None => 0,
        },
        total: stats.total,
        by: asked.by.map(|by| by.as_str().to_owned()),
        values: stats
            .values
            .into_iter()
            .map(|(value, count)| CountView { value, count })
            .collect(),
        bucket_seconds: asked.bucket.map(|bucket| bucket.as_secs()),
        buckets: stats
            .buckets
            .into_iter()
            .map(|bucket| BucketView {
                time: bucket.start.into(),
                total: bucket.total,
                values: bucket.values,
            })
            .collect(),
    }
}
