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
    let mut message = Message::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        for line in lines.push(bytes)? {
            let Some(whole) = message.take(&line) else {
                continue;
            };
            if let Some(event) = whole.event()? {
                show(session, &event);
            }
            // Whatever it was: what comes after it is asked for again.
            if whole.id.is_some() {
                *last = whole.id;
            }
        }
    }
    Ok(())
}

/// What comes together, up to an empty line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    kind: String,
    id: Option<String>,
    data: String,
}

impl Message {
    /// One more line. The message, once it is whole: one that is cut off never is.
    fn take(&mut self, line: &str) -> Option<Self> {
        if line.is_empty() {
            return Some(std::mem::take(self));
        }
        if let Some(value) = line.strip_prefix("event:") {
            value.trim().clone_into(&mut self.kind);
        } else if let Some(value) = line.strip_prefix("id:") {
            self.id = Some(value.trim().to_owned());
        } else if let Some(value) = line.strip_prefix("data:") {
            self.data.push_str(value.trim());
        }
        None
    }

    fn event(&self) -> Result<Option<EventView>, Failure> {
        match self.kind.as_str() {
            "event" => serde_json::from_str(&self.data)
                .map(Some)
                .map_err(|error| Failure::Answer(error.to_string())),
            _ => Ok(None),
        }
    }
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
    fn a_place_in_the_log_is_kept_before_the_first_event_and_of_whole_messages_only() {
        let mut message = Message::default();
        let mut ids = Vec::new();
        let said =
            "event: caught-up\ndata: {}\nid: 5\n\n: alive\n\nid: 6\nevent: event\ndata: x\n\nid: 7";
        for line in said.lines() {
            if let Some(whole) = message.take(line) {
                assert_eq!(whole.event().is_err(), whole.kind == "event", "{whole:?}");
                ids.extend(whole.id);
            }
        }
        assert_eq!(ids, ["5", "6"]);
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"id: 1\nda").unwrap(), ["id: 1"]);
        assert_eq!(lines.push(b"ta: x\r\n\n").unwrap(), ["data: x", ""]);
    }
}
