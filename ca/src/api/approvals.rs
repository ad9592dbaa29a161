//! Approvals: operators let a rule count for one subject, for a while.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::{Kind, PublicKey, SpiffeId, Timestamp};
use edgeward_policy::{ApprovalTerms, CompiledPolicy};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{ApprovalRequest, ApprovalTermsView, ApprovalView, ProblemView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::approvals::{counts, in_force, is_oneself, lasts_until, message, signed_by};
use crate::store::approvals::{ApprovalRow, MAX_APPROVALS};
use crate::store::operators::Operator;

/// What numbers approvals.
const NUMBER: &str = "approval.number";

/// What it takes to approve a rule of the policy in force.
#[utoipa::path(get, path = "/api/v1/approvals/rules/{rule}", tag = "policies", operation_id = "approval_terms", params(("rule" = String, Path)),
    responses((status = 200, body = ApprovalTermsView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn terms(
    State(api): Cloud,
    Named(rule): Named<String>,
) -> Result<Json<ApprovalTermsView>, Problem> {
    let terms = terms_of(&api, &rule)?;
    Ok(Json(ApprovalTermsView {
        rule,
        digest: hex::encode(terms.digest),
        by: terms.by.into_iter().collect(),
        quorum: terms.quorum,
        ttl_seconds: terms.ttl.get(),
    }))
}

/// Approvals that have not ended, newest first.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "policies", operation_id = "approval_list",
    responses((status = 200, body = Items<ApprovalView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<ApprovalView>>, Problem> {
    let scene = Scene::read(&api).await?;
    let views = scene.rows.iter().map(|row| scene.view(row));
    Ok(items(views.collect()))
}

/// Approve: signed by the caller's key, recorded, and in every slice that it concerns once its quorum is there.
#[utoipa::path(post, path = "/api/v1/approvals", tag = "policies", operation_id = "approval_give", request_body = ApprovalRequest,
    responses((status = 201, body = ApprovalView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn give(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<ApprovalRequest>,
) -> Result<(StatusCode, Json<ApprovalView>), Problem> {
    let row = match judged(&api, &caller, &request) {
        Ok(row) => row,
        Err(problem) => {
            let event = Event::new(
                api.now(),
                caller.actor().clone(),
                EventKind::ApprovalRefused,
            )
            .rule(&request.rule)
            .denied(problem.code());
            api.audit.later(event);
            return Err(problem);
        }
    };
    let row = store(&api, &caller, row).await?;
    api.control.openings_changed().await?;
    let scene = Scene::read(&api).await?;
    Ok((StatusCode::CREATED, Json(scene.view(&row))))
}

/// Revoke an approval: the rule counts no more, unless enough others approve of the same.
#[utoipa::path(delete, path = "/api/v1/approvals/{number}", tag = "policies", operation_id = "approval_revoke", params(("number" = u64, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named(number): Named<u64>,
) -> Result<StatusCode, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("approval.revoke").await?;
    let by = caller.actor().to_string();
    let Some(row) = tx.revoke_approval(number, &by, now).await? else {
        return Err(Problem::not_found("no such approval, or revoked before"));
    };
    let event = Event::new(now, caller.actor().clone(), EventKind::ApprovalRevoked)
        .subject(row.subject)
        .rule(&row.rule)
        .detail("number", number)
        .detail("approver", &row.approver);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.control.openings_changed().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn terms_of(api: &Api, rule: &str) -> Result<ApprovalTerms, Problem> {
    let policy = api.control.policy();
    policy
        .and_then(|policy| policy.approval_terms(rule))
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no_such_approval",
                "the policy in force has no such rule, or it asks for no approval",
            )
        })
}

/// The row of a request that may be granted. Without its number.
fn judged(
    api: &Api,
    caller: &Principal,
    request: &ApprovalRequest,
) -> Result<ApprovalRow, Problem> {
    let forbidden = |code, text: &str| Problem::new(StatusCode::FORBIDDEN, code, text.to_owned());
    let terms = terms_of(api, &request.rule)?;
    if request.digest != hex::encode(terms.digest) {
        return Err(Problem::conflict(
            "approval_rule_changed",
            "the rule has another text now: look at it first",
        ));
    }
    let (key, approver) = signer(caller)?;
    if !terms.by.contains(approver.name()) {
        return Err(forbidden(
            "not_an_approver",
            "the policy in force does not let you approve this rule",
        ));
    }
    let domain = api.keys.trust_domain();
    let subject: SpiffeId = request
        .subject
        .parse()
        .ok()
        .filter(|id: &SpiffeId| {
            id.trust_domain() == domain
                && matches!(id.kind(), Kind::Node | Kind::Operator | Kind::Device)
        })
        .ok_or_else(|| {
            Problem::bad_request(
                "approval_subject",
                "the subject is no node, operator or device of this trust domain",
            )
        })?;
    if is_oneself(approver.name(), &subject) {
        return Err(forbidden(
            "approval_of_oneself",
            "nobody approves of themselves",
        ));
    }
    let (now, until) = (api.now(), Timestamp::from_millis(request.until));
    if until <= now || until > now.plus(terms.ttl.as_duration()) {
        return Err(Problem::bad_request(
            "approval_until",
            format!("an approval of this rule ends within {}", terms.ttl),
        ));
    }
    let signed = message(domain, &request.rule, &request.digest, &subject, until);
    if !signed_by(&key, &signed, &request.signature) {
        return Err(Problem::bad_request(
            "approval_signature",
            "the signature is not by the caller's key over this approval",
        ));
    }
    Ok(ApprovalRow {
        number: 0,
        rule: request.rule.clone(),
        digest: request.digest.clone(),
        subject,
        until,
        approver: approver.name().to_owned(),
        key,
        signature: request.signature.clone(),
        given: now,
        revoked: None,
        revoked_by: None,
    })
}

fn signer(caller: &Principal) -> Result<(PublicKey, &SpiffeId), Problem> {
    match (caller.key(), caller.actor()) {
        (Some(key), Actor::Identity(id)) if id.kind() == Kind::Operator => Ok((*key, id)),
        _ => Err(Problem::bad_request(
            "approval_signature",
            "an approval is given with an operator's certificate",
        )),
    }
}

async fn store(api: &Api, caller: &Principal, row: ApprovalRow) -> Result<ApprovalRow, Problem> {
    let mut tx = api.store.begin("approval.give").await?;
    if tx.approvals_in_force(row.given).await? >= MAX_APPROVALS {
        return Err(Problem::conflict(
            "approval_limit",
            format!("more approvals than the limit: {MAX_APPROVALS}"),
        ));
    }
    let number = tx.raise_number(NUMBER).await?;
    let row = ApprovalRow { number, ..row };
    tx.add_approval(&row).await?;
    let event = Event::new(row.given, caller.actor().clone(), EventKind::ApprovalGiven)
        .subject(row.subject.clone())
        .rule(&row.rule)
        .allowed()
        .detail("number", number)
        .detail("until", crate::when::format(row.until))
        .detail("rule_sha256", &row.digest)
        .detail("signature", &row.signature);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Everything that an approval is shown with.
struct Scene {
    rows: Vec<ApprovalRow>,
    operators: Vec<Operator>,
    policy: Option<std::sync::Arc<CompiledPolicy>>,
    now: Timestamp,
}

impl Scene {
    async fn read(api: &Api) -> Result<Self, Problem> {
        let now = api.now();
        Ok(Self {
            rows: api.store.approvals(now).await?,
            operators: api.store.operators().await?,
            policy: api.control.policy(),
            now,
        })
    }

    fn terms(&self, rule: &str) -> Option<ApprovalTerms> {
        self.policy.as_ref()?.approval_terms(rule)
    }

    fn view(&self, row: &ApprovalRow) -> ApprovalView {
        let terms = self.terms(&row.rule);
        let counting = |row: &ApprovalRow| {
            terms
                .as_ref()
                .is_some_and(|terms| counts(row, terms, &self.operators))
        };
        let same = |other: &&ApprovalRow| other.rule == row.rule && other.subject == row.subject;
        let have: std::collections::BTreeSet<&str> = self
            .rows
            .iter()
            .filter(same)
            .filter(|other| counting(other))
            .map(|other| other.approver.as_str())
            .collect();
        let of_same: Vec<ApprovalRow> = self.rows.iter().filter(same).cloned().collect();
        let in_force = in_force(&of_same, &self.operators, |rule| self.terms(rule), self.now);
        let status = match (row.revoked, counting(row)) {
            (Some(_), _) => "revoked",
            (None, true) => "counts",
            (None, false) => "void",
        };
        let until = terms
            .as_ref()
            .map_or(row.until, |terms| lasts_until(row, terms));
        ApprovalView {
            number: row.number,
            rule: row.rule.clone(),
            subject: row.subject.to_string(),
            approver: row.approver.clone(),
            given: row.given.into(),
            until: until.into(),
            status: status.to_owned(),
            have: u16::try_from(have.len()).unwrap_or(u16::MAX),
            quorum: terms.map(|terms| terms.quorum),
            in_force: !in_force.is_empty(),
            revoked_by: row.revoked_by.clone(),
        }
    }
}
