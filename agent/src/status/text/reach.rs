//! Ways to peers as text.

use std::fmt::{self, Formatter};

use crate::reach::shown::{PathStatus, ReachStatus};

/// Paths that are in use, and behind each peer how many others answer.
pub(super) fn write(f: &mut Formatter<'_>, reach: &ReachStatus) -> fmt::Result {
    let used: Vec<&PathStatus> = reach.paths.iter().filter(|path| path.in_use).collect();
    if used.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "{:<44} {:<22} {:>9} {:>5} {:>5} {:>9} {:>9}  OTHERS",
        "PATH", "BY", "RTT", "LOSS", "MTU", "KEEPALIVE", "SINCE"
    )?;
    for path in used {
        let others = reach
            .paths
            .iter()
            .filter(|other| !other.in_use && other.answers && other.peer == path.peer)
            .count();
        let by = match &path.through {
            Some(relay) => format!("relay {}", relay.name()),
            None => path.kind.clone(),
        };
        let known = |word: Option<String>| word.unwrap_or_else(|| "-".to_owned());
        writeln!(
            f,
            "{:<44} {:<22} {:>9} {:>5} {:>5} {:>9} {:>9}  {others}",
            path.peer.to_string(),
            by,
            known(path.rtt_micros.map(millis)),
            format!("{} %", path.loss_percent),
            known(path.largest_datagram.map(|bytes| bytes.to_string())),
            known(path.keepalive_secs.map(super::length)),
            known(path.since_secs.map(super::length)),
        )?;
    }
    for switched in &reach.switched {
        writeln!(
            f,
            "{:<44} {} -> {}, {} times, last {} ago",
            switched.peer.to_string(),
            switched.from,
            switched.to,
            switched.times,
            super::length(switched.ago_secs),
        )?;
    }
    writeln!(f)
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
