//! Status and checks as text for people.

use std::fmt::{self, Display, Formatter};

use edgeward_identity::Timestamp;

use super::{BindStatus, Checked, Status};

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let known = |word: Option<String>| word.unwrap_or_else(|| "none yet".to_owned());
        row(f, "node", &self.node)?;
        row(f, "tier", known(self.tier.map(|tier| tier.to_string())))?;
        let passed = self.passed.map(|at| ago(self.now, at));
        let state = self.state.map(|state| state.to_string());
        row(
            f,
            "attestation",
            state.zip(passed).map_or_else(
                || "none yet".to_owned(),
                |(state, passed)| format!("{state}, passed {passed}"),
            ),
        )?;
        row(f, "svid ends", until(self.now, self.svid_ends))?;
        let addresses: Vec<String> = self.overlay.iter().map(ToString::to_string).collect();
        row(f, "overlay", addresses.join(", "))?;
        row(f, "tunnel", format!("{} on {}", self.device, self.listen))?;
        let session = if self.connected { "up" } else { "down" };
        let heard = self
            .heartbeat_age_secs
            .map_or_else(|| "never".to_owned(), |age| format!("{age}s ago"));
        row(
            f,
            "session",
            format!("{session}, {}, heartbeat {heard}", self.link),
        )?;
        row(f, "standing", &self.standing)?;
        match &self.slice {
            None => row(f, "policy", "none yet")?,
            Some(slice) => row(
                f,
                "policy",
                format!(
                    "version {}, slice {}, expires {}",
                    slice.version,
                    slice.number,
                    until(self.now, slice.expires)
                ),
            )?,
        }
        row(f, "deny-list", self.deny_list)?;
        row(f, "peers known", self.directory)?;
        writeln!(f)?;
        self.binds(f)?;
        writeln!(f)?;
        self.counts(f)
    }
}

impl Status {
    fn binds(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.binds.is_empty() {
            return writeln!(f, "no binds");
        }
        writeln!(
            f,
            "{:<44} {:<9} {:<9} {:>9} {:>10} {:>10}  ENDPOINT",
            "PEER", "BIND", "STATE", "LEASE", "RECEIVED", "SENT"
        )?;
        self.binds.iter().try_for_each(|bind| bind.fmt(f))
    }

    fn counts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "flows: {}", self.flow_count)?;
        if !self.rules.is_empty() {
            writeln!(
                f,
                "{:<44} {:>9} {:>10} {:>12} {:>9}",
                "RULE", "FLOWS", "PACKETS", "BYTES", "DENIED"
            )?;
        }
        for rule in &self.rules {
            writeln!(
                f,
                "{:<44} {:>9} {:>10} {:>12} {:>9}",
                rule.rule, rule.flows, rule.packets, rule.bytes, rule.denied
            )?;
        }
        for (reason, count) in &self.dropped {
            writeln!(f, "dropped, {reason}: {count}")?;
        }
        Ok(())
    }
}

impl Display for BindStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:<9} {:<9} {:>9} {:>10} {:>10}  {}",
            self.peer.to_string(),
            if self.open { "open" } else { "armed" },
            self.state.map_or("-", |state| state.as_str()),
            length(self.lease_left_secs),
            bytes(self.received_bytes),
            bytes(self.sent_bytes),
            self.endpoint.as_deref().unwrap_or("-"),
        )
    }
}

impl Display for Checked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = if self.allow { "allow" } else { "deny" };
        write!(f, "{verdict}: {} to {} at {}", self.from, self.to, self.at)?;
        match (&self.rule, &self.nearest) {
            (Some(rule), _) => write!(f, ", by rule {rule}")?,
            (None, Some(nearest)) => write!(f, ", nearest rule {nearest}")?,
            (None, None) => {}
        }
        if !self.allow {
            write!(f, ", because: {}", self.reason)?;
        }
        if !self.bound {
            write!(f, " (no tunnel is open between the two)")?;
        }
        Ok(())
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "{name:<12} {value}")
}

fn until(now: Timestamp, then: Timestamp) -> String {
    if then <= now {
        "over".to_owned()
    } else {
        format!("in {}", length(then.since(now).as_secs()))
    }
}

fn ago(now: Timestamp, then: Timestamp) -> String {
    format!("{} ago", length(now.since(then).as_secs()))
}

fn length(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..=9999 => format!("{count}B"),
        10_000..=9_999_999 => format!("{}kB", count / 1000),
        10_000_000..=9_999_999_999 => format!("{}MB", count / 1_000_000),
        _ => format!("{}GB", count / 1_000_000_000),
    }
}
