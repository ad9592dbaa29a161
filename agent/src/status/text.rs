//! Status and checks as text for people.

mod lan;
mod reach;

use std::fmt::{self, Display, Formatter};

use edgeward_identity::Timestamp;

use super::{BindStatus, Checked, GlassStatus, Status, UpgradeStatus};
use crate::enforce::steer::{ExitState, ExitStatus};
use crate::names::{Mode, NamesReport};
use crate::view::Finding;

/// Most findings in the text: it must fit a screen.
const MAX_FINDINGS_SHOWN: usize = 4;

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let known = |word: Option<String>| word.unwrap_or_else(|| "none yet".to_owned());
        row(f, "node", &self.node)?;
        row(f, "tier", known(self.tier.map(|tier| tier.to_string())))?;
        let passed = self.passed.map(|at| ago(self.now, at));
        let state = self.state.map(|state| state.to_string());
        // A refusal gives no result: the one held is an older one, and peers learn better from the cloud.
        let held = if self.refused.is_some() {
            "by its last result "
        } else {
            ""
        };
        row(
            f,
            "attestation",
            state.zip(passed).map_or_else(
                || "none yet".to_owned(),
                |(state, passed)| format!("{held}{state}, passed {passed}"),
            ),
        )?;
        self.why(f)?;
        row(f, "svid ends", until(self.now, self.svid_ends))?;
        let addresses: Vec<String> = self.overlay.iter().map(ToString::to_string).collect();
        row(f, "overlay", addresses.join(", "))?;
        row(f, "tunnel", format!("{} on {}", self.device, self.listen))?;
        row(f, "session", self.session())?;
        row(f, "standing", &self.standing)?;
        if let Some(upgraded) = &self.upgraded {
            row(f, "upgraded", upgraded)?;
        }
        if let Some(recovery) = &self.recovery {
            row(f, "coming back", recovery)?;
        }
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
        for glass in &self.glass {
            row(f, "BREAK-GLASS", glass)?;
        }
        row(f, "reached at", self.reached_at())?;
        if let Some(exit) = &self.exit {
            row(f, "internet", internet(exit))?;
        }
        row(f, "names", names(&self.names))?;
        row(f, "deny-list", self.deny_list)?;
        row(f, "peers known", self.directory)?;
        writeln!(f)?;
        self.binds(f)?;
        writeln!(f)?;
        reach::write(f, &self.reach)?;
        self.gateways(f)?;
        lan::write(f, &self.lan)?;
        self.workloads(f)?;
        self.counts(f)
    }
}

impl Display for UpgradeStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let age = std::time::Duration::from_secs(self.age_secs);
        write!(
            f,
            "from {}, {} ago, with {} tunnels; {} of them not bound anew yet",
            self.from,
            humantime::format_duration(age),
            self.tunnels,
            self.not_renewed
        )
    }
}

impl Display for GlassStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (grant {}) open for {} more: {}; by {}",
            self.name,
            self.number,
            humantime::format_duration(std::time::Duration::from_secs(self.left_secs)),
            self.rules.join(" "),
            self.by.join(" ")
        )
    }
}

impl Status {
    /// Why the node is not trusted, or what is only recorded: right below what it is.
    fn why(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(refused) = &self.refused {
            let since = ago(self.now, refused.refusal.since);
            row(
                f,
                "refused",
                format!("{}, first {since}", refused.refusal.code),
            )?;
            // The cloud's own advice, where there is one, knows more.
            if self
                .findings
                .iter()
                .all(|finding| finding.advice.is_empty())
            {
                row(f, "  to do", &refused.advice)?;
            }
        }
        for finding in self.findings.iter().take(MAX_FINDINGS_SHOWN) {
            self.finding(f, finding)?;
        }
        let more = self.findings.len().saturating_sub(MAX_FINDINGS_SHOWN);
        if more > 0 {
            row(f, "finding", format!("{more} more, with -o json"))?;
        }
        Ok(())
    }

