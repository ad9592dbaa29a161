use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use super::*;

/// How far the counter is followed: enough for every order of two joins.
const FAR: u64 = 4;
/// Most sessions of one agent whose messages are still on their way.
const MAX_OPEN: usize = 2;

/// A session as both ends and the wire between them see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Session {
    /// The Hello is on its way. `late`: the counter was raised since its connection began.
    Greeting { said: u64, late: bool },
    /// The Welcome is on its way.
    Welcomed { next: u64 },
    /// The agent's word that it stored the number is on its way.
    Storing { offered: u64, join: u64 },
}

/// One holder of the identity: what its disk says, and its sessions. A power cut loses nothing of this: what an agent
/// says is what its disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Holder {
    disk: u64,
    sessions: BTreeSet<Session>,
}

/// The cloud, with one holder of the identity or two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    holders: Vec<Holder>,
    /// In memory.
    confirmed: Option<u64>,

    /// In the database, which follows.
    written: Option<u64>,
    /// A holder that was refused.
    behind: Option<usize>,
    /// Which holder was the last that the cloud knows to have stored a number after the copy.
    joined_since_copy: Option<usize>,
}

impl World {
    fn new() -> Self {
        Self {
            holders: vec![Holder::default()],
            ..Self::default()
        }
    }

    fn kept(&self) -> Option<Confirmed> {
        self.confirmed.and_then(since_first)
    }

    fn keep(&mut self, confirmed: Confirmed) {
        if self.confirmed == Some(confirmed.number) {
            return;
        }
        self.confirmed = Some(confirmed.number);
        for holder in &mut self.holders {
            let sessions = std::mem::take(&mut holder.sessions);
            holder.sessions = sessions
                .into_iter()
                .map(|session| match session {
                    Session::Greeting { said, .. } => Session::Greeting { said, late: true },
                    other => other,
                })
                .collect();
        }
    }

    /// Every world that one step leads to.
    fn steps(&self) -> Vec<Self> {
        let mut next = Vec::new();
        // The database catches up; the cloud crashes and reads it again, and every connection is gone.
        next.push(Self {
            written: self.confirmed.max(self.written),
            ..self.clone()
        });
        let mut crashed = self.clone();
        crashed.confirmed = crashed.written;
        for holder in &mut crashed.holders {
            holder.sessions.clear();
        }
        next.push(crashed);
        for index in 0..self.holders.len() {
            self.steps_of(index, &mut next);
        }
        next
    }

    fn steps_of(&self, index: usize, next: &mut Vec<Self>) {
        let holder = &self.holders[index];
        if holder.sessions.len() < MAX_OPEN && holder.disk < FAR {
            let mut world = self.clone();
            let said = holder.disk;
            // The node makes up its mind what to say after the connection is there.
            world.holders[index]
                .sessions
                .insert(Session::Greeting { said, late: false });
            next.push(world);
        }
        for session in &holder.sessions {
            // Lost: a broken link, a power cut of the node.
            let mut world = self.clone();
            world.holders[index].sessions.remove(session);
            next.push(world.clone());
            match *session {
                Session::Greeting { said, late } => match hello(
                    world.kept(),
                    said,
                    moment(if late { 0 } else { 2 }),
                    moment(3),
                ) {
                    Ok(joined) => {
                        world.keep(joined.confirmed);
                        let welcomed = Session::Welcomed { next: joined.next };
                        world.holders[index].sessions.insert(welcomed);
                        next.push(world);
                    }
                    Err(JoinRefused::Behind { .. }) => {
                        world.behind = Some(index);
                        next.push(world);
                    }
                    Err(_) => next.push(world),
                },
                Session::Welcomed { next: offered } => {
                    // An agent stores a number only if it is above the one it has.
                    world.holders[index].disk = holder.disk.max(offered);
                    // Stored, and cut off before it could say so.
                    next.push(world.clone());
                    let said = Session::Storing {
                        offered,
                        join: offered,
                    };
                    world.holders[index].sessions.insert(said);
                    next.push(world);
                }
                Session::Storing { offered, join } => {
                    world.keep(stored_later(world.kept(), offered, join).unwrap());
                    world.joined_since_copy = Some(index);
                    next.push(world);
                }
            }
        }
    }

    /// The same with a copy of the first holder's disk in other hands.
    fn copied(&self) -> Self {
        let mut world = self.clone();
        let disk = self.holders[0].disk;
        world.holders.push(Holder {
            disk,
            sessions: BTreeSet::new(),
        });
        world
    }
}

