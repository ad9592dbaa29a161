//! Whether this node hears the cloud, as binds and flows ask for it: `fresh` holds while it does, `offline` while not.
//!
//! The moment a link comes back every peer's last pass is from before the outage, and would be too old for `fresh` at
//! once, although the peer is only waiting for its challenge. So for [`SETTLE`] a peer that has not passed since keeps
//! what `offline` gave it; one that has is judged by `fresh`. News that takes rights away (deny-list, cuts) never waits.

use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};
use edgeward_policy::Link;

use crate::view::CloudLink;

/// How long after an outage peers may take to pass again: the interval of challenges, its jitter and two answers.
pub const SETTLE: Duration = Duration::from_secs(90);

/// Follows a [`CloudLink`]. Starts out cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearing(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    CutOff {
        last_heartbeat: Timestamp,
    },
    /// Heard again after an outage that began with this heartbeat.
    Settling {
        last_heartbeat: Timestamp,
        until: BootTime,
    },
    Online,
}

impl Hearing {
    /// At the start of the agent.
    pub fn begin(link: &CloudLink, now: BootTime) -> Self {
        let cut_off = Self(State::CutOff {
            last_heartbeat: link.before_boot,
        });
        cut_off.after(link, now)
    }

    /// At the start of a program that takes the place of one that heard the cloud.
    pub fn resumed(link: &CloudLink, now: BootTime) -> Self {
        match link.online(now) {
            true => Self(State::Online),
            false => Self::begin(link, now).after(link, now),
        }
    }

    pub fn is_online(&self) -> bool {
        self.0 == State::Online
    }

    /// The state after time passed or the link changed. Ask again by [`Hearing::changes_at`] at the latest.
    #[must_use]
    pub fn after(self, link: &CloudLink, now: BootTime) -> Self {
        if !link.online(now) {
            return Self(State::CutOff {
                last_heartbeat: link.last_heartbeat(),
            });
        }
        match self.0 {
            State::CutOff { last_heartbeat } => Self(State::Settling {
                last_heartbeat,
                until: now.plus(SETTLE),
            }),
            State::Settling { until, .. } if until <= now => Self(State::Online),
            State::Settling { .. } | State::Online => self,
        }
    }

    /// The link towards a peer that passed last at `passed`.
    pub fn towards(&self, passed: Option<Timestamp>) -> Link {
        match self.0 {
            State::CutOff { last_heartbeat } => Link::Offline { last_heartbeat },
            State::Settling { last_heartbeat, .. }
                if passed.is_none_or(|passed| passed <= last_heartbeat) =>
            {
                Link::Offline { last_heartbeat }
            }
            State::Settling { .. } | State::Online => Link::Online,
        }
    }

    /// When time alone changes the state, at the latest.
    pub fn changes_at(&self, link: &CloudLink) -> Option<BootTime> {
        let lost = link.heard.map(|heard| heard.at.plus(heard.lost_after));
        match self.0 {
            State::CutOff { .. } => None,
            State::Settling { until, .. } => Some(lost.map_or(until, |lost| lost.min(until))),
            State::Online => lost,
        }
    }

    /// Last heartbeat before the outage that leases still count from.
    pub fn outage(&self) -> Option<Timestamp> {
        match self.0 {
            State::CutOff { last_heartbeat } | State::Settling { last_heartbeat, .. } => {
                Some(last_heartbeat)
            }
            State::Online => None,
        }
    }

    pub fn is_cut_off(&self) -> bool {
        matches!(self.0, State::CutOff { .. })
    }

    /// For status output.
    pub fn as_str(&self) -> &'static str {
        match self.0 {
            State::CutOff { .. } => "cut-off",
            State::Settling { .. } => "settling",
            State::Online => "online",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Heard;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn wall(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn heard(seconds: u64) -> CloudLink {
        CloudLink {
            heard: Some(Heard {
                at: at(seconds),
                time: wall(10_000 + seconds),
                lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
            }),
            before_boot: wall(5_000),
            connected: true,
            changed: None,
        }
    }

    #[test]
    fn a_node_that_never_heard_the_cloud_since_its_start_is_cut_off_since_before() {
        let hearing = Hearing::begin(&CloudLink::never_since(wall(5_000)), at(1));
        assert!(hearing.is_cut_off());
        let offline = Link::Offline {
            last_heartbeat: wall(5_000),
        };
        assert_eq!(hearing.towards(Some(wall(9_000))), offline);
    }

    #[test]
    fn thirty_seconds_of_silence_cut_off_and_the_outage_counts_from_the_last_heartbeat() {
        let link = heard(100);
        let online = Hearing(State::Online).after(&link, at(130));
        assert_eq!(online.towards(None), Link::Online);
        assert_eq!(online.changes_at(&link), Some(at(130)));
        let lost = online.after(&link, at(131));
        let offline = Link::Offline {
            last_heartbeat: wall(10_100),
        };
        assert_eq!(lost.towards(Some(wall(10_130))), offline);
    }

    #[test]
    fn a_node_that_was_promised_few_heartbeats_waits_longer_for_them() {
        let mut link = heard(100);
        if let Some(heard) = &mut link.heard {
            heard.lost_after = Duration::from_secs(600);
        }
        let online = Hearing(State::Online).after(&link, at(700));
        assert_eq!(online.towards(None), Link::Online);
        assert_eq!(online.changes_at(&link), Some(at(700)));
        assert!(online.after(&link, at(701)).is_cut_off());
    }

    #[test]
    fn after_an_outage_only_peers_that_passed_since_are_judged_by_fresh() {
        let lost = Hearing(State::CutOff {
            last_heartbeat: wall(10_100),
        });
        let back = lost.after(&heard(500), at(500));
        assert!(matches!(
            back.towards(Some(wall(10_099))),
            Link::Offline { .. }
        ));
        assert!(matches!(back.towards(None), Link::Offline { .. }));
        assert_eq!(back.towards(Some(wall(10_550))), Link::Online);
    }

    #[test]
    fn settling_ends_and_a_second_outage_counts_from_the_heartbeat_between() {
        let lost = Hearing(State::CutOff {
            last_heartbeat: wall(10_100),
        });
        let back = lost.after(&heard(500), at(500));
        assert_eq!(back.after(&heard(585), at(590)).towards(None), Link::Online);
        let again = back.after(&heard(500), at(540));
        let offline = Link::Offline {
            last_heartbeat: wall(10_500),
        };
        assert_eq!(again.towards(None), offline);
    }
}
