//! Alerts: rules over the audit log, and what follows from a hit.
//!
//! Pure, told the time: `rule.rs` (what is written in files), `engine.rs` over `window.rs` (which rule holds for which
//! key), `book.rs` (what becomes of an alert: opened, said again, silenced, acknowledged, ended), `act.rs` (whom a rule
//! may quarantine, and how many). Shells: `desk.rs` (reads the log, writes), `sink.rs` (says it elsewhere).

pub mod act;
pub mod book;
pub mod desk;
pub mod engine;
mod load;
pub mod rule;
pub mod say;
mod sink;
mod window;

#[cfg(test)]
mod tests;

pub use load::{NoRules, load, load_file};
pub use rule::{Rule, Rules, Severity};
