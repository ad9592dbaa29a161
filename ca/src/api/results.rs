//! Attestation results for third parties: a node's newest one, and the keys that sign them.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeward_identity::{PublicKey, Purpose};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Cloud;
use super::extract::Named;
use super::problem::Problem;
use super::views::ProblemView;

/// A JWK set (RFC 7517).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultKeys {
    pub keys: Vec<ResultKey>,
}

/// A key that signs results, as a JWK.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultKey {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// `ES256`.
    pub alg: String,
    /// SHA-256 of the key's SPKI, in hex: what a result's header names.
    pub kid: String,
    pub x: String,
    pub y: String,
}

/// What the cloud says of a node's evidence.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeResult {
    pub node: String,
    /// An EAR: a JWT in compact form, signed by one of the keys under `/api/v1/results/keys`.
    pub ear: String,
}

/// The keys that sign attestation results, for whoever verifies one elsewhere.
#[utoipa::path(get, path = "/api/v1/results/keys", tag = "nodes", operation_id = "result_keys",
    responses((status = 200, body = ResultKeys, content_type = "application/jwk-set+json"), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn keys(State(api): Cloud) -> Result<impl IntoResponse, Problem> {
    let now = api.now();
    let set = api
        .keys
        .key_set(now)
        .map_err(|fault| Problem::internal(&fault))?;
    let keys = set.keys_for(Purpose::Results, now);
    let body = ResultKeys {
        keys: keys.iter().map(ResultKey::of).collect(),
    };
    Ok(([(CONTENT_TYPE, "application/jwk-set+json")], Json(body)))
}

/// The newest attestation result of a node, as an EAR. There is none while its evidence has failed.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/result", tag = "nodes", operation_id = "node_result", params(("name" = String, Path)),
    responses((status = 200, body = NodeResult), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(api): Cloud,
    Named(name): Named<String>,
) -> Result<Json<NodeResult>, Problem> {
    if api.store.node(&name).await?.is_none() {
        return Err(Problem::not_found("no such node"));
    }
    let row = api.store.attestation(&name).await?;
    let ear = row
        .and_then(|row| row.result)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Problem::not_found("the node has no attestation result now"))?;
    Ok(Json(NodeResult { node: name, ear }))
}

impl ResultKey {
    fn of(key: &PublicKey) -> Self {
        let (x, y) = key.coordinates();
        Self {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            usage: "sig".to_owned(),
            alg: "ES256".to_owned(),
            kid: key.spki_hash().to_string(),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }
    }

    /// The key, if it is what it says.
    pub fn key(&self) -> Option<PublicKey> {
        let mut point = vec![4];
        for half in [&self.x, &self.y] {
            point.extend(URL_SAFE_NO_PAD.decode(half).ok()?);
        }
        let key = PublicKey::from_point(&point).ok()?;
        (key.spki_hash().to_string() == self.kid).then_some(key)
    }
}
