//! Scenarios on real parts: swtpm, network namespaces, TUN devices, PostgreSQL, the commands themselves.
//! All need root; without it they fail.

#![allow(
    clippy::disallowed_methods,
    reason = "scenarios wait for other processes: they have no clock to turn"
)]

mod apps;
mod audit_alerts;
mod audit_export;
mod audit_log;
mod audit_retention;
mod audit_witness;
mod break_glass;
mod ca_rotation;
mod commands;
mod durability;
mod enrolment;
mod exec;
mod exit;
mod gateway;
mod guests;
mod interop_matrix;
mod key_stores;
mod lan;
mod measured_boot;
mod metered;
mod names;
mod on_demand;
mod policy_commands;
mod policy_rollout;
mod profiles;
mod protocols;
mod publisher_keys;
mod reach;
mod recovery;
mod restart;
mod results;
mod rotation;
mod routes;
mod saturation;
mod secrets;
mod story;
mod strangers;
mod test_network;
mod traffic;
mod turned_clock;
mod upgrade;
mod wireguard_interop;
mod workload;
