//! The requests of one connection, and the answers that belong to them.
//!
//! A server sees transaction numbers of the gateway's own, so that no client can make two of its requests look like
//! one, and an answer that comes too late for one request is never taken for that of another.

use std::time::{Duration, Instant};

use edgeward_policy::l7::modbus::Request;

use super::exception::Exception;
use super::frame::{self, Frame};
use super::pdu::{self, BadPdu, EXCEPTION_BIT};

/// Most requests of one connection that a server has not answered ("Modbus Messaging on TCP/IP Implementation Guide
/// V1.0b", section 4.4.1.2, has 1 to 16). Many servers lose the second of two requests that come together, so a client
/// may send many at once, and the server gets them one by one.
pub const MAX_UNANSWERED: usize = 1;
/// How long a server may take. Then the client is told that there was no answer, as by a gateway to a serial line.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Requests under way.
#[derive(Debug, Default)]
pub struct Exchange {
    /// In the order asked.
    unanswered: Vec<Unanswered>,
    /// The last number given.
    number: u16,
}

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    /// Towards the server.
    number: u16,
    /// The client's.
    transaction: u16,
    unit: u8,
    function: u8,
    end: Instant,
}

/// An answer that the server cannot mean. Its stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("answer comes from another unit than was asked")]
    Unit,
    #[error("answer is of another function than was asked")]
    Function,
    #[error("an exception has more or less than its code")]
    Exception,
}

impl BadAnswer {
    /// A stable word for the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Function => "function",
            Self::Exception => "exception",
        }
    }
}

impl Exchange {
    /// Whether no further request may be read.
    pub fn is_full(&self) -> bool {
        self.unanswered.len() >= MAX_UNANSWERED
    }

    /// When the request that waits longest has waited too long.
    pub fn next_end(&self) -> Option<Instant> {
        self.unanswered.first().map(|request| request.end)
    }

    /// A request of the client: forwarded, or answered here. To be asked only while not full.
    ///
    /// # Errors
    /// If its bytes contradict themselves: the connection is to be closed.
    pub fn ask(
        &mut self,
        frame: &Frame<'_>,
        may: &mut dyn FnMut(&Request) -> Result<(), Exception>,
        now: Instant,
        (to_server, to_client): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<(), BadPdu> {
        let judged = match pdu::parse(frame.unit, frame.pdu) {
            Ok(request) => may(&request).map(|()| request),
            Err(BadPdu::Illegal(exception)) => Err(exception),
            Err(bad @ BadPdu::Malformed { .. }) => return Err(bad),
        };
        let function = frame.pdu.first().copied().unwrap_or_default();
        match judged {
            Err(exception) => answer(
                to_client,
                frame.transaction,
                frame.unit,
                function,
                exception,
            ),
            Ok(request) => {
                let number = self.fresh_number();
                self.unanswered.push(Unanswered {
                    number,
                    transaction: frame.transaction,
                    unit: request.unit,
                    function: request.function,
                    end: now + ANSWER_WITHIN,
                });
                let forwarded = Frame {
                    transaction: number,
                    ..*frame
                };
                frame::write(to_server, &forwarded);
            }
        }
        Ok(())
    }

    /// An answer of the server. One that nobody waits for (any more) is dropped; says whether it was passed on.
    pub fn answer(
        &mut self,
        frame: &Frame<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<bool, BadAnswer> {
        let waits = |request: &Unanswered| request.number == frame.transaction;
        let Some(position) = self.unanswered.iter().position(waits) else {
            return Ok(false);
        };
        let request = self.unanswered.remove(position);
        if frame.unit != request.unit {
            return Err(BadAnswer::Unit);
        }
        let function = frame.pdu.first().copied().unwrap_or_default();
        if function & !EXCEPTION_BIT != request.function {
            return Err(BadAnswer::Function);
        }
        if function & EXCEPTION_BIT != 0 && frame.pdu.len() != 2 {
            return Err(BadAnswer::Exception);
        }
        let answer = Frame {
            transaction: request.transaction,
            ..*frame
        };
        frame::write(to_client, &answer);
        Ok(true)
    }

    /// Tells the client of every request that the server did not answer in time.
    pub fn give_up(&mut self, now: Instant, to_client: &mut Vec<u8>) {
        self.unanswered.retain(|request| {
            let waits = request.end > now;
            if !waits {
                let (transaction, unit) = (request.transaction, request.unit);
                answer(
                    to_client,
                    transaction,
                    unit,
                    request.function,
                    Exception::NoAnswer,
                );
            }
            waits
        });
    }

    /// One that no request under way has.
    fn fresh_number(&mut self) -> u16 {
        loop {
            self.number = self.number.wrapping_add(1);
            let number = self.number;
            if self
                .unanswered
                .iter()
                .all(|request| request.number != number)
            {
                return number;
            }
        }
    }
}

fn answer(out: &mut Vec<u8>, transaction: u16, unit: u8, function: u8, exception: Exception) {
    let pdu = exception.pdu(function);
    let frame = Frame {
        transaction,
        unit,
        pdu: &pdu,
    };
    frame::write(out, &frame);
}

#[cfg(test)]
mod tests;
