//! What both binaries share: configuration, telemetry, shutdown, readiness, metrics, exit codes,
//! and how commands write.

pub mod config;
pub mod exit;
pub mod monitor;
pub mod readiness;
pub mod screen;
pub mod shutdown;
pub mod telemetry;
