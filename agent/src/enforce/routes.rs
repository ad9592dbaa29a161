//! Networks behind nodes: which this node leads to, and which of its peers' it may reach.
//!
//! [`plan`]: what is to be, as the picture says; pure. [`table`]: the plan as text for `nft`. `kernel`: the machine's
//! switches and routes. `keeper`: the task that keeps all of it as the plan says, and tells the tunnel what to
//! translate.
//!
//! Nothing is led before the table stands: from the tunnel packets go on to the networks of the plan and nowhere else,
//! and where this agent turned forwarding on, nothing goes anywhere but into the tunnel.

mod claims;
mod keeper;
mod kernel;
pub mod plan;
pub mod table;

pub(super) use keeper::{Keeper, Setup};
pub use plan::{Armed, Led, Plan};
