//! Syslog over TCP or TLS: messages in counted octets (RFC 5425, RFC 6587 3.4.1).
//!
//! The protocol has no acknowledgement. What was written counts as received when the connection stood for longer than the
//! kernel lets anything go unacknowledged (`TCP_USER_TIMEOUT`), or when the receiver answered our orderly end with its own.
//! A connection that breaks before that is opened anew, and everything not confirmed is given again: so a receiver that is
//! killed costs doubles, which carry the same index, and only one that hangs for longer than that and is then killed with
//! messages in its kernel's buffer loses them.

use std::collections::VecDeque;
use std::time::Duration;

use edgeward_audit::export::{Exported, syslog};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{Given, NotGiven, line};
use crate::config::exports::Export;
use crate::dial::{Endpoint, Wire, connect};

/// How long a connection must stand beyond the kernel's own limit.
const MARGIN: Duration = Duration::from_millis(500);
/// What is written within this time is confirmed together.
const GROUP: Duration = Duration::from_millis(100);

pub(crate) struct StreamSink {
    endpoint: Endpoint,
    timeout: Duration,
    wire: Option<Wire>,
    /// What is on its way, oldest first.
    unconfirmed: VecDeque<Group>,
}

/// Events up to `last`, written from `first_at` to `last_at`.
#[derive(Debug)]
struct Group {
    last: u64,
    first_at: Instant,
    last_at: Instant,
}

impl StreamSink {
    pub(crate) fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self {
            endpoint,
            timeout,
            wire: None,
            unconfirmed: VecDeque::new(),
        }
    }

    pub(super) async fn give(
        &mut self,
        export: &Export,
        events: &[Exported<'_>],
    ) -> Result<Given, NotGiven> {
        let Some(last) = events.last().map(|event| event.index) else {
            return Ok(Given::Kept);
        };
        let mut bytes = Vec::new();
        for event in events {
            let text = match export.format {
                crate::config::exports::Format::Rfc5424 => event.sentence(),
                _ => line(export, event),
            };
            let message = syslog::message(event, export.facility, &text);
            bytes.extend_from_slice(&syslog::frame(&message));
        }
        self.send(&bytes).await?;
        let now = Instant::now();
        match self.unconfirmed.back_mut() {
            Some(group) if now < group.first_at + GROUP => {
                group.last = last;
                group.last_at = now;
            }
            _ => self.unconfirmed.push_back(Group {
                last,
                first_at: now,
                last_at: now,
            }),
        }
        Ok(Given::OnItsWay)
    }

    /// Writes frames, over a connection that is opened where there is none.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), NotGiven> {
        self.look()?;
        if self.wire.is_none() {
            let wire = connect(&self.endpoint, self.timeout, &[]).await;
            self.wire = Some(wire.map_err(|error| NotGiven::down(error.to_string()))?);
        }
        let Some(wire) = self.wire.as_mut() else {
            return Err(NotGiven::down("no connection"));
        };
        let writing = async {
            wire.write_all(bytes).await?;
            wire.flush().await
        };
        match tokio::time::timeout(self.timeout, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(self.broken("nothing was read in time")),
        }
    }

    pub(super) fn confirmed(&mut self) -> Result<Option<u64>, NotGiven> {
        self.look()?;
        let long_ago = Instant::now().checked_sub(self.timeout + MARGIN);
        let mut last = None;
        while let Some(group) = self.unconfirmed.front()
            && long_ago.is_some_and(|long_ago| group.last_at <= long_ago)
        {
            last = Some(group.last);
            self.unconfirmed.pop_front();
        }
        Ok(last)
    }

    /// Whether the connection, if there is one, still stands. Receivers say nothing: what comes is an end.
    fn look(&mut self) -> Result<(), NotGiven> {
        let mut bytes = [0; 256];
        let Some(wire) = self.wire.as_mut() else {
            return Ok(());
        };
        let why = match wire.read(&mut bytes).now_or_never() {
            None => return Ok(()),
            Some(Ok(0)) => "the receiver ended the connection".to_owned(),
            // Some say something all the same; nobody listens.
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => error.to_string(),
        };
        Err(self.broken(&why))
    }

    fn broken(&mut self, why: &str) -> NotGiven {
        self.wire = None;
        self.unconfirmed.clear();
        NotGiven::down(format!("{}: {why}", self.endpoint.authority()))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    pub(super) async fn close(&mut self) -> Option<u64> {
        let mut wire = self.wire.take()?;
        let last = self.unconfirmed.back().map(|group| group.last);
        self.unconfirmed.clear();
        let ending = async {
            wire.shutdown().await?;
            // Its end comes after it has read ours, and everything before.
            let mut bytes = [0; 256];
            while wire.read(&mut bytes).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        match tokio::time::timeout(self.timeout, ending).await {
            Ok(Ok(())) => last,
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl std::fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSink")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
