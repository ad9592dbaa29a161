//! Alerts as messages of RFC 5424, octets counted (RFC 5425, RFC 6587). The protocol acknowledges nothing: a word counts
//! as taken when the receiver ends the connection after our orderly end of it.

use std::borrow::Cow;

use edgeward_audit::export;
use edgeward_audit::export::syslog::{Element, Head, frame};
use edgeward_identity::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEADLINE, NotTaken};
use crate::alerts::rule::Severity;
use crate::alerts::say::Saying;
use crate::dial::{Endpoint, connect};

pub(super) async fn write(
    server: &Endpoint,
    facility: u8,
    (id, body): (u64, &str),
    now: Timestamp,
) -> Result<(), NotTaken> {
    let message = message(facility, id, body, now)?;
    let lost = |error: std::io::Error| NotTaken::Now(format!("{}: {error}", server.authority()));
    let mut wire = connect(server, DEADLINE, &[]).await?;
    wire.write_all(&frame(&message)).await.map_err(lost)?;
    wire.flush().await.map_err(lost)?;
    wire.shutdown().await.map_err(lost)?;
    // Receivers say nothing: what comes is an end.
    let mut rest = [0; 64];
    loop {
        match wire.read(&mut rest).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // A receiver of TLS that ends without saying so has read all the same.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(lost(error)),
        }
    }
}

fn message(facility: u8, id: u64, body: &str, now: Timestamp) -> Result<String, NotTaken> {
    let said: Saying =
        serde_json::from_str(body).map_err(|error| NotTaken::Ever(error.to_string()))?;
    let alert = &said.data;
    let mut params = vec![
        ("id", Cow::from(id.to_string())),
        ("number", alert.number.to_string().into()),
        ("word", said.kind.as_str().into()),
        ("rule", alert.rule.as_str().into()),
        ("severity", alert.severity.as_str().into()),
        ("about", alert.about.as_str().into()),
        ("hits", alert.hits.to_string().into()),
    ];
    if let Some(event) = alert.last_event {
        params.push(("event", event.to_string().into()));
    }
    if let Some(quarantine) = &alert.quarantine {
        params.push(("quarantine", quarantine.as_str().into()));
    }
    let severity = match alert.severity {
        Severity::Notice => export::Severity::Notice,
        Severity::Minor => export::Severity::Warning,
        Severity::Critical => export::Severity::Critical,
    };
    let host = said.cloud.strip_prefix("spiffe://").unwrap_or(&said.cloud);
    let head = Head {
        facility,
        severity,
        time: now,
        host,
        process: "alerts",
        id: &said.kind,
    };
    let text = match alert.what.is_empty() {
        true => alert.summary.clone(),
        false => format!("{}: {}", alert.summary, alert.what),
    };
    let element = Element {
        name: "alert",
        params,
    };
    Ok(export::syslog::write(head, &[element], &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_line_whatever_stands_in_it() {
        let now = Timestamp::from_secs(1_800_000_000);
        let mut alert = crate::alerts::sink::test_alert(now);
        alert.severity = Severity::Critical;
        alert.key = "node/\"x\"] \n<0>".to_owned();
        alert.what = "one\ntwo".to_owned();
        let cloud = "spiffe://plant.example/cloud/main".parse().unwrap();
        let body = crate::alerts::say::saying(&cloud, &alert, "alert.opened", now);
        let line = message(14, 7, &body, now).unwrap();
        assert!(line.starts_with("<114>1 2027-01-15T08:00:00"), "{line}");
        assert!(!line.contains('\n'), "{line}");
        assert!(
            line.contains("word=\"alert.opened\"") && line.contains("\\\"x\\\"\\]"),
            "{line}"
        );
        assert!(message(14, 7, "{", now).is_err());
    }
}
