//! Whether this node hears from the cloud.

use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};
use edgeward_policy::decision::Link;

/// The last signed word of the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it arrived, on this boot's clock.
    pub at: BootTime,
    /// The cloud's own time in it.
    pub time: Timestamp,
    /// How long without another one before this node counts as cut off: what the cloud promised.
    pub lost_after: Duration,
}

/// The state of the link. What follows from it depends on the time of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudLink {
    /// Last heartbeat of this boot.
    pub heard: Option<Heard>,
    /// Last heartbeat of an earlier boot, from the stored state; the epoch if there was none.
    pub before_boot: Timestamp,
    /// A session is up. Says less than [`CloudLink::online`]: a dead link looks up for a while.
    pub connected: bool,
    /// When that last changed; none since the agent started.
    pub changed: Option<BootTime>,
}

impl CloudLink {
    pub fn never_since(before_boot: Timestamp) -> Self {
        Self {
            heard: None,
            before_boot,
            connected: false,
            changed: None,
        }
    }

    /// A heartbeat came as lately as the cloud promised: within 30 s, or what a metered link was told.
    pub fn online(&self, now: BootTime) -> bool {
        self.heard
            .is_some_and(|heard| now.since(heard.at) <= heard.lost_after)
    }

    /// Cloud time of the last heartbeat.
    pub fn last_heartbeat(&self) -> Timestamp {
        self.heard.map_or(self.before_boot, |heard| heard.time)
    }

    /// The link as the policy engine asks for it.
    pub fn for_policy(&self, now: BootTime) -> Link {
        if self.online(now) {
            Link::Online
        } else {
            Link::Offline {
                last_heartbeat: self.last_heartbeat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_link_without_a_heartbeat_for_thirty_seconds_is_offline() {
        let mut link = CloudLink::never_since(Timestamp::from_secs(100));
        link.connected = true;
        assert!(!link.online(at(1)));
        link.heard = Some(Heard {
            at: at(10),
            time: Timestamp::from_secs(200),
            lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
        });
        assert!(link.online(at(40)));
        assert!(!link.online(at(41)));
        assert_eq!(
            link.for_policy(at(41)),
            Link::Offline {
                last_heartbeat: Timestamp::from_secs(200)
            }
        );
    }
}
