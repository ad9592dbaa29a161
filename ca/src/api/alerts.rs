//! Alerts: see them, acknowledge, silence, try the sinks.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};

use super::extract::{Body, Named, Pairs};
use super::problem::Problem;
use super::views::{
    AlertRuleView, AlertRulesView, AlertSinkView, AlertTestRequest, AlertTestView, AlertView,
    ProblemView, SilenceRequest, SilenceView,
};
use super::{Cloud, Items, items};
use crate::access::Principal;
use crate::alerts::Severity;
use crate::alerts::book::{Silence, State as Standing};
use crate::alerts::desk::NUMBER;
use crate::store::alerts::{MAX_LISTED, MAX_SILENCES};

/// Alerts, newest first. Without `state` those that are not over.
#[utoipa::path(get, path = "/api/v1/audit/alerts", tag = "audit", operation_id = "alert_list",
    params(
        ("state" = Option<String>, Query, description = "open, acknowledged or ended; may be given several times; all: every one"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 if absent")),
    responses((status = 200, body = Items<AlertView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): Cloud,
    Pairs(pairs): Pairs,
) -> Result<Json<Items<AlertView>>, Problem> {
    let malformed = || {
        Problem::bad_request(
            "query_malformed",
            "state is open, acknowledged, ended or all; limit is 1 to 1000",
        )
    };
    let mut states = BTreeSet::new();
    let (mut all, mut limit) = (false, 100);
    for (key, value) in &pairs {
        match (key.as_str(), value.as_str()) {
            ("state", "all") => all = true,
            ("state", text) => {
                let state: Standing = text.parse().map_err(|()| malformed())?;
                states.insert(state.as_str());
            }
            ("limit", text) => {
                limit = text
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_LISTED).contains(limit))
                    .ok_or_else(malformed)?;
            }
            _ => return Err(malformed()),
        }
    }
    let wanted: Vec<Standing> = Standing::ALL
        .into_iter()
        .filter(|state| match (all, states.is_empty()) {
            (true, _) => true,
            (false, true) => *state != Standing::Ended,
            (false, false) => states.contains(state.as_str()),
        })
        .collect();
    let found = api.store.alerts(&wanted, limit).await?;
    Ok(items(found.iter().map(AlertView::of).collect()))
}

/// Somebody has seen an alert: it is not said again until it is over.
#[utoipa::path(post, path = "/api/v1/audit/alerts/{number}/acknowledge", tag = "audit", operation_id = "alert_acknowledge", params(("number" = u64, Path)),
    responses((status = 200, body = AlertView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn acknowledge(
    State(api): Cloud,
    caller: Principal,
    Named(number): Named<u64>,
) -> Result<Json<AlertView>, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("alert.acknowledge").await?;
    let mut alert = (tx.alert(number).await?)
        .ok_or_else(|| Problem::not_found("no such alert, or it was over long ago"))?;
    alert.acknowledge(&caller.actor().to_string(), now);
    tx.put_alert(&alert).await?;
    let event = Event::new(now, caller.actor().clone(), EventKind::AlertAcknowledged)
        .subject(format!("alert {number}").as_str())
        .code(&alert.rule)
        .detail("severity", alert.severity);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(AlertView::of(&alert)))
}

