//! Where the answers come from: the view, the picture, the tunnel.

use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_policy::Standing as Evidence;
use edgeward_tunnel::filter::DropReason;
use edgeward_tunnel::node::{Refusal, Role};

use super::{
    Answer, BindStatus, FlowStatus, MAX_FLOWS_SHOWN, RefusedStatus, Request, RuleStatus,
    SliceStatus, Sources, Status, WorkloadStatus,
};
use super::{advice, explain, glass};
use crate::break_glass::Desk;
use crate::enforce::decide::Picture;
use crate::enforce::{Inside, own};
use crate::view::NodeView;

impl Sources for Inside {
    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Check(asked) => {
                let picture = self.picture();
                let known = |id: &SpiffeId| self.known(&picture, id);
                match explain::check(&picture, &asked, known, self.view.clock.now()) {
                    Ok(checked) => Answer::Check { checked },
                    Err(reason) => Answer::Refused { reason },
                }
            }
        }
    }

    fn glass(&self) -> Option<(Desk, NodeView)> {
        Some((self.view.glass.clone(), self.view.clone()))
    }
}

impl Inside {
    fn status(&self) -> Status {
        let view = &self.view;
        let (now, boot) = (view.clock.now(), view.clock.boottime());
        let picture = self.picture();
        let link = *view.link.borrow();
        let overlay = *view.overlay.borrow();
        let own = view.result.borrow().clone().and_then(|result| {
            let spki = view.svid.borrow().leaf().key.spki_hash();
            own::read(&result, &view.keys.borrow(), &view.node, &spki, now)
        });
        let standing = match picture.may_grant() {
            Ok(_) => "granting".to_owned(),
            Err(nothing) => format!("nothing is granted: {}", nothing.as_str()),
        };
        let outcome = Arc::clone(&view.outcome.borrow());
        let filter = self.tunnel().filter();
        let mut flows = self.flows();
        flows.truncate(MAX_FLOWS_SHOWN);
        Status {
            node: view.node.clone(),
            tier: own.map(|own| own.tier),
            state: own.map(|own| own.state),
            passed: own.map(|own| own.passed),
            refused: outcome.refusal.clone().map(|refusal| RefusedStatus {
                advice: advice::on_refusal(&refusal.code).to_owned(),
                refusal,
            }),
            findings: outcome.findings.clone(),
            svid_ends: view.svid.borrow().leaf().not_after,
            overlay: std::iter::once(overlay.v6.into())
                .chain(overlay.v4.map(Into::into))
                .collect(),
            device: self.tunnel().device().name().to_owned(),
            listen: self
                .tunnel()
                .local_addr()
                .map_or_else(|_| "-".to_owned(), |address| address.to_string()),
            connected: link.connected,
            session_secs: link.changed.map(|at| boot.since(at).as_secs()),
            link: picture.parts().hearing.as_str().to_owned(),
            heartbeat_age_secs: link.heard.map(|heard| boot.since(heard.at).as_secs()),
            standing,
            upgraded: self.upgraded(),
            recovery: view.recovery.borrow().as_deref().map(str::to_owned),
            slice: picture.parts().rules.as_ref().map(|rules| SliceStatus {
                number: rules.number(),
                version: rules.engine().slice().version,
                expires: rules.engine().slice().expires,
                unserved: self.lan().unserved,
            }),
            deny_list: *view.trust_changed.borrow(),
            cut: view.cuts.borrow().number(),
            directory: view.peers.borrow().len(),
            binds: self.binds(&picture),
            flow_count: filter.flow_count(),
            flows,
            rules: self.rules(),
            dropped: self.dropped(),
            workloads: self.workloads(),
            glass: glass::shown(view, &view.opened.borrow()),
            gateways: self.gateways(),
            lan: self.lan(),
            names: view.names.report(),
            exit: self.exit(),
            reach: self.reach(),
            apps: (**view.apps.borrow()).clone(),
            now,
        }
    }

