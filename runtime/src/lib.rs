//! What both binaries share: configuration, telemetry, shutdown, readiness, metrics, exit codes.

pub mod config;
pub mod exit;
pub mod monitor;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
