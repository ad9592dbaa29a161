//! `edgeward node result`.

use edgeward_evidence::result::MAX_RESULT_BYTES;
use edgeward_identity::jws::Compact;
use serde_json::Value;

use super::client::encode;
use super::progress::watch;
use super::{Failure, Session};
use crate::api::results::{NodeResult, ResultKey, ResultKeys};

/// Prints a node's newest result: the token, or what it says once its signature was verified.
pub(super) async fn show(session: &Session, name: &str, decode: bool) -> Result<(), Failure> {
    let client = session.client()?;
    let path = format!("/api/v1/nodes/{}/result", encode(name));
    let result: NodeResult =
        watch(&session.screen, "asking for the result", client.get(&path)).await?;
    if decode {
        let keys: ResultKeys = watch(
            &session.screen,
            "asking for the keys of results",
            client.get("/api/v1/results/keys"),
        )
        .await?;
        session.screen.json(&claims(&result.ear, &keys)?);
    } else if session.wants_json() {
        session.screen.json(&result);
    } else {
        session.screen.line(&result.ear);
    }
    Ok(())
}

fn claims(ear: &str, keys: &ResultKeys) -> Result<Value, Failure> {
    let broken = |what: &str| Failure::Answer(format!("the result {what}"));
    let token = Compact::parse(ear, MAX_RESULT_BYTES)
        .map_err(|error| broken(&format!("is no JWT of ours: {error}")))?;
    let kid = token.header_text("kid").unwrap_or_default();
    let key = keys
        .keys
        .iter()
        .find(|key| key.kid == kid)
        .and_then(ResultKey::key)
        .ok_or_else(|| broken("names a key that the cloud does not list"))?;
    let payload = token
        .verify(&key)
        .map_err(|_| broken("is not signed by the key that it names"))?;
    serde_json::from_slice(payload).map_err(|error| broken(&format!("has no claims: {error}")))
}