    fn binds(&self, picture: &Picture) -> Vec<BindStatus> {
        let boot = self.view.clock.boottime();
        let bound = &picture.parts().bound;
        let peers = self.tunnel().node().status();
        let mut binds: Vec<BindStatus> = peers
            .into_iter()
            .filter_map(|peer| {
                let known = bound.get(&peer.id);
                Some(BindStatus {
                    peer: peer.name.parse().ok()?,
                    open: known.is_some(),
                    role: match peer.role {
                        Role::Initiator => "initiator",
                        Role::Responder => "responder",
                        Role::Either => "either",
                    }
                    .to_owned(),
                    epoch: peer.epoch,
                    state: known.map(|known| known.evidence.state),
                    tier: known.and_then(|known| known.evidence.tier),
                    passed: known.and_then(|known| known.evidence.last_pass),
                    lease_left_secs: peer.valid_until.since(boot).as_secs(),
                    endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
                    handshake_age_secs: peer.last_handshake.map(|at| boot.since(at).as_secs()),
                    received_bytes: peer.received_bytes,
                    sent_bytes: peer.sent_bytes,
                })
            })
            .collect();
        binds.sort_by(|one, other| one.peer.cmp(&other.peer));
        binds
    }

    fn flows(&self) -> Vec<FlowStatus> {
        let boot = self.view.clock.boottime();
        let end = |address: std::net::IpAddr, port: u16| {
            std::net::SocketAddr::new(address, port).to_string()
        };
        self.tunnel()
            .filter()
            .flows()
            .into_iter()
            .take(MAX_FLOWS_SHOWN)
            .map(|flow| FlowStatus {
                peer: self.name_of(flow.peer),
                direction: flow.direction.as_str().to_owned(),
                protocol: flow.flow.protocol,
                source: end(flow.flow.source, flow.flow.source_port),
                destination: end(flow.flow.destination, flow.flow.destination_port),
                rule: flow.rule.to_string(),
                packets: flow.packets,
                bytes: flow.bytes,
                valid_secs: flow.valid_until.since(boot).as_secs(),
            })
            .collect()
    }

    fn rules(&self) -> Vec<RuleStatus> {
        let counts = self.tunnel().filter().rule_counts();
        let mut rules: Vec<RuleStatus> = counts
            .into_iter()
            .map(|count| RuleStatus {
                rule: count.rule.to_string(),
                flows: count.flows,
                packets: count.packets,
                bytes: count.bytes,
                denied: count.denied,
            })
            .collect();
        rules.sort_by(|one, other| one.rule.cmp(&other.rule));
        rules
    }

    fn workloads(&self) -> Vec<WorkloadStatus> {
        let svids = self.view.workloads.get();
        let reports = svids.map_or_else(Vec::new, |svids| svids.report());
        let known = reports.into_iter().map(|report| WorkloadStatus {
            id: report.id,
            serial: report.serial,
            ends: report.ends,
            failed: report.failed,
        });
        known.collect()
    }

    fn dropped(&self) -> Vec<(String, u64)> {
        let filter = self.tunnel().filter();
        let refusals = self.tunnel().node().refusals();
        let by_filter = DropReason::ALL.into_iter().map(|reason| {
            (
                format!("filter {}", reason.as_str()),
                filter.dropped(reason),
            )
        });
        let by_node = Refusal::ALL.into_iter().map(|refusal| {
            (
                format!("wireguard {}", refusal.as_str()),
                refusals.get(refusal),
            )
        });
        by_filter
            .chain(by_node)
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// What is known of a node's evidence, and whether it is bound.
    fn known(&self, picture: &Picture, id: &SpiffeId) -> (Option<Evidence>, bool) {
        let mut bound = picture.parts().bound.values();
        if let Some(peer) = bound.find(|peer| peer.id == *id) {
            return (Some(peer.evidence_in(picture)), true);
        }
        let directory = Arc::clone(&self.view.peers.borrow());
        let keys = Arc::clone(&self.view.keys.borrow());
        let rules = picture.parts().rules.as_deref();
        let wants = rules.map(|rules| rules.engine().wants().clone());
        let wants = wants.unwrap_or_default();
        let evidence = directory.get(id).and_then(|peer| {
            explain::evidence_in_directory(id, peer, &keys, &wants, self.view.clock.now())
        });
        (evidence, false)
    }
}
