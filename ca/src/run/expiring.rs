//! Certificates that end soon although nothing follows them: said in the log, where rules find them.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{Kind, SpiffeId, Timestamp};
use edgeward_policy::slice::MIN_SVID_LIFETIME;

use crate::hub::Hub;
use crate::keys::ledger::State;

/// Of a life, the last part in which its end is near.
const LAST_PART: u32 = 8;
/// What is near at most, of an authority and of an operator's certificate.
const AUTHORITY_NEAR: Duration = Duration::from_secs(90 * 86_400);
const OPERATOR_NEAR: Duration = Duration::from_secs(7 * 86_400);
/// How often the same is said again.
const AGAIN: Duration = Duration::from_secs(86_400);
/// Most that is said at a time: a fleet that was switched off ends together.
const MAX_TOLD: usize = 100;

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    kind: EventKind,
    /// A SPIFFE ID, or the name of an authority.
    subject: Subject,
    until: Timestamp,
    near: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Identity(String),
    Authority { role: &'static str, key: String },
}

/// When each was said last.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<Subject, Timestamp>);

impl Told {
    /// Which of them are to be said now, what ends first coming first.
    fn due(&mut self, mut endings: Vec<Ending>, now: Timestamp) -> Vec<Ending> {
        // What has ended is no news any more: its holder is refused, and that is an event.
        endings.retain(|ending| now < ending.until && ending.until.since(now) < ending.near);
        endings.sort_by_key(|ending| ending.until);
        self.0.retain(|_, said| now.since(*said) < AGAIN);
        endings.retain(|ending| !self.0.contains_key(&ending.subject));
        endings.truncate(MAX_TOLD);
        for ending in &endings {
            self.0.insert(ending.subject.clone(), now);
        }
        endings
    }
}

/// Looks at every certificate that something rests on.
pub(super) async fn tell(told: &mut Told, hub: &Hub, now: Timestamp) -> anyhow::Result<()> {
    let mut endings = authorities(hub);
    endings.extend(nodes(hub));
    endings.extend(operators(hub).await?);
    for ending in told.due(endings, now) {
        let event = Event::new(now, Actor::Cloud, ending.kind)
            .detail("until", crate::when::format(ending.until));
        let event = match &ending.subject {
            Subject::Identity(id) => match id.parse::<SpiffeId>() {
                Ok(id) => event.subject(id),
                Err(_) => event.subject(id.as_str()),
            },
            Subject::Authority { role, key } => event
                .subject(format!("authority {key}").as_str())
                .detail("role", role),
        };
        hub.audit.record(event).await?;
    }
    Ok(())
}

fn authorities(hub: &Hub) -> Vec<Ending> {
    let ledger = hub.keys.ledger();
    let in_use = (ledger.authorities.iter())
        .filter(|authority| matches!(authority.state, State::Published | State::Active));
    in_use
        .filter_map(|authority| {
            let (since, until) = hub.keys.validity(authority).ok()?;
            Some(Ending {
                kind: EventKind::AuthorityExpiring,
                subject: Subject::Authority {
                    role: authority.role.as_str(),
                    key: authority.key.to_string(),
                },
                until,
                near: (until.since(since) / LAST_PART).min(AUTHORITY_NEAR),
            })
        })
        .collect()
}

fn nodes(hub: &Hub) -> Vec<Ending> {
    hub.ends_of_active()
        .into_iter()
        .map(|(id, until)| Ending {
            kind: EventKind::SvidExpiring,
            subject: Subject::Identity(id.to_string()),
            until,
            // The shortest life that a policy can give: others are renewed long before.
            near: MIN_SVID_LIFETIME.as_duration() / LAST_PART,
        })
        .collect()
}

async fn operators(hub: &Hub) -> anyhow::Result<Vec<Ending>> {
    let domain = hub.audit.keeper().trust_domain();
    let operators = hub.store.operators().await?;
    let mut endings = Vec::new();
    for operator in operators.iter().filter(|known| known.revoked.is_none()) {
        let id = SpiffeId::new(domain, Kind::Operator, &operator.name)?;
        endings.push(Ending {
            kind: EventKind::SvidExpiring,
            subject: Subject::Identity(id.to_string()),
            until: operator.expires,
            near: (operator.expires.since(operator.added) / LAST_PART).min(OPERATOR_NEAR),
        });
    }
    Ok(endings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cloud;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn ending(name: &str, hours: u64) -> Ending {
        Ending {
            kind: EventKind::SvidExpiring,
            subject: Subject::Identity(name.to_owned()),
            until: NOW.plus(Duration::from_secs(hours * 3600)),
            near: Duration::from_secs(3 * 3600),
        }
    }

    #[test]
    fn what_is_far_or_over_or_was_said_today_is_not_said() {
        let mut told = Told::default();
        let all = || vec![ending("far", 3), ending("near", 2), ending("over", 0)];
        assert_eq!(told.due(all(), NOW), [ending("near", 2)]);
        assert!(told.due(all(), NOW).is_empty());
        let next = NOW.plus(AGAIN);
        let renewed = Ending {
            until: next.plus(Duration::from_secs(60)),
            ..ending("near", 2)
        };
        assert_eq!(told.due(vec![renewed.clone()], next), [renewed]);
    }

    #[test]
    fn a_fleet_that_was_switched_off_is_said_in_parts() {
        let mut told = Told::default();
        let all: Vec<Ending> = (0..MAX_TOLD + 5)
            .map(|n| ending(&format!("n{n}"), 1))
            .collect();
        assert_eq!(told.due(all.clone(), NOW).len(), MAX_TOLD);
        assert_eq!(told.due(all.clone(), NOW).len(), 5);
        assert!(told.due(all, NOW).is_empty());
    }

    #[tokio::test]
    async fn a_cloud_says_that_its_own_certificates_end() {
        let cloud = Cloud::start(&[]).await;
        let mut told = Told::default();
        let now = crate::testing::now();
        tell(&mut told, &cloud.hub, now).await.unwrap();
        let said = async |kind: &str| {
            let events = cloud.events().await;
            events.iter().filter(|(found, _)| found == kind).count()
        };
        assert_eq!(said("authority.expiring").await, 0);
        assert_eq!(said("svid.expiring").await, 0);
        let ends = cloud.hub.store.operators().await.unwrap()[0].expires;
        tell(&mut told, &cloud.hub, ends.minus(Duration::from_secs(60)))
            .await
            .unwrap();
        assert_eq!(said("svid.expiring").await, 1, "the first operator's");
        let ledger = cloud.hub.keys.ledger();
        let (_, until) = cloud.hub.keys.validity(&ledger.authorities[0]).unwrap();
        tell(&mut told, &cloud.hub, until.minus(Duration::from_secs(60)))
            .await
            .unwrap();
        assert!(said("authority.expiring").await > 0);
    }
}
