//! Policies by stages, and going back to earlier ones.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_identity::PublicKey;
use edgeward_policy::space::{Change, compare};
use edgeward_policy::{CompiledPolicy, SourceFile};

use super::{compile, invalid, key_of, put_in_force, refused, signed, view};
use crate::access::Principal;
use crate::api::extract::Body;
use crate::api::problem::Problem;
use crate::api::views::{
    PolicyAbort, PolicyReport, PolicyRollback, PolicyStage, PolicyView, ProblemView, RolloutView,
};
use crate::api::{Api, Cloud};
use crate::hub::{Begin, RolloutFault};
use crate::rollout::{NoPlan, Plan};
use crate::store::policies::PolicyRow;

/// How long two policies are compared; what is not known by then is taken for a change that closes something.
const COMPARE_FOR: Duration = Duration::from_secs(15);

/// Show the policy that is being tried, and what its nodes were denied.
#[utoipa::path(get, path = "/api/v1/policies/stage", tag = "policies", operation_id = "policy_stage",
    responses((status = 200, body = RolloutView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(in crate::api) async fn status(State(api): Cloud) -> Result<Json<RolloutView>, Problem> {
    match api.control.rollout().await? {
        Some(progress) => Ok(Json(RolloutView::of(progress))),
        None => Err(Problem::not_found("no policy is being staged")),
    }
}

/// Stop the stages: nothing goes on until they are resumed or aborted.
#[utoipa::path(post, path = "/api/v1/policies/stage/pause", tag = "policies", operation_id = "policy_stage_pause",
    responses((status = 200, body = RolloutView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(in crate::api) async fn pause(
    State(api): Cloud,
    caller: Principal,
) -> Result<Json<RolloutView>, Problem> {
    api.control.pause_rollout(caller.actor()).await?;
    status(State(api)).await
}

/// Go on: this stage is held once more in full, and its denials do not stop it again.
#[utoipa::path(post, path = "/api/v1/policies/stage/resume", tag = "policies", operation_id = "policy_stage_resume",
    responses((status = 200, body = RolloutView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(in crate::api) async fn resume(
    State(api): Cloud,
    caller: Principal,
) -> Result<Json<RolloutView>, Problem> {
    api.control.resume_rollout(caller.actor()).await?;
    status(State(api)).await
}

/// End the trial: what was in force before is in force everywhere, as a new policy.
#[utoipa::path(post, path = "/api/v1/policies/stage/abort", tag = "policies", operation_id = "policy_stage_abort", request_body = PolicyAbort,
    responses((status = 201, body = PolicyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(in crate::api) async fn abort(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<PolicyAbort>,
) -> Result<(StatusCode, Json<PolicyView>), Problem> {
    let key = key_of(&caller)?;
    let progress = api.control.rollout().await?.ok_or_else(|| {
        let fault = RolloutFault::NotOpen;
        Problem::conflict(fault.code(), fault.to_string())
    })?;
    let base = progress.rollout.base;
    let (kept, _) = kept(&api, base).await?;
    let row = PolicyRow {
        number: request.number,
        applied: api.now(),
        applied_by: caller.actor().to_string(),
        key: hex::encode(key.point()),
        signature: request.signature,
        origin: Some(base),
        ..kept
    };
    check_signature(&api, &caller, &key, &row)?;
    api.control
        .abort_rollout(row.clone(), caller.actor())
        .await?;
    Ok((StatusCode::CREATED, Json(view(row, None, None))))
}

/// Apply an earlier policy's sources again, as a new policy: checked again, signed by the caller.
#[utoipa::path(post, path = "/api/v1/policies/rollback", tag = "policies", operation_id = "policy_rollback", request_body = PolicyRollback,
    responses((status = 201, body = PolicyView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(in crate::api) async fn rollback(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<PolicyRollback>,
) -> Result<(StatusCode, Json<PolicyView>), Problem> {
    let key = key_of(&caller)?;
    let (kept, files) = kept(&api, request.to).await?;
    let (files, compiled) = compile(&api, files, request.number).await?;
    let policy = match compiled {
        Ok(policy) => policy,
        Err(report) => {
            refused(&api, &caller, "policy_refused", &report.hash);
            return Err(invalid(&report));
        }
    };
    let row = PolicyRow {
        number: request.number,
        hash: policy.report().hash.clone(),
        applied: api.now(),
        applied_by: caller.actor().to_string(),
        key: hex::encode(key.point()),
        signature: request.signature,
        summary: PolicyReport::of(policy.report()).summary,
        origin: Some(kept.number),
    };
    check_signature(&api, &caller, &key, &row)?;
    put_in_force(&api, &caller, &row, &files, policy).await?;
    Ok((StatusCode::CREATED, Json(view(row, None, None))))
}

/// Begins the first stage of a policy that was checked and whose signature is good.
pub(super) async fn begin(
    api: &Arc<Api>,
    caller: &Principal,
    stage: PolicyStage,
    row: PolicyRow,
    files: Vec<SourceFile>,
    policy: CompiledPolicy,
) -> Result<(), Problem> {
    let plan = Plan::new(&stage.percent, Duration::from_secs(stage.hold_seconds))?;
    let base = api.control.policy().ok_or_else(|| {
        let fault = RolloutFault::NoBase;
        Problem::conflict(fault.code(), fault.to_string())
    })?;
    if let Some(signature) = &stage.return_signature {
        let key = key_of(caller)?;
        let next = row.number.saturating_add(1);
        signed(api, &key, next, &base.report().hash, signature)?;
    }
    let policy = Arc::new(policy);
    let change = change_of(api, base, policy.clone()).await?;
    let begin = Begin {
        policy,
        row,
        files,
        plan,
        change,
        return_signature: stage.return_signature,
    };
    api.control.begin_rollout(begin, caller.actor()).await?;
    Ok(())
}

async fn change_of(
    api: &Api,
    base: Arc<CompiledPolicy>,
    candidate: Arc<CompiledPolicy>,
) -> Result<Change, Problem> {
    let now = api.now();
    let comparing = tokio::task::spawn_blocking(move || compare(&base, &candidate, now));
    match tokio::time::timeout(COMPARE_FOR, comparing).await {
        Ok(change) => change.map_err(|error| Problem::internal(&error)),
        Err(_) => Ok(Change::Mixed),
    }
}

async fn kept(api: &Api, number: u64) -> Result<(PolicyRow, Vec<SourceFile>), Problem> {
    let kept = api.store.policy(number).await?;
    kept.ok_or_else(|| Problem::not_found("no such policy"))
}

fn check_signature(
    api: &Api,
    caller: &Principal,
    key: &PublicKey,
    row: &PolicyRow,
) -> Result<(), Problem> {
    signed(api, key, row.number, &row.hash, &row.signature)
        .inspect_err(|_| refused(api, caller, "policy_signature", &row.hash))
}

impl From<NoPlan> for Problem {
    fn from(why: NoPlan) -> Self {
        Self::bad_request("policy_stage_plan", why.to_string())
    }
}

impl From<RolloutFault> for Problem {
    fn from(fault: RolloutFault) -> Self {
        match fault {
            RolloutFault::Hub(fault) => Self::internal(&fault),
            fault => Self::conflict(fault.code(), fault.to_string()),
        }
    }
}
