//! A process that asks for its identities with the `spiffe` crate, a client of the SPIFFE Workload API that was written
//! elsewhere, and says as JSON lines what it got. `workload-client SOCKET AUDIENCE [watch]`; `watch` waits for a
//! rotation that is pushed. Run by `tests/scenarios/workload.rs` as users of its choice.

use anyhow::Context;
use serde_json::json;
use spiffe::{BundleSource, SpiffeId, WorkloadApiClient};
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let socket = words.next().context("no socket")?;
    let audience = words.next().context("no audience")?;
    let watch = words.next().as_deref() == Some("watch");
    let client = WorkloadApiClient::connect_to(format!("unix:{socket}")).await?;
    let mut contexts = client.stream_x509_contexts().await?;
    let first = contexts.next().await.context("no message")??;
    let svid = first.default_svid().context("no svid")?;
    let domain = svid.spiffe_id().trust_domain();
    let bundles = client.fetch_x509_bundles().await?;
    let roots = bundles.get(domain).context("no bundle")?;
    let token = client.fetch_jwt_svid([audience.as_str()], None).await?;
    let valid = client.validate_jwt_token(&audience, token.token()).await?;
    let other = client
        .validate_jwt_token("somebody-else", token.token())
        .await;
    let keys = client.fetch_jwt_bundles().await?;
    let keys = keys.bundle_for_trust_domain(domain)?.context("no keys")?;
    let stranger: SpiffeId = "spiffe://plant.example/workload/stranger".parse()?;
    let foreign = client
        .fetch_jwt_svid([audience.as_str()], Some(&stranger))
        .await;
    let ids: Vec<String> = first
        .svids()
        .iter()
        .map(|svid| svid.spiffe_id().to_string())
        .collect();
    let told = json!({
        "ids": ids,
        "leaf": hex::encode(svid.leaf().as_bytes()),
        "chain": svid.cert_chain().len(),
        "roots": roots.authorities().len(),
        "token": token.token(),
        "token_id": token.spiffe_id().to_string(),
        "validated": valid.spiffe_id().to_string(),
        "other_audience_refused": other.is_err(),
        "other_identity_refused": foreign.is_err(),
        "key_known": keys.find_jwt_authority(token.key_id()).is_some(),
    });
    say(&told);
    if watch {
        let next = contexts.next().await.context("the stream ended")??;
        let svid = next.default_svid().context("no svid")?;
        say(&json!({ "leaf": hex::encode(svid.leaf().as_bytes()) }));
    }
    Ok(())
}

fn say(value: &serde_json::Value) {
    println!("{value}");
}