/// Which rules are in force, and how whoever is told stands.
#[utoipa::path(get, path = "/api/v1/audit/alerts/rules", tag = "audit", operation_id = "alert_rules",
    responses((status = 200, body = AlertRulesView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn rules(State(api): Cloud) -> Result<Json<AlertRulesView>, Problem> {
    let config = api.alerts.config();
    let mut sinks = Vec::new();
    for sink in &config.sinks {
        let waiting = api.store.notices_of(&sink.name).await?;
        let oldest = api.store.next_notice(&sink.name).await?;
        sinks.push(AlertSinkView {
            name: sink.name.clone(),
            to: sink.to.shown(),
            least: sink.least,
            waiting: waiting.waiting,
            dead: waiting.dead,
            error: oldest.map_or_else(String::new, |notice| notice.error),
        });
    }
    Ok(Json(AlertRulesView {
        rules: api.alerts.rules().iter().map(AlertRuleView::of).collect(),
        sinks,
        quarantine: config.quarantine,
        quarantine_per_hour: config.quarantine_per_hour,
    }))
}

/// Say something to the sinks, to see whether they take it.
#[utoipa::path(post, path = "/api/v1/audit/alerts/test", tag = "audit", operation_id = "alert_test", request_body = AlertTestRequest,
    responses((status = 200, body = Items<AlertTestView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn test(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<AlertTestRequest>,
) -> Result<Json<Items<AlertTestView>>, Problem> {
    let tried = api.alerts.try_sinks(request.sink.as_deref()).await;
    if tried.is_empty() {
        return Err(Problem::not_found("there is no such sink, or none at all"));
    }
    let refused: Vec<&str> = tried
        .iter()
        .filter(|test| !test.taken)
        .map(|test| test.sink.as_str())
        .collect();
    let event = Event::new(api.now(), caller.actor().clone(), EventKind::AlertTested)
        .detail("sinks", tried.len())
        .detail("failed", refused.join(","));
    api.audit.record(event).await?;
    Ok(items(tried))
}

/// Silences that have not ended.
#[utoipa::path(get, path = "/api/v1/audit/alerts/silences", tag = "audit", operation_id = "alert_silences",
    responses((status = 200, body = Items<SilenceView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn silences(State(api): Cloud) -> Result<Json<Items<SilenceView>>, Problem> {
    let silences = api.store.silences(api.now()).await?;
    let in_force = silences.iter().filter(|silence| silence.lifted.is_none());
    Ok(items(in_force.map(SilenceView::of).collect()))
}

/// Tell nobody of some alerts for a while. They are opened and kept all the same, and what quarantines still does.
#[utoipa::path(post, path = "/api/v1/audit/alerts/silences", tag = "audit", operation_id = "alert_silence", request_body = SilenceRequest,
    responses((status = 201, body = SilenceView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn silence(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<SilenceRequest>,
) -> Result<(StatusCode, Json<SilenceView>), Problem> {
    let now = api.now();
    let mut silence = Silence {
        number: 0,
        rule: request.rule,
        key: request.about,
        most: request.most.unwrap_or(Severity::Critical),
        from: now,
        until: request.until.0,
        by: caller.actor().to_string(),
        reason: request.reason,
        lifted: None,
    };
    silence
        .check()
        .map_err(|bad| Problem::bad_request("silence_malformed", bad.to_string()))?;
    if let Some(rule) = &silence.rule
        && api.alerts.rules().get(rule).is_none()
    {
        return Err(Problem::not_found("no rule of this name is in force"));
    }
    let mut tx = api.store.begin("alert.silence").await?;
    if tx.count_silences(now).await? >= u64::from(MAX_SILENCES) {
        return Err(Problem::conflict(
            "silence_limit",
            format!("more silences than the limit: {MAX_SILENCES}"),
        ));
    }
    silence.number = tx.raise_number(NUMBER).await?;
    tx.put_silence(&silence).await?;
    let event = told(&caller, &silence, EventKind::AlertSilenced, now)
        .detail("until", crate::when::format(silence.until))
        .detail("reason", &silence.reason);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(SilenceView::of(&silence))))
}

/// Take a silence back.
#[utoipa::path(delete, path = "/api/v1/audit/alerts/silences/{number}", tag = "audit", operation_id = "alert_unsilence", params(("number" = u64, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn unsilence(
    State(api): Cloud,
    caller: Principal,
    Named(number): Named<u64>,
) -> Result<StatusCode, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("alert.unsilence").await?;
    let standing = tx.silence(number).await?;
    let mut silence = standing
        .filter(|silence| silence.lifted.is_none() && now < silence.until)
        .ok_or_else(|| Problem::not_found("no such silence, or it is over"))?;
    silence.lifted = Some(now);
    tx.put_silence(&silence).await?;
    let event = told(&caller, &silence, EventKind::AlertUnsilenced, now);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn told(
    caller: &Principal,
    silence: &Silence,
    kind: EventKind,
    now: edgeward_identity::Timestamp,
) -> Event {
    let event = Event::new(now, caller.actor().clone(), kind)
        .subject(format!("silence {}", silence.number).as_str())
        .detail("most", silence.most);
    let event = match &silence.rule {
        Some(rule) => event.code(rule),
        None => event,
    };
    match &silence.key {
        Some(key) => event.detail("about", key),
        None => event,
    }
}