    fn finding(&self, f: &mut Formatter<'_>, finding: &Finding) -> fmt::Result {
        let mut line = finding.code.clone();
        if let Some(pcr) = finding.pcr {
            line.push_str(&format!(", PCR {pcr}"));
        }
        if !finding.event.is_empty() {
            line.push_str(&format!(", {}", finding.event));
        }
        if let Some(since) = finding.since {
            line.push_str(&format!(", since {}", ago(self.now, since)));
        }
        let name = if finding.monitored {
            "monitored"
        } else {
            "finding"
        };
        row(f, name, line)?;
        if !finding.found.is_empty() {
            row(f, "  found", &finding.found)?;
        }
        for (index, expected) in finding.expected.iter().enumerate() {
            row(f, if index == 0 { "  expected" } else { "  or" }, expected)?;
        }
        if !finding.advice.is_empty() {
            row(f, "  to do", &finding.advice)?;
        }
        Ok(())
    }

    fn session(&self) -> String {
        let word = if self.connected { "up" } else { "down" };
        let since = match self.session_secs {
            Some(seconds) => format!("for {}", length(seconds)),
            None => "since the agent started".to_owned(),
        };
        let heard = self
            .heartbeat_age_secs
            .map_or_else(|| "never".to_owned(), |age| format!("{} ago", length(age)));
        let mut line = format!("{word} {since}, {}, heartbeat {heard}", self.link);
        if !self.connected {
            let left = self
                .binds
                .iter()
                .map(|bind| bind.lease_left_secs)
                .filter(|left| *left > 0);
            match left.clone().max() {
                None => line.push_str("; no lease runs"),
                Some(longest) => {
                    let (count, longest) = (left.count(), length(longest));
                    line.push_str(&format!(
                        "; leases that still run: {count}, for {longest} at most"
                    ));
                }
            }
        }
        line
    }

    fn reached_at(&self) -> String {
        let router = match self.reach.translated {
            Some(true) => " (behind a router that translates)",
            Some(false) | None => "",
        };
        match self.reach.endpoints.is_empty() {
            true => "not known yet".to_owned(),
            false => format!("{}{router}", self.reach.endpoints.join(" ")),
        }
    }

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

    fn gateways(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.gateways.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<44} {:<10} {:>9} {:>11}  SERVED AT",
            "GATEWAY", "NET", "PORT", "CONNECTIONS"
        )?;
        for gateway in &self.gateways {
            let at = match &gateway.failed {
                None => gateway.addresses.join(", "),
                Some(reason) => format!("nobody is let in: {reason}"),
            };
            writeln!(
                f,
                "{:<44} {:<10} {:>9} {:>11}  {at}",
                gateway.interface,
                gateway.net,
                format!("{}/{}", gateway.protocol, gateway.port),
                gateway.connections,
            )?;
        }
        writeln!(f)
    }

    fn workloads(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.workloads.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<52} {:>9} {:<33} NOT ISSUED",
            "WORKLOAD", "ENDS", "SERIAL"
        )?;
        for workload in &self.workloads {
            let ends = workload.ends.map(|ends| until(self.now, ends));
            writeln!(
                f,
                "{:<52} {:>9} {:<33} {}",
                workload.id.to_string(),
                ends.as_deref().unwrap_or("-"),
                workload.serial.as_deref().unwrap_or("-"),
                workload.failed.as_deref().unwrap_or("-"),
            )?;
        }
        writeln!(f)
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
        for rule in &self.rules {
            write!(f, "\n{rule}")?;
        }
        Ok(())
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "{name:<12} {value}")
}

fn internet(exit: &ExitStatus) -> String {
    let node = exit.node.name();
    match exit.state {
        ExitState::Leads => format!("through {node}"),
        ExitState::Blocked => format!("closed: {node} is not bound"),
        ExitState::Direct => format!("without {node}, which is not bound"),
        ExitState::ByRoute => format!("through {node}, where this machine routes so"),
        ExitState::Failed => format!("not through {node}: the kernel refuses, see the log"),
    }
}

fn names(report: &NamesReport) -> String {
    if report.mode == Mode::Off {
        return "off".to_owned();
    }
    let mut line = format!("{} of {}", report.known, report.zone);
    if report.ambiguous > 0 {
        line.push_str(&format!(", {} ambiguous", report.ambiguous));
    }
    for (address, failed) in &report.listening {
        match failed {
            None => line.push_str(&format!(", at {address}")),
            Some(reason) => line.push_str(&format!(", not at {address}: {reason}")),
        }
    }
    match &report.asked {
        None => {}
        Some(Ok(())) => line.push_str(", asked by this machine"),
        Some(Err(reason)) => line.push_str(&format!(", not asked by this machine: {reason}")),
    }
    line
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
