//! The interop matrix, reduced so that any two values of two columns meet, against Debian's `wireguard-go`.
//! The full product and the other implementations: `tests/bench/tunnel/matrix`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use edgeward_tests::process::run;

use crate::wireguard_interop::example;

const MATRIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/tunnel/matrix");
/// Outside, key, who initiates, offload, MTU.
const COLUMNS: [&[&str]; 5] = [
    &["v4", "v6"],
    &["right", "none", "wrong"],
    &["we", "they"],
    &["on", "off"],
    &["1280", "1420", "1500"],
];

#[test]
fn every_pair_of_the_matrix_interoperates_with_wireguard_go() -> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let printed = run(Command::new(MATRIX)
        .env("CELLS", "pairs")
        .env("PEERS", "wireguard-go")
        .env("EXAMPLE", example()?))?;
    let cells: Vec<Vec<&str>> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("ok wireguard-go "))
        .map(|line| line.split(' ').collect())
        .collect();
    let mut met: BTreeMap<(usize, usize), BTreeSet<(&str, &str)>> = BTreeMap::new();
    for cell in &cells {
        assert_eq!(cell.len(), COLUMNS.len(), "{cell:?}");
        for first in 0..COLUMNS.len() {
            for second in first + 1..COLUMNS.len() {
                let pairs = met.entry((first, second)).or_default();
                pairs.insert((cell[first], cell[second]));
            }
        }
    }
    for (first, values) in COLUMNS.iter().enumerate() {
        for (second, others) in COLUMNS.iter().enumerate().skip(first + 1) {
            for pair in values
                .iter()
                .flat_map(|value| others.iter().map(move |other| (*value, *other)))
            {
                assert!(
                    met.get(&(first, second))
                        .is_some_and(|pairs| pairs.contains(&pair)),
                    "no cell with {pair:?}"
                );
            }
        }
    }
    Ok(())
}
