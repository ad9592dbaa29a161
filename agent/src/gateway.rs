//! The gateway: this agent answers for every interface that it has to read (`l7`) or that lies elsewhere (`to`), knows
//! who calls, asks policy, and forwards what is allowed. Plain legacy protocols become authenticated ones this way,
//! without a change to what serves them.
//!
//! - [`listen`]: one listener for each address and port; who cannot be listened for is let in by nobody.
//! - [`identity`], [`tls`]: who calls. The owner of the tunnel that a source address belongs to, the device that shows
//!   itself so on a network of this node, or the holder of an SVID who proves its key in a TLS 1.3 handshake.
//! - [`caller`]: what a protocol asks about its caller: may it, shall it go on, is its protocol broken.
//! - [`live`]: every connection is decided anew when anything changes, and ends at once when its right is lost.
//! - One module for each protocol, of one shape: `async fn carry(stream, caller) -> Result<(), Broken>`.
//!
//! A protocol module reads its client's bytes by bounded parsers, asks [`Caller::decide`] before a request goes on,
//! and opens its way to the service with [`Caller::connect`]. It need not watch for a lost right: [`live`] drops
//! it. What one request opened for long (a subscription, a stream) it decides again whenever [`Caller::changes`] says.

pub mod caller;
pub mod flows;
pub mod modbus;
pub mod relay;

pub use caller::{Broken, Caller};
