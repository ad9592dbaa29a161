//! Certificates of TPM makers that EK certificates are checked against.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_audit::event::{Event, EventKind};
use edgeward_evidence::Digest;
use edgeward_identity::Tier;

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{EkImportRequest, EkImportedView, EkRootView, ProblemView};
use super::{Cloud, Items, items};
use crate::access::Principal;
use crate::ek::{Known, Source, TrustFault, Wanted, import as judge, subject_of};
use crate::when::When;

/// Most certificates in one request.
const MAX_IMPORT: usize = 16;

/// List the certificates, with the tier that each proves.
#[utoipa::path(get, path = "/api/v1/ek-roots", tag = "cloud", operation_id = "ek_root_list",
    responses((status = 200, body = Items<EkRootView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Json<Items<EkRootView>> {
    items(api.ek.known().iter().map(view).collect())
}

/// Import certificates. One that the built-in list knows gets its tier; any other one needs an explicit `trust`. Each is
/// taken or refused by itself.
#[utoipa::path(post, path = "/api/v1/ek-roots", tag = "cloud", operation_id = "ek_root_import", request_body = EkImportRequest,
    responses((status = 200, body = Items<EkImportedView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn import(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<EkImportRequest>,
) -> Result<Json<Items<EkImportedView>>, Problem> {
    if request.certificates.is_empty() || request.certificates.len() > MAX_IMPORT {
        return Err(Problem::bad_request(
            "certificates",
            format!("not from 1 to {MAX_IMPORT} certificates"),
        ));
    }
    let trust = match request.trust.as_deref() {
        None => None,
        Some(word) => Some(
            word.parse::<Tier>()
                .map_err(|error| Problem::bad_request("trust", error.to_string()))?,
        ),
    };
    let wanted = Wanted {
        trust,
        after_its_end: request.after_its_end,
        sets_in_any_order: request.sets_in_any_order,
    };
    let (now, actor) = (api.now(), caller.actor().clone());
    let mut answers = Vec::new();
    let mut tx = api.store.begin("ek_root.import").await?;
    for text in &request.certificates {
        let der = STANDARD
            .decode(text)
            .map_err(|_| Problem::bad_request("certificates", "not base64"))?;
        let judged = judge(&der, wanted, &actor.to_string(), now);
        let mut answer = EkImportedView {
            fingerprint: Digest::of(&der).to_string(),
            name: subject_of(&der),
            tier: None,
            pinned: false,
            refused: None,
            detail: None,
        };
        match judged {
            Ok(row) => {
                answer.tier = Some(row.tier.to_string());
                answer.pinned = row.pinned > 0;
                tx.put_ek_certificate(&row).await?;
                let event = Event::new(now, actor.clone(), EventKind::EkRootTrusted)
                    .allowed()
                    .detail("certificate", row.sha256)
                    .detail("subject", &answer.name)
                    .detail("tier", row.tier)
                    .detail("pinned", row.pinned)
                    .detail("after_its_end", row.after_its_end)
                    .detail("sets_in_any_order", row.sets_in_any_order);
                api.audit.record_in(&mut tx, event).await?;
            }
            Err(refused) => {
                answer.refused = Some(refused.code().to_owned());
                answer.detail = Some(refused.to_string());
            }
        }
        answers.push(answer);
    }
    tx.commit().await?;
    api.ek.look().await?;
    Ok(items(answers))
}

/// Remove an imported certificate: no EK leads to it any more. Nodes that enrolled under it stay.
#[utoipa::path(delete, path = "/api/v1/ek-roots/{fingerprint}", tag = "cloud", operation_id = "ek_root_remove", params(("fingerprint" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(api): Cloud,
    caller: Principal,
    Named(fingerprint): Named<String>,
) -> Result<StatusCode, Problem> {
    let sha256: Digest = fingerprint
        .parse()
        .map_err(|_| Problem::bad_request("fingerprint", "not a sha-256 in hex"))?;
    let mut tx = api.store.begin("ek_root.remove").await?;
    if !tx.remove_ek_certificate(&sha256).await? {
        return Err(Problem::not_found(
            "no such certificate was imported; one in the folder is removed there",
        ));
    }
    let event = Event::new(api.now(), caller.actor().clone(), EventKind::EkRootRemoved)
        .detail("certificate", sha256);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.ek.look().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(known: &Known) -> EkRootView {
    EkRootView {
        name: known.subject.clone(),
        tier: known.tier.to_string(),
        fingerprint: known.sha256.to_string(),
        expires: When(known.expires),
        pinned: known.pinned,
        source: match &known.source {
            Source::File(name) => name.clone(),
            Source::Operator(actor) => actor.clone(),
        },
        sets_in_any_order: known.terms.sets_in_any_order,
        after_its_end: known.terms.after_its_end,
        refused: known.refused.map(str::to_owned),
    }
}

impl From<TrustFault> for Problem {
    fn from(fault: TrustFault) -> Self {
        match fault {
            TrustFault::Store(fault) => fault.into(),
            TrustFault::Folder(_) => Self::internal(&fault),
        }
    }
}
