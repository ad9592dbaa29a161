//! What is right now for a tunnel that no bind has renewed. Pure, told the time: nothing grows by it.

use std::time::Duration;

use edgeward_identity::{BootTime, DenyList, SpiffeId};
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::lease::{CloudLink, Now, Standing, lease_end};
use ipnet::IpNet;

use crate::enforce::books::Armed;
use crate::enforce::decide::{Candidate, Picture};

/// Two clocks run side by side: a lease that is shorter by less is the same one.
const SLACK: Duration = Duration::from_secs(1);

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::enforce) enum Word {
    Stays,
    Changes {
        /// Never later than before.
        until: BootTime,
        allowed_ips: Vec<IpNet>,
    },
    Cut(Code),
}

/// As a bind would be asked about again, by what its peer had shown when the tunnel was handed over.
pub(in crate::enforce) fn word(
    picture: &Picture,
    deny: &DenyList,
    peer: &SpiffeId,
    armed: &Armed,
    now: Now,
) -> Word {
    if armed.until <= now.boot {
        return Word::Cut(Code::Lease);
    }
    // Armed and never opened: nothing was granted, and the bind that would have opened it is gone.
    let Some(bound) = picture.parts().bound.get(&armed.number) else {
        return Word::Cut(Code::Lost);
    };
    if deny.get(&bound.spki).is_some() {
        return Word::Cut(Code::Identity);
    }
    let candidate = Candidate {
        id: peer,
        standing: bound.evidence_in(picture),
        by_boot_statement: bound.by_boot_statement,
    };
    let Ok(grant) = picture.grant(&candidate, now.wall) else {
        return Word::Cut(Code::Policy);
    };
    if grant.allowed_ips.is_empty() {
        return Word::Cut(Code::Policy);
    }
    let standing = Standing {
        passed: bound.evidence.last_pass.unwrap_or_default(),
        by_boot_statement: bound.by_boot_statement,
        // The lease as it was given ends no later than the certificates.
        certificates_until: grant.limits.policy_until,
    };
    let link = match picture.parts().hearing.outage() {
        Some(last_heartbeat) => CloudLink::CutOff { last_heartbeat },
        None => CloudLink::Online,
    };
    let Ok(end) = lease_end(&standing, &grant.limits, link, now) else {
        return Word::Cut(Code::Lease);
    };
    if end.plus(SLACK) >= armed.until && grant.allowed_ips == armed.allowed_ips {
        return Word::Stays;
    }
    Word::Changes {
        until: end.min(armed.until),
        allowed_ips: grant.allowed_ips,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use edgeward_identity::Timestamp;
    use edgeward_identity::deny::Denied;
    use edgeward_identity::testing::TEST_NOW;
    use edgeward_wire::control::{Cut, CutReason};

    use super::*;
    use crate::enforce::decide::PictureParts;
    use crate::enforce::testing::{MINUTE, PEER, boot, cut_off_at, id, parts, rules, slice, spki};
    use crate::view::{Held, Standing as May};

    const NOW: Now = Now {
        wall: TEST_NOW,
        boot: BootTime::from_duration(Duration::from_secs(5000)),
    };
    /// The peer passed a minute ago, and the rules say ten minutes.
    const LEFT: Duration = Duration::from_secs(9 * 60);

    fn nobody() -> DenyList {
        DenyList::default()
    }

    fn armed(left: Duration) -> Armed {
        let parts = parts();
        let rules = parts.rules.unwrap();
        Armed {
            number: PEER,
            keys: [[1; 32], [2; 32]],
            until: NOW.boot.plus(left),
            allowed_ips: rules.prefixes(rules.peer(&id("b")).unwrap()),
            open_since: Some(boot(1)),
            handed: true,
        }
    }

    fn on(change: impl FnOnce(&mut PictureParts), left: Duration, deny: &DenyList) -> Word {
        let mut parts = parts();
        change(&mut parts);
        word(&Picture::new(parts), deny, &id("b"), &armed(left), NOW)
    }

    #[test]
    fn whoever_lost_his_right_meanwhile_is_cut() {
        let mut floors = crate::view::CutFloors::default();
        let cut = Cut {
            node: id("b"),
            reason: CutReason::Quarantined,
            time: TEST_NOW,
        };
        floors.add(1, &cut);
        type Change = Box<dyn FnOnce(&mut PictureParts)>;
        let cases: [(&str, Change, Code); 6] = [
            (
                "no policy",
                Box::new(|parts| parts.rules = None),
                Code::Policy,
            ),
            (
                "policy without the peer's rules",
                Box::new(|parts| {
                    let mut slice = slice();
                    slice.interfaces.clear();
                    slice.egress.clear();
                    parts.rules = Some(rules(slice));
                }),
                Code::Policy,
            ),
            (
                "nothing may be granted",
                Box::new(|parts| parts.standing = May::Held(Held::ClockBehindFloor)),
                Code::Policy,
            ),
            (
                "cut",
                Box::new(move |parts| parts.floors = Arc::new(floors)),
                Code::Policy,
            ),
            (
                "never opened",
                Box::new(|parts| parts.bound.clear()),
                Code::Lost,
            ),
            (
                "too old",
                Box::new(|parts| {
                    let bound = parts.bound.get_mut(&PEER).unwrap();
                    bound.evidence.last_pass = Some(TEST_NOW.minus(MINUTE * 11));
                }),
                Code::Policy,
            ),
        ];
        for (what, change, code) in cases {
            assert_eq!(on(change, LEFT, &nobody()), Word::Cut(code), "{what}");
        }
        let over = on(|_| (), Duration::ZERO, &nobody());
        assert_eq!(over, Word::Cut(Code::Lease));
        let denied = Denied {
            reason: "removed".to_owned(),
            until: Timestamp::from_secs(u64::MAX / 2000),
        };
        let deny = DenyList::new(1, BTreeMap::from([(spki(2), denied)])).unwrap();
        assert_eq!(on(|_| (), LEFT, &deny), Word::Cut(Code::Identity));
    }

    #[test]
    fn a_lease_is_shortened_and_never_lengthened() {
        assert_eq!(on(|_| (), LEFT, &nobody()), Word::Stays);
        assert_eq!(on(|_| (), MINUTE, &nobody()), Word::Stays);
        let longer = |parts: &mut PictureParts| parts.hearing = cut_off_at(TEST_NOW);
        assert_eq!(on(longer, LEFT, &nobody()), Word::Stays);
        let Word::Changes { until, .. } = on(|_| (), MINUTE * 60, &nobody()) else {
            panic!("an hour is more than any rule gives");
        };
        assert_eq!(until, NOW.boot.plus(LEFT));
        let mut other = armed(MINUTE);
        other.allowed_ips.push("fd00::99/128".parse().unwrap());
        let picture = Picture::new(parts());
        let Word::Changes { until, allowed_ips } = word(&picture, &nobody(), &id("b"), &other, NOW)
        else {
            panic!("a prefix that policy does not give");
        };
        assert_eq!(
            (until, allowed_ips),
            (other.until, armed(MINUTE).allowed_ips)
        );
    }
}
