//! Following the log over lost connections.

use std::time::Duration;

use http_body_util::BodyExt;

use super::super::client::Client;
use super::super::{Failure, Session};
use super::show::show;
use crate::api::views::EventView;

/// How long `tail` waits before it asks again after a lost connection.
const RETRY: Duration = Duration::from_secs(2);
/// Longest line of a followed answer, in bytes: an event is far smaller.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// Follows until Ctrl-C, over lost connections, without a hole and without repeats.
pub(super) async fn tail(session: &Session, client: &Client, path: &str) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    let mut told = false;
    loop {
        let followed = tokio::select! {
            followed = follow_once(session, client, path, &mut last) => followed,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match followed {
            Ok(()) | Err(Failure::Unreachable(_)) => {
                if !told {
                    session.screen.note("the connection was lost; trying again");
                    told = true;
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn follow_once(
    session: &Session,
    client: &Client,
    path: &str,
    last: &mut Option<String>,
) -> Result<(), Failure> {
    let mut body = client.follow(path, last.as_deref()).await?.into_body();
    let mut lines = Lines::default();
    let mut id = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        for line in lines.push(bytes)? {
            if let Some(value) = line.strip_prefix("id:") {
                id = Some(value.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data:")
                && let Some(id) = id.take()
            {
                let event: EventView = serde_json::from_str(data.trim())
                    .map_err(|error| Failure::Answer(error.to_string()))?;
                show(session, &event);
                *last = Some(id);
            }
        }
    }
    Ok(())
}

/// Lines of a stream of server-sent events.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() + piece.len() > MAX_LINE_BYTES {
                return Err(Failure::Answer(
                    "a line is longer than any event".to_owned(),
                ));
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_never_end_are_refused() {
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'a'; MAX_LINE_BYTES]).is_ok());
        assert!(lines.push(b"a").is_err());
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"id: 1\nda").unwrap(), ["id: 1"]);
        assert_eq!(lines.push(b"ta: x\r\n\n").unwrap(), ["data: x", ""]);
    }
}
