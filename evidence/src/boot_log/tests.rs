//! Logs made to order, and logs of real machines.

mod changes;
mod judging;
mod parser;
mod path;
mod properties;
mod secure_boot;
mod vectors;

use std::collections::BTreeMap;

use super::judge::judge;
use super::{BootLog, BootLogRefused, JudgedBoot};
use crate::testing::BootLogBuilder;
use crate::tpm::{HashAlg, PcrBank};

/// All that a node may be asked for.
const ALL: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

fn parse(log: &BootLogBuilder) -> BootLog {
    BootLog::parse(&log.build()).expect("a well-formed log")
}

/// Judges a log by the PCRs of a machine that booted as the log says.
fn judge_true(log: &BootLogBuilder) -> Result<JudgedBoot, BootLogRefused> {
    judge_by(log, &log.quoted(HashAlg::Sha256, &ALL))
}

/// Judges a log by any PCRs.
fn judge_by(
    log: &BootLogBuilder,
    quoted: &BTreeMap<u8, Vec<u8>>,
) -> Result<JudgedBoot, BootLogRefused> {
    judge(&parse(log), PcrBank::Sha256, quoted)
}

/// Where the log has an event of which this is true, for the first time.
fn place(
    log: &mut BootLogBuilder,
    is: impl Fn(&crate::testing::boot_log::BuiltEvent) -> bool,
) -> usize {
    log.events_mut().iter().position(is).expect("there is one")
}
