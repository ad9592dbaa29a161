//! May this peer be bound at all, with which prefixes, and for how long.

use edgeward_identity::{SpiffeId, Timestamp};
use edgeward_policy::{Link, Standing as Evidence};
use edgeward_tunnel::bind::lease::Limits;
use edgeward_tunnel::bind::policy::{Grant, NotGranted};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::picture::Picture;
use super::reason::Nothing;

/// A peer that asks to be bound: its verified identity and what its checked evidence says.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub id: &'a SpiffeId,
    pub standing: Evidence,
    pub by_boot_statement: bool,
}

impl Picture {
    /// Grants a bind if any rule, in either direction, lets the two talk now. The rule that lasts longest bounds the
    /// lease; each flow is bounded by its own rule.
    pub fn grant(&self, candidate: &Candidate<'_>, now: Timestamp) -> Result<Grant, NotGranted> {
        let rules = self.may_grant().map_err(not_granted)?;
        let passed = candidate.standing.last_pass;
        if !self
            .parts
            .floors
            .admits(candidate.id, passed.unwrap_or_default())
        {
            return Err(not_granted(Nothing::Cut));
        }
        let link = self.parts.hearing.towards(passed);
        if candidate.by_boot_statement && link == Link::Online {
            return Err(not_granted(Nothing::StatementOnline));
        }
        let index = rules
            .peer(candidate.id)
            .ok_or_else(|| NotGranted("unknown-subject".to_owned()))?;
        let decision = rules.engine().meet(index, candidate.standing, link, now);
        if !decision.is_allow() {
            return Err(NotGranted(super::reason::label(&decision).to_string()));
        }
        let fresh = decision.fresh.as_duration();
        let mut allowed_ips = rules.prefixes(index);
        // Where the operator wants it and some rule lets this node out there: then anybody's address may come from it.
        if self.parts.exit.as_ref() == Some(candidate.id) && rules.leads_out(index) {
            allowed_ips.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
        }
        Ok(Grant {
            allowed_ips,
            limits: Limits {
                policy_until: rules.engine().slice().expires,
                fresh,
                offline: match (link, self.parts.hearing.outage(), passed) {
                    // The bind counts from the outage until it is over for all; this peer has passed since, so what
                    // it gets is `fresh` from its pass.
                    (Link::Online, Some(outage), Some(passed)) => fresh + passed.since(outage),
                    _ => decision.offline.as_duration(),
                },
            },
        })
    }
}

fn not_granted(nothing: Nothing) -> NotGranted {
    NotGranted(nothing.as_str().to_owned())
}
