//! One release back: an operator's word, or the end of the policy that brought the release.

use std::collections::BTreeSet;

use edgeward_apps::{AppName, Version};
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_policy::CompiledPolicy;
use tokio::sync::MutexGuard;

use super::super::directory::Member;
use super::super::{Hub, HubFault};
use super::AppOrderFault;
use crate::store::Tx;

/// Which nodes an order is about.
#[derive(Clone, Copy, Debug)]
pub enum Whom<'w> {
    Node(&'w str),
    /// Of the policy in force for each.
    Group(&'w str),
}

/// A node that goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoesBack {
    pub node: String,
    pub app: AppName,
    pub from: Version,
    pub to: Version,
}

impl Hub {
    /// These nodes go back to the release before, each that has one.
    pub(crate) async fn order_back(
        &self,
        app: &AppName,
        whom: Whom<'_>,
        (by, reason): (&Actor, &str),
    ) -> Result<Vec<GoesBack>, AppOrderFault> {
        let members = self.members().into_iter();
        let asked: Vec<String> = members
            .filter(|member| member.is_active() && self.is_meant(member, whom))
            .map(|member| member.row.name)
            .collect();
        let _turn = self.no_words().await;
        let asked = asked.into_iter();
        let going: Vec<GoesBack> = asked
            .filter_map(|node| self.step_back(&node, app))
            .collect();
        if going.is_empty() {
            return Err(AppOrderFault::NoWayBack);
        }
        let stored = async {
            let mut tx = self.store.begin("app.back").await?;
            let changes = self.put_back(&mut tx, &going, (by, reason)).await?;
            tx.commit().await?;
            Ok::<u64, HubFault>(changes)
        };
        let changes = stored.await?;
        self.go_back(&going, changes);
        Ok(going)
    }

    /// Until it is dropped, nobody is given anything, and nothing is read anew: what goes back is neither raised meanwhile
    /// nor forgotten again.
    pub(in crate::hub) async fn no_words(&self) -> MutexGuard<'_, ()> {
        self.director.turn.lock().await
    }

    /// Of these nodes, those that were given exactly the release after the one which this policy names.
    pub(in crate::hub) fn above(&self, nodes: &[String], base: &CompiledPolicy) -> Vec<GoesBack> {
        let nodes: BTreeSet<&str> = nodes.iter().map(String::as_str).collect();
        let mut above = Vec::new();
        for member in self.members() {
            let name = member.row.name.as_str();
            if !nodes.contains(name) {
                continue;
            }
            for (app, install) in base.installs_for(&member.row.labels) {
                let step = self.step_back(name, app);
                above.extend(step.filter(|step| install.version.as_ref() == Some(&step.to)));
            }
        }
        above
    }

    /// Stores that these go back, with an event for each; the number that clouds compare.
    pub(in crate::hub) async fn put_back(
        &self,
        tx: &mut Tx,
        going: &[GoesBack],
        (by, reason): (&Actor, &str),
    ) -> Result<u64, HubFault> {
        let now = self.clock.now();
        for one in going {
            tx.order_back(&one.node, &one.app, &one.from, (&by.to_string(), now))
                .await?;
            let event = Event::new(now, by.clone(), EventKind::AppReturned)
                .subject(one.app.to_string().as_str())
                .detail("node", &one.node)
                .detail("from", &one.from)
                .detail("to", &one.to)
                .detail("reason", reason);
            self.audit.record_in(tx, event).await?;
        }
        Ok(tx.director_changed().await?)
    }

    /// They go back from now on: that was stored.
    pub(in crate::hub) fn go_back(&self, going: &[GoesBack], changes: u64) {
        {
            let mut remembered = self.director.remembered.lock();
            remembered.changed_to(changes);
            for one in going {
                let node = remembered.back.entry(one.node.clone()).or_default();
                node.insert(one.app.clone(), one.from.clone());
            }
        }
        self.direct_everybody();
    }

    /// The way back of one node, if there is one.
    fn step_back(&self, node: &str, app: &AppName) -> Option<GoesBack> {
        let remembered = self.director.remembered.lock();
        let given = remembered.given.get(node)?.get(app)?;
        Some(GoesBack {
            node: node.to_owned(),
            app: app.clone(),
            from: given.highest.clone(),
            to: given.previous.clone()?,
        })
    }

    fn is_meant(&self, member: &Member, whom: Whom<'_>) -> bool {
        let name = &member.row.name;
        match whom {
            Whom::Node(node) => name == node,
            Whom::Group(group) => self
                .policy_of(name)
                .is_some_and(|policy| policy.groups_of(&member.row.labels).contains(&group)),
        }
    }
}
