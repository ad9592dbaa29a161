//! Webhooks as Standard Webhooks has them: JSON, signed by HMAC-SHA-256 over id, time and body, so that a receiver knows
//! who speaks, and notices what is old or comes twice.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use edgeward_identity::Timestamp;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use ring::hmac;
use zeroize::Zeroizing;

use super::{DEADLINE, NotTaken};
use crate::dial::{Endpoint, connect, read};

/// What begins a secret in base64.
const PREFIX: &str = "whsec_";
/// Shortest secret, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// Posts a word. Whatever the receiver answers beside its status is not read.
pub(super) async fn post(
    server: &Endpoint,
    path: &str,
    secret: &Path,
    (id, body): (u64, &str),
    now: Timestamp,
) -> Result<(), NotTaken> {
    let key = key(secret)?;
    let id = format!("edgeward-alert-{id}");
    let time = now.secs().to_string();
    let request = Request::post(path)
        .header(header::HOST, server.authority())
        .header(
            header::USER_AGENT,
            concat!("edgeward/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-signature", sign(&key, &id, &time, body))
        .header("webhook-id", id)
        .header("webhook-timestamp", time)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .map_err(|error| NotTaken::Now(error.to_string()))?;
    let lost = |error: hyper::Error| NotTaken::Now(format!("{}: {error}", server.authority()));
    let wire = connect(server, DEADLINE, &[b"http/1.1"]).await?;
    let (mut sender, connection) = handshake(TokioIo::new(wire)).await.map_err(lost)?;
    let driven = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(lost);
    driven.abort();
    judge(answer?.status())
}

fn judge(status: StatusCode) -> Result<(), NotTaken> {
    match status {
        taken if taken.is_success() => Ok(()),
        // What no later time changes about these very bytes, or about a receiver that is gone for good.
        StatusCode::BAD_REQUEST
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(NotTaken::Ever(status.to_string())),
        other => Err(NotTaken::Now(other.to_string())),
    }
}

/// The secret of a file: `whsec_` and base64, or any bytes.
fn key(path: &Path) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
    let bytes = read(path)?;
    let bytes = bytes.trim_ascii();
    let secret: Zeroizing<Vec<u8>> = match bytes.strip_prefix(PREFIX.as_bytes()) {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|_| NotTaken::Now(format!("{}: not base64", path.display())))?
            .into(),
        None => bytes.to_vec().into(),
    };
    match secret.len() < MIN_SECRET_BYTES {
        true => Err(NotTaken::Now(format!(
            "{}: a secret has at least 16 bytes",
            path.display()
        ))),
        false => Ok(secret),
    }
}

fn sign(secret: &[u8], id: &str, time: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            sign(
                &secret,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "1614265330",
                "{\"test\": 2432232314}"
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_that_is_short_or_no_base64_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for (text, why) in [
            ("fifteen bytes..", "at least 16"),
            ("whsec_!", "not base64"),
            ("whsec_c2hvcnQ=", "at least 16"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(key(&path).unwrap_err().why().contains(why), "{text}");
        }
        assert!(key(&folder.path().join("none")).is_err());
        std::fs::write(&path, "sixteen bytes...\n").unwrap();
        assert_eq!(key(&path).unwrap().len(), 16);
    }

    #[test]
    fn only_what_no_time_changes_is_given_up_at_once() {
        assert_eq!(judge(StatusCode::NO_CONTENT), Ok(()));
        for status in [302, 401, 404, 408, 429, 500, 503] {
            let judged = judge(StatusCode::from_u16(status).unwrap());
            assert!(matches!(judged, Err(NotTaken::Now(_))), "{status}");
        }
        for status in [400, 410, 413, 422] {
            let judged = judge(StatusCode::from_u16(status).unwrap());
            assert!(matches!(judged, Err(NotTaken::Ever(_))), "{status}");
        }
    }
}
