//! Rows of the kernel's counters for the audit log.

use std::sync::Arc;

use edgeward_identity::BootTime;
use edgeward_policy::{ActionId, Reason, Request, Subject, Target};

use super::counts::Seen;
use super::plan::{Guarded, Term};
use crate::enforce::decide::{Nothing, Picture, Sighting};
use crate::enforce::posture::{Guard, Row, Source};

/// The word for a denial whose reason is over by the time that it is told.
const OVER: &str = "lease-ended";

/// Where the gateway does not listen nobody comes in, whoever it is.
fn not_served(guarded: &Guarded, row: Row) -> Row {
    match guarded.forwarded {
        true => Row {
            reason: Nothing::NoGateway.as_str().into(),
            ..row
        },
        false => row,
    }
}

/// Packets that the kernel dropped. Why is what policy says of the source now.
pub(super) fn refused(picture: &Picture, guarded: &Guarded, seen: &Seen, now: BootTime) -> Row {
    let sighting = Sighting {
        net: &guarded.net,
        ip: seen.ip,
        mac: Some(seen.mac),
        certificate: None,
    };
    let stranger = Row {
        from: Source::Stranger(Some(seen.ip)),
        reason: Reason::UnknownSubject.as_str().into(),
        ..row(picture, guarded, seen)
    };
    let Some(device) = picture.device(&sighting) else {
        return not_served(guarded, stranger);
    };
    let known = Row {
        from: Source::Known(device.id.clone()),
        ..stranger
    };
    if guarded.forwarded {
        return not_served(guarded, known);
    }
    let (evidence, link) = match picture.device_standing(&device.id) {
        Ok(standing) => standing,
        Err(nothing) => {
            return Row {
                reason: nothing.as_str().into(),
                ..known
            };
        }
    };
    let known = Row {
        state: Some(evidence.state),
        tier: evidence.tier,
        ..known
    };
    let Some(rules) = picture.parts().rules.as_deref() else {
        return known;
    };
    let decision = rules.engine().decide(&Request {
        subject: Subject::Id(&device.id),
        standing: evidence,
        target: Target::Interface(guarded.interface),
        action: ActionId::CONNECT,
        link,
        now: picture.parts().anchor.wall_at(now),
    });
    match decision.is_allow() {
        true => Row {
            reason: OVER.into(),
            ..known
        },
        false => Row {
            reason: decision.reason.as_str().into(),
            rule: decision.rule.or(decision.nearest),
            ..known
        },
    }
}

/// Packets that the kernel let in.
pub(super) fn passed(picture: &Picture, guarded: &Guarded, seen: &Seen, term: &Term) -> Row {
    let standing = picture.device_standing(&term.device).ok();
    Row {
        allow: true,
        from: Source::Known(term.device.clone()),
        reason: Reason::Allowed.as_str().into(),
        rule: Some(Arc::clone(&term.rule)),
        state: standing.map(|(evidence, _)| evidence.state),
        tier: standing.and_then(|(evidence, _)| evidence.tier),
        ..row(picture, guarded, seen)
    }
}

fn row(picture: &Picture, guarded: &Guarded, seen: &Seen) -> Row {
    Row {
        allow: false,
        guard: Guard::Lan,
        from: Source::Stranger(Some(seen.ip)),
        to: picture.parts().node.clone(),
        protocol: seen.at.proto.number(),
        port: seen.at.port,
        interface: Some(Arc::clone(&guarded.name)),
        action: None,
        request: None,
        reason: "".into(),
        rule: None,
        state: None,
        tier: None,
        address: Some(seen.ip),
        mac: Some(seen.mac),
        destination: None,
    }
}
