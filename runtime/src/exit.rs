//! Exit codes, the same for both commands.

/// Done.
pub const OK: u8 = 0;
/// Refused or failed.
pub const FAILED: u8 = 1;
/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;
/// The configuration is wrong; nothing was opened or bound.
pub const BAD_CONFIG: u8 = 64;
