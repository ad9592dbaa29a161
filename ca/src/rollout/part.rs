//! Which nodes a stage is about. The same nodes again after a restart and with a larger share: a hash says it, not a draw.

use edgeward_evidence::Digest;

/// The nodes with the smallest positions under one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    policy: [u8; 32],
    /// The last position that belongs to it.
    threshold: u64,
}

/// Share of the nodes, in percent: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    pub const ALL: Self = Self(100);

    /// `None` for nothing and for more than everything.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl Part {
    /// This share of all nodes that there may ever be; of those there are at least the one with the smallest position,
    /// for a stage on nobody would tell nothing.
    pub fn new<'a>(
        policy: [u8; 32],
        percent: Percent,
        nodes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let share = u128::from(u64::MAX) * u128::from(percent.get()) / 100;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let smallest = nodes.into_iter().map(|name| position(&policy, name)).min();
        Self {
            policy,
            threshold: share.max(smallest.unwrap_or(0)),
        }
    }

    /// As it was written down.
    pub fn restored(policy: [u8; 32], threshold: u64) -> Self {
        Self { policy, threshold }
    }

    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    pub fn holds(&self, node: &str) -> bool {
        position(&self.policy, node) <= self.threshold
    }
}

fn position(policy: &[u8; 32], node: &str) -> u64 {
    let text = format!("edgeward-stage-v1\n{}\n{node}", hex::encode(policy));
    let digest = Digest::of(text.as_bytes());
    digest
        .as_bytes()
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        (0..10_000).map(|n| format!("gw-{n}")).collect()
    }

    fn part(policy: u8, percent: u8, names: &[String]) -> Vec<&str> {
        let part = Part::new(
            [policy; 32],
            Percent::new(percent).unwrap(),
            names.iter().map(String::as_str),
        );
        let names = names.iter().map(String::as_str);
        names.filter(|name| part.holds(name)).collect()
    }

    #[test]
    fn nothing_and_more_than_everything_are_no_shares() {
        assert_eq!(Percent::new(0), None);
        assert_eq!(Percent::new(101), None);
    }

    #[test]
    fn a_larger_share_holds_every_node_of_a_smaller_one_and_about_as_many_as_it_says() {
        let names = names();
        let (small, large) = (part(1, 10, &names), part(1, 50, &names));
        assert!(small.iter().all(|name| large.contains(name)));
        assert!((900..1100).contains(&small.len()), "{}", small.len());
        assert!((4800..5200).contains(&large.len()), "{}", large.len());
        assert_eq!(part(1, 100, &names).len(), names.len());
    }

    #[test]
    fn another_policy_is_tried_on_other_nodes() {
        let names = names();
        let (one, other) = (part(1, 10, &names), part(2, 10, &names));
        let both = one.iter().filter(|name| other.contains(name)).count();
        assert!(both < 200, "{both}");
    }

    #[test]
    fn a_small_fleet_has_somebody_in_the_smallest_share() {
        let names = ["a".to_owned(), "b".to_owned()];
        for policy in 0..50 {
            assert!(!part(policy, 1, &names).is_empty());
        }
    }
}
