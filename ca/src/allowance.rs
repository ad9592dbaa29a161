//! What each node may ask for: so much at once, and so much a second after that. Told the time.

use std::collections::BTreeMap;

use edgeward_identity::BootTime;

/// Thousandths of a request.
const WHOLE: u64 = 1_000;

/// What every node has left. Only enrolled nodes are in it, so the fleet is its bound.
#[derive(Debug)]
pub(crate) struct Allowances {
    burst: u64,
    per_second: u64,
    nodes: BTreeMap<String, Left>,
}

#[derive(Debug)]
struct Left {
    thousandths: u64,
    at: BootTime,
}

impl Allowances {
    pub(crate) fn new(burst: u64, per_second: u64) -> Self {
        Self {
            burst,
            per_second,
            nodes: BTreeMap::new(),
        }
    }

    /// Takes one request, if there is one left.
    pub(crate) fn take(&mut self, node: &str, now: BootTime) -> bool {
        let most = self.burst * WHOLE;
        let left = self.nodes.entry(node.to_owned()).or_insert(Left {
            thousandths: most,
            at: now,
        });
        let passed = u64::try_from(now.since(left.at).as_millis()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(self.per_second);
        left.thousandths = left.thousandths.saturating_add(earned).min(most);
        left.at = now;
        match left.thousandths.checked_sub(WHOLE) {
            Some(rest) => {
                left.thousandths = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BURST: u64 = 256;
    const PER_SECOND: u64 = 8;

    fn at(millis: u64) -> BootTime {
        BootTime::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn a_node_that_asks_too_often_waits_and_no_other_waits_for_it() {
        let mut allowances = Allowances::new(BURST, PER_SECOND);
        for _ in 0..BURST {
            assert!(allowances.take("a", at(0)));
        }
        assert!(!allowances.take("a", at(0)));
        assert!(allowances.take("b", at(0)));
        assert!(!allowances.take("a", at(124)));
        assert!(allowances.take("a", at(125)));
        assert!(!allowances.take("a", at(125)));
        let later = at(125 + 1000 * BURST);
        for _ in 0..BURST {
            assert!(allowances.take("a", later));
        }
        assert!(!allowances.take("a", later));
    }
}
