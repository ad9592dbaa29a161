//! Rows of the tunnel's filter.

use std::net::IpAddr;

use edgeward_identity::SpiffeId;
use edgeward_policy::Proto;
use edgeward_tunnel::filter::{Denial, Direction};

use super::{Guard, Row, Source};
use crate::enforce::decide::{Allowed, Label, Picture};

/// Packets that the filter denied.
pub fn of_denial(picture: &Picture, peer: &SpiffeId, denial: &Denial) -> Row {
    let label = Label::of_denial(&denial.rule);
    let port = denial.destination_port;
    Row {
        reason: label.reason.into(),
        rule: label.rule.map(Into::into),
        address: Some(denial.source),
        destination: Some(denial.destination),
        ..row(
            picture,
            peer,
            denial.direction,
            (denial.protocol, port),
            (
                picture.device_of_flow(denial.source, denial.direction),
                picture.beyond(denial.destination, denial.direction),
            ),
        )
    }
}

/// Verdicts that let a flow pass.
pub fn of_allowed(picture: &Picture, peer: &SpiffeId, allowed: &Allowed) -> Row {
    Row {
        allow: true,
        reason: "allowed".into(),
        rule: Some(allowed.rule.clone()),
        destination: allowed.beyond,
        ..row(
            picture,
            peer,
            allowed.direction,
            (allowed.protocol, allowed.port),
            (
                allowed
                    .device
                    .and_then(|source| picture.device_of_flow(source, allowed.direction)),
                allowed.beyond,
            ),
        )
    }
}

/// A flow is asked for by who opened it. What counts as evidence is the peer's, on its way in and on ours out.
fn row(
    picture: &Picture,
    peer: &SpiffeId,
    direction: Direction,
    (protocol, port): (u8, u16),
    (device, beyond): (Option<&SpiffeId>, Option<IpAddr>),
) -> Row {
    let node = &picture.parts().node;
    let (from, to) = match direction {
        Direction::In => (peer, node),
        Direction::Out => (node, peer),
    };
    let proto = [Proto::Tcp, Proto::Udp]
        .into_iter()
        .find(|proto| proto.number() == protocol);
    let rules = picture.parts().rules.as_deref();
    let interface = rules.zip(proto).and_then(|(rules, proto)| {
        let peer = match direction {
            Direction::In => None,
            Direction::Out => Some(rules.peer(peer)?),
        };
        rules.name_of(peer, proto, port, beyond)
    });
    let mut bound = picture.parts().bound.values();
    let evidence = bound
        .find(|bound| bound.id == *peer)
        .map(|bound| bound.evidence);
    // A device comes with the word of its node, and goes to the peer as this node does.
    let evidence = match (device, direction) {
        (Some(_), Direction::In) => evidence.map(edgeward_policy::Standing::vouched_for),
        _ => evidence,
    };
    let from = device.unwrap_or(from);
    Row {
        allow: false,
        guard: Guard::Tunnel,
        from: Source::Known(from.clone()),
        to: to.clone(),
        protocol,
        port,
        interface: interface.map(Into::into),
        action: None,
        request: None,
        reason: "".into(),
        rule: None,
        state: evidence.map(|evidence| evidence.state),
        tier: evidence.and_then(|evidence| evidence.tier),
        address: None,
        mac: None,
        destination: None,
    }
}
