//! LAN interfaces that nothing stands in front of (no `l7`, no `to`): the kernel itself lets in only devices that policy
//! names, by one nftables table of this agent.
//!
//! [`plan`]: who may come in where and until when, as the picture says; pure. [`table`]: the plan as text for `nft`,
//! whole or as what changed, always one transaction. [`counts`]: what the kernel counted, attributed to rules and
//! sources; pure. `keeper`: the task that keeps the table as the plan says.
//!
//! The table outlives the agent: what it guards stays guarded, and each lease ends by itself in the kernel.

pub mod counts;
mod keeper;
pub mod plan;
mod report;
mod rows;
pub mod table;
#[cfg(test)]
mod testing;

pub(super) use keeper::{Keeper, Setup, carrier};
pub use plan::{Plan, Spot};
pub use report::{DeviceReport, GuardReport, LanReport, RuleReport, Shared};