fn moment(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

/// What is kept since the first second, and a connection after it.
fn since_first(number: u64) -> Option<Confirmed> {
    Some(Confirmed {
        number,
        since: moment(1),
    })
}

fn hello_later(confirmed: Option<Confirmed>, said: u64) -> Result<Joined, JoinRefused> {
    hello(confirmed, said, moment(2), moment(3))
}

fn stored_later(
    confirmed: Option<Confirmed>,
    offered: u64,
    join: u64,
) -> Result<Confirmed, JoinRefused> {
    stored(confirmed, offered, join, moment(3))
}

/// Every world that can be reached from `first`, by any order of events.
fn reachable(first: World) -> HashSet<World> {
    let mut seen = HashSet::from([first.clone()]);
    let mut waiting = VecDeque::from([first]);
    while let Some(world) = waiting.pop_front() {
        if world.behind.is_some() {
            continue;
        }
        for next in world.steps() {
            if seen.insert(next.clone()) {
                waiting.push_back(next);
            }
        }
    }
    seen
}

#[test]
fn a_counter_that_was_never_offered_is_refused() {
    assert_eq!(
        hello_later(None, MAX_JOIN + 1),
        Err(JoinRefused::NotOffered(MAX_JOIN + 1))
    );
    for join in [8, u64::MAX] {
        assert_eq!(
            stored_later(since_first(6), 7, join),
            Err(JoinRefused::NotOffered(join))
        );
    }
}

#[test]
fn a_counter_behind_on_a_new_connection_is_a_copy() {
    let behind = JoinRefused::Behind {
        said: 6,
        confirmed: 7,
    };
    assert_eq!(hello_later(since_first(7), 6), Err(behind));
    let behind = JoinRefused::Behind {
        said: 0,
        confirmed: 1,
    };
    assert_eq!(hello_later(since_first(1), 0), Err(behind));
}

#[test]
fn a_counter_behind_on_a_connection_from_before_is_only_turned_away() {
    let overtaken = JoinRefused::Overtaken {
        said: 6,
        confirmed: 7,
    };
    for accepted in [0, 1] {
        let refused = hello(since_first(7), 6, moment(accepted), moment(3));
        assert_eq!(refused, Err(overtaken), "{accepted}");
    }
}

#[test]
fn the_confirmed_number_and_the_next_one_pass() {
    for (confirmed, said) in [
        (None, 0),
        (None, 5),
        (since_first(7), 7),
        (since_first(7), 8),
        (since_first(7), 9),
    ] {
        let joined = hello_later(confirmed, said).unwrap();
        assert_eq!((joined.confirmed.number, joined.next), (said, said + 1));
        let raised = confirmed.is_none_or(|confirmed| confirmed.number < said);
        assert_eq!(joined.confirmed.since, moment(if raised { 3 } else { 1 }));
    }
}

#[test]
fn what_comes_late_takes_nothing_back() {
    assert_eq!(
        stored_later(since_first(9), 7, 7),
        Ok(since_first(9).unwrap())
    );
    for confirmed in [since_first(6), None] {
        let kept = stored_later(confirmed, 7, 7).unwrap();
        assert_eq!((kept.number, kept.since), (7, moment(3)));
    }
}

#[test]
fn no_order_of_crashes_and_lost_messages_locks_a_node_that_is_alone() {
    let worlds = reachable(World::new());
    // The walk went somewhere: all numbers, and a cloud that forgot.
    assert!(worlds.len() > 1_000, "{}", worlds.len());
    assert!(worlds.iter().any(|world| world.confirmed == Some(FAR)));
    assert!(
        worlds
            .iter()
            .any(|world| world.confirmed < world.written.max(Some(world.holders[0].disk)))
    );
    for world in &worlds {
        assert_eq!(world.behind, None, "{world:?}");
        assert!(
            world.confirmed.unwrap_or(0) <= world.holders[0].disk,
            "{world:?}"
        );
    }
}

#[test]
fn once_either_of_two_holders_has_joined_the_other_ones_next_hello_is_behind() {
    let before = World {
        holders: vec![Holder {
            disk: 1,
            sessions: BTreeSet::new(),
        }],
        confirmed: Some(1),
        written: Some(1),
        ..World::default()
    };
    let mut checked = 0;
    for world in reachable(before.copied()) {
        let Some(joined) = world.joined_since_copy.filter(|_| world.behind.is_none()) else {
            continue;
        };
        let other = &world.holders[1 - joined];
        // What the cloud knows: only a crash before the write makes it forget, and then the next join says it again.
        let (Some(confirmed), mine) = (world.confirmed, world.holders[joined].disk) else {
            continue;
        };
        if confirmed == mine && other.disk < mine {
            checked += 1;
            let refused = hello_later(world.kept(), other.disk);
            assert!(
                matches!(refused, Err(JoinRefused::Behind { .. })),
                "{world:?}"
            );
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn two_holders_that_take_turns_are_found_at_the_second_reconnect() {
    let is_behind = |refused| matches!(refused, Err(JoinRefused::Behind { .. }));
    // A copy of a state whose number is 6, of which the cloud knows. Whoever comes first joins as ever.
    let joined = hello_later(since_first(6), 6).unwrap();
    let kept = stored(Some(joined.confirmed), joined.next, 7, moment(1)).unwrap();
    // The other one comes: found.
    assert!(is_behind(hello_later(Some(kept), 6)));
    // If the first could not say that it stored, the other joins, and one of them is found when it comes again.
    let joined = hello_later(since_first(6), 6).unwrap();
    let kept = stored(Some(joined.confirmed), joined.next, 7, moment(1)).unwrap();
    let joined = hello_later(Some(kept), 7).unwrap();
    let kept = stored(Some(joined.confirmed), joined.next, 8, moment(1)).unwrap();
    assert!(is_behind(hello_later(Some(kept), 7)));
}
