//! Modbus/TCP: every request is decided by its function, unit and addresses before a server sees it.
//!
//! What is denied is answered with an exception, and the connection goes on; bytes that are no Modbus end it.

use edgeward_policy::l7::modbus::{Pattern, Request};
use edgeward_policy::{L7, L7Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::relay::relay;
use super::{Broken, Caller};
use exception::Exception;
use line::Line;

pub mod exception;
pub mod exchange;
pub mod frame;
pub mod line;
pub mod pdu;

/// Carries one connection.
pub async fn carry<S>(mut stream: S, caller: Caller) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let server = caller.connect().await?;
    let asks = caller.clone();
    let may = move |request: &Request| {
        let ruling = asks.decide(&L7Request::Modbus(*request));
        match ruling.allow {
            true => Ok(()),
            false => Err(refusal(asks.interface().l7.as_ref(), request)),
        }
    };
    let end = relay(&mut stream, server, Line::new(Box::new(may))).await;
    end.told(&caller)
}

/// A function of which something else is an action has an address that is illegal; any other is an illegal function.
fn refusal(l7: Option<&L7>, request: &Request) -> Exception {
    let Some(L7::Modbus(actions)) = l7 else {
        return Exception::IllegalFunction;
    };
    let (function, unit) = (request.function, request.unit);
    let mut patterns = actions.iter().flat_map(|action| &action.any_of);
    let fits = |pattern: &Pattern| pattern.fits(request);
    let known = |pattern: &Pattern| pattern.names_function(function, unit);
    match patterns.clone().any(fits) {
        false if request.addresses.is_some() && patterns.any(known) => Exception::IllegalAddress,
        _ => Exception::IllegalFunction,
    }
}
