//! One connection of Modbus/TCP between its two streams.

use std::time::Instant;

use edgeward_policy::l7::modbus::Request;

use super::exception::Exception;
use super::exchange::Exchange;
use super::frame;
use crate::gateway::relay::{Between, End, Inbox, Outboxes};

/// Decides about each request; where it may not be, says what the client is told.
pub type May = dyn FnMut(&Request) -> Result<(), Exception> + Send;

/// One connection.
pub struct Line {
    exchange: Exchange,
    may: Box<May>,
}

impl Line {
    pub fn new(may: Box<May>) -> Self {
        Self {
            exchange: Exchange::default(),
            may,
        }
    }
}

impl Between for Line {
    fn client_sent(
        &mut self,
        bytes: &mut Inbox,
        out: &mut Outboxes,
        now: Instant,
    ) -> Result<(), End> {
        while !self.exchange.is_full() {
            let first = frame::first(bytes.untaken()).map_err(|bad| End::Malformed(bad.word()))?;
            let Some((frame, taken)) = first else { break };
            let to = (&mut out.to_server.bytes, &mut out.to_client.bytes);
            self.exchange
                .ask(&frame, &mut *self.may, now, to)
                .map_err(|bad| End::Malformed(bad.word()))?;
            bytes.take(taken);
        }
        Ok(())
    }

    fn server_sent(&mut self, bytes: &mut Inbox, out: &mut Outboxes) -> Result<(), End> {
        loop {
            let first =
                frame::first(bytes.untaken()).map_err(|bad| End::ServerMalformed(bad.word()))?;
            let Some((frame, taken)) = first else {
                return Ok(());
            };
            self.exchange
                .answer(&frame, &mut out.to_client.bytes)
                .map_err(|bad| End::ServerMalformed(bad.word()))?;
            bytes.take(taken);
        }
    }

    fn takes_more(&self) -> bool {
        !self.exchange.is_full()
    }

    fn next_end(&self) -> Option<Instant> {
        self.exchange.next_end()
    }

    fn time_passed(&mut self, now: Instant, out: &mut Outboxes) {
        self.exchange.give_up(now, &mut out.to_client.bytes);
    }
}
