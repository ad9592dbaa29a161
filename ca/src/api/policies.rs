//! Policies: check, apply, look back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::PublicKey;
use edgeward_policy::{CompiledPolicy, Report, SourceFile};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{PolicyApply, PolicyCheck, PolicyFile, PolicyReport, PolicyView, ProblemView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::hub::RolloutFault;
use crate::rollout::{Phase, Rollout};
use crate::store::StoreError;
use crate::store::policies::PolicyRow;

pub(super) mod staging;

/// Check policy files and run the tests in them. Nothing is stored.
#[utoipa::path(post, path = "/api/v1/policies/check", tag = "policies", operation_id = "policy_check", request_body = PolicyCheck,
    responses((status = 200, body = PolicyReport), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn check(
    State(api): Cloud,
    Body(request): Body<PolicyCheck>,
) -> Result<Json<PolicyReport>, Problem> {
    let (_, result) = compile(&api, sources(request.files), 0).await?;
    Ok(Json(match result {
        Ok(policy) => PolicyReport::of(policy.report()),
        Err(report) => PolicyReport::of(&report),
    }))
}

/// Apply a policy: checked again, its tests run, stored, recorded, cut into slices, signed and pushed to every node, or to
/// those of its first stage.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", operation_id = "policy_apply", request_body = PolicyApply,
    responses((status = 201, body = PolicyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn apply(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<PolicyApply>,
) -> Result<(StatusCode, Json<PolicyView>), Problem> {
    let key = key_of(&caller)?;
    let (files, compiled) = compile(&api, sources(request.files), request.number).await?;
    let policy = match compiled {
        Ok(policy) => policy,
        Err(report) => {
            refused(&api, &caller, "policy_refused", &report.hash);
            return Err(invalid(&report));
        }
    };
    let hash = policy.report().hash.clone();
    if let Err(problem) = signed(&api, &key, request.number, &hash, &request.signature) {
        refused(&api, &caller, "policy_signature", &hash);
        return Err(problem);
    }
    let row = PolicyRow {
        number: request.number,
        hash,
        applied: api.now(),
        applied_by: caller.actor().to_string(),
        key: hex::encode(key.point()),
        signature: request.signature,
        summary: PolicyReport::of(policy.report()).summary,
        origin: None,
    };
    match request.stage {
        Some(stage) => staging::begin(&api, &caller, stage, row.clone(), files, policy).await?,
        None => put_in_force(&api, &caller, &row, &files, policy).await?,
    }
    let rollouts = api.store.rollouts().await?;
    let stage = rollouts.get(&row.number).map(stage_words);
    Ok((StatusCode::CREATED, Json(view(row, stage, None))))
}

/// List applied policies, newest first.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", operation_id = "policy_history",
    responses((status = 200, body = Items<PolicyView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn history(State(api): Cloud) -> Result<Json<Items<PolicyView>>, Problem> {
    let rows = api.store.policies().await?;
    let rollouts = api.store.rollouts().await?;
    let views = rows.into_iter().map(|row| {
        let stage = rollouts.get(&row.number).map(stage_words);
        view(row, stage, None)
    });
    Ok(items(views.collect()))
}

/// Show the policy in force with its sources.
#[utoipa::path(get, path = "/api/v1/policies/current", tag = "policies", operation_id = "policy_current",
    responses((status = 200, body = PolicyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn current(State(api): Cloud) -> Result<Json<PolicyView>, Problem> {
    let number = api.store.policy_in_force().await?;
    one(&api, number).await
}

/// Show one applied policy with its sources.
#[utoipa::path(get, path = "/api/v1/policies/{number}", tag = "policies", operation_id = "policy_show", params(("number" = u64, Path)),
    responses((status = 200, body = PolicyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(api): Cloud,
    Named(number): Named<u64>,
) -> Result<Json<PolicyView>, Problem> {
    one(&api, number).await
}

async fn one(api: &Api, number: u64) -> Result<Json<PolicyView>, Problem> {
    match api.store.policy(number).await? {
        Some((row, files)) => {
            let rollouts = api.store.rollouts().await?;
            let stage = rollouts.get(&row.number).map(stage_words);
            Ok(Json(view(row, stage, Some(files))))
        }
        None if number == 0 => Err(Problem::not_found("no policy was applied yet")),
        None => Err(Problem::not_found("no such policy")),
    }
}

/// Compiles on a thread that may block, few at a time.
async fn compile(
    api: &Api,
    files: Vec<SourceFile>,
    number: u64,
) -> Result<(Vec<SourceFile>, Result<CompiledPolicy, Box<Report>>), Problem> {
    let _turn = api
        .compiling
        .acquire()
        .await
        .map_err(|error| Problem::internal(&error))?;
    tokio::task::spawn_blocking(move || {
        let compiled = CompiledPolicy::compile(&files, number);
        (files, compiled)
    })
    .await
    .map_err(|error| Problem::internal(&error))
}

fn key_of(caller: &Principal) -> Result<PublicKey, Problem> {
    caller.key().copied().ok_or_else(|| {
        Problem::bad_request("policy_signature", "a policy is applied with a certificate")
    })
}

/// Stored, recorded, and then in force everywhere.
async fn put_in_force(
    api: &Api,
    caller: &Principal,
    row: &PolicyRow,
    files: &[SourceFile],
    policy: CompiledPolicy,
) -> Result<(), Problem> {
    store(api, caller, row, files).await?;
    api.control.activate(Arc::new(policy)).await?;
    Ok(())
}

fn signed(
    api: &Api,
    key: &PublicKey,
    number: u64,
    hash: &str,
    signature: &str,
) -> Result<(), Problem> {
    let message = PolicyApply::message(api.keys.trust_domain(), number, hash);
    hex::decode(signature)
        .ok()
        .filter(|signature| key.verify(&message, signature).is_ok())
        .map(|_| ())
        .ok_or_else(|| {
            Problem::bad_request(
                "policy_signature",
                "the signature is not by the caller's key over this policy and number",
            )
        })
}

async fn store(
    api: &Api,
    caller: &Principal,
    row: &PolicyRow,
    files: &[SourceFile],
) -> Result<(), Problem> {
    let mut tx = api.store.begin("policy.apply").await?;
    if let Some(open) = tx.open_rollout().await? {
        return Err(RolloutFault::Open(open.number).into());
    }
    let expected = tx.policy_number().await?.saturating_add(1);
    if row.number != expected {
        return Err(Problem::conflict(
            "policy_number",
            format!(
                "the next policy is number {expected}: somebody else applied one, look at it first"
            ),
        ));
    }
    tx.add_policy(row, files)
        .await
        .map_err(|error| match error {
            StoreError::Exists => Problem::conflict("policy_number", "somebody else was faster"),
            other => other.into(),
        })?;
    let event = Event::new(
        row.applied,
        caller.actor().clone(),
        EventKind::PolicyApplied,
    )
    .subject(format!("policy:{}", row.number).as_str())
    .allowed()
    .detail("hash", &row.hash)
    .detail("signature", &row.signature)
    .detail("rules", row.summary.get("rules").copied().unwrap_or(0));
    let event = match row.origin {
        Some(origin) => event.detail("returned_to", origin),
        None => event,
    };
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(())
}

fn refused(api: &Api, caller: &Principal, code: &str, hash: &str) {
    api.audit.later(
        Event::new(api.now(), caller.actor().clone(), EventKind::PolicyRefused)
            .subject("policy")
            .denied(code)
            .detail("hash", hash),
    );
}

fn invalid(report: &Report) -> Problem {
    let count = report.diagnostics.len();
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "policy_invalid",
        format!("the policy has {count} errors and was not applied"),
    )
    .with_findings(PolicyReport::of(report).errors)
}

fn sources(files: Vec<PolicyFile>) -> Vec<SourceFile> {
    files
        .into_iter()
        .map(|file| SourceFile::new(file.path, file.text))
        .collect()
}

fn stage_words(rollout: &Rollout) -> String {
    let percent = rollout.percent().get();
    match &rollout.phase {
        Phase::Holding => format!("{percent}%"),
        Phase::Paused(_) => format!("{percent}% paused"),
        ended @ (Phase::Done | Phase::Returned) => ended.as_str().to_owned(),
    }
}

fn view(row: PolicyRow, stage: Option<String>, files: Option<Vec<SourceFile>>) -> PolicyView {
    PolicyView {
        number: row.number,
        hash: row.hash,
        applied: row.applied.into(),
        applied_by: row.applied_by,
        key: row.key,
        signature: row.signature,
        summary: row.summary,
        returned_to: row.origin,
        stage,
        files: files.map(|files| {
            files
                .into_iter()
                .map(|file| PolicyFile {
                    path: file.path,
                    text: file.text,
                })
                .collect()
        }),
    }
}
