//! Decisions about an interface that somebody else serves and names: a proxy that asks before it forwards.

use std::sync::Arc;

use edgeward_identity::BootTime;
use edgeward_policy::{InterfaceIndex, L7, L7Request, Subject};

use super::picture::Picture;
use super::reason::Nothing;
use super::rules::Spot;
use super::who::{Ruling, Who};

/// One of this node's interfaces, as it is in the picture that it was looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    index: InterfaceIndex,
    pub spot: Spot,
    /// `service/interface`.
    pub name: Arc<str>,
    pub l7: Option<L7>,
    /// Names of its actions, in the order of their numbers.
    pub actions: Vec<Arc<str>>,
}

impl Picture {
    /// An interface of this node by its names, on whatever network.
    pub fn named(&self, service: &str, interface: &str) -> Option<Named> {
        let engine = self.parts().rules.as_ref()?.engine();
        let index = engine.interface(service, interface)?;
        let found = engine.slice().interfaces.get(index.0 as usize)?;
        Some(Named {
            index,
            spot: Spot {
                net: found.net.as_str().into(),
                proto: found.proto,
                port: found.port,
            },
            name: format!("{service}/{interface}").into(),
            l7: found.l7.clone(),
            actions: found.actions().into_iter().map(Into::into).collect(),
        })
    }

    /// Whether somebody may do this there. Without a request, whether he may connect at all.
    pub fn rule_on_named(
        &self,
        who: &Who,
        named: &Named,
        request: Option<&L7Request<'_>>,
        now: BootTime,
    ) -> Ruling {
        let decided = self.may_grant().and_then(|rules| {
            let (standing, link) = self.evidence_of(who)?;
            let wall = self.parts().anchor.wall_at(now);
            let (engine, subject) = (rules.engine(), Subject::Id(who.id()));
            Ok::<_, Nothing>(match request {
                None => engine.admit(subject, standing, named.index, link, wall),
                Some(request) => {
                    engine.decide_l7(subject, standing, named.index, request, link, wall)
                }
            })
        });
        self.ruling(decided, now)
    }
}
