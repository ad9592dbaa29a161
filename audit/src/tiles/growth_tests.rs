use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::merkle::{
    ProofError, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
    verify_inclusion,
};

fn leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn grown(leaves: &[Digest]) -> Growth {
    let mut growth = Growth::new(0, TileNodes::new()).unwrap();
    for leaf in leaves {
        growth.append(*leaf).unwrap();
    }
    growth
}

/// All tiles of a tree, as a store would hold them.
fn stored(growth: &Growth) -> TileNodes {
    let mut tiles = TileNodes::new();
    for (at, hashes) in growth.changed() {
        tiles.insert(at, hashes.to_vec());
    }
    tiles
}

#[test]
fn an_edge_of_another_width_is_refused() {
    let growth = grown(&leaves(70_000));
    let tiles = stored(&growth);
    assert!(Growth::new(70_000, tiles.clone()).is_ok());
    for size in [69_999, 70_001, 1, 65_537] {
        assert!(
            matches!(
                Growth::new(size, tiles.clone()),
                Err(GrowthError::Width { .. })
            ),
            "{size}"
        );
    }
    assert!(matches!(
        Growth::new(1, TileNodes::new()),
        Err(GrowthError::Width {
            level: 0,
            index: 0,
            found: 0
        })
    ));
    // Full tiles are no part of an edge.
    assert!(Growth::new(0, TileNodes::new()).is_ok());
}

#[test]
fn a_proof_from_a_tile_that_is_not_there_is_an_error() {
    let growth = grown(&leaves(300));
    let mut tiles = stored(&growth);
    tiles.retain(|at| at != (0, 1));
    assert_eq!(
        inclusion_proof(&tiles, 299, 300),
        Err(ProofError::Unknown {
            level: 0,
            index: 256
        })
    );
    assert!(root(&tiles, 300).is_err());
    assert!(root(&tiles, 256).is_ok());
}

#[test]
fn the_tiles_of_70_000_leaves_are_those_that_the_specification_counts() {
    let growth = grown(&leaves(70_000));
    let count = |level, full: bool| {
        growth
            .changed()
            .filter(|((at, _), hashes)| {
                *at == level && (hashes.len() == usize::from(TILE_WIDTH)) == full
            })
            .count()
    };
    assert_eq!((count(0, true), count(0, false)), (273, 1));
    assert_eq!((count(1, true), count(1, false)), (1, 1));
    assert_eq!((count(2, true), count(2, false)), (0, 1));
    let edge: Vec<String> = edge_of(70_000).iter().map(ToString::to_string).collect();
    assert_eq!(
        edge,
        ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
    );
    for (at, hashes) in growth.changed() {
        let tile = Tile::in_tree(Row::Level(at.0), at.1, 70_000).unwrap();
        assert_eq!(usize::from(tile.width()), hashes.len());
    }
}

#[test]
fn a_tree_of_256_leaves_has_one_full_tile_and_a_hash_above_it() {
    let growth = grown(&leaves(256));
    let tiles: Vec<_> = growth
        .changed()
        .map(|(at, hashes)| (at, hashes.len()))
        .collect();
    assert_eq!(tiles, [((0, 0), 256), ((1, 0), 1)]);
    assert_eq!(growth.root().unwrap(), root(&leaves(256)[..], 256).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn growing_in_rounds_gives_the_tree_of_all_leaves_and_stays_consistent(
        rounds in prop::collection::vec(0_u64..700, 1..8),
    ) {
        let total: u64 = rounds.iter().sum();
        let all = leaves(total);
        let mut tiles = TileNodes::new();
        let mut growth = Growth::new(0, TileNodes::new()).unwrap();
        for more in rounds {
            let from = growth.size();
            let old = growth.root().unwrap();
            for leaf in all.iter().skip(usize::try_from(from).unwrap()).take(usize::try_from(more).unwrap()) {
                growth.append(*leaf).unwrap();
            }
            let size = growth.size();
            let new = growth.root().unwrap();
            prop_assert_eq!(new, root(&all[..], size).unwrap());
            if from > 0 {
                let proof = growth.consistency(from).unwrap();
                prop_assert!(verify_consistency(from, size, &proof, &old, &new).is_ok());
            }
            for (at, hashes) in growth.changed() {
                tiles.insert(at, hashes.to_vec());
            }
            growth.settle();
            // As after a restart: from the stored edge alone.
            let mut edge = TileNodes::new();
            for tile in edge_of(size) {
                let Row::Level(level) = tile.row() else { unreachable!() };
                edge.insert((level, tile.index()), tiles.get((level, tile.index())).unwrap().to_vec());
            }
            let again = Growth::new(size, edge).unwrap();
            prop_assert_eq!(again.root().unwrap(), new);
            prop_assert_eq!(growth.root().unwrap(), new);
        }
    }

    #[test]
    fn proofs_need_exactly_the_tiles_that_are_named(
        (size, index, from) in (1_u64..70_000).prop_flat_map(|size| (Just(size), 0..size, 1..=size)),
    ) {
        let all = leaves(size);
        let tiles = stored(&grown(&all));
        let only = |wanted: &BTreeSet<TileAt>| {
            let mut some = TileNodes::new();
            for at in wanted {
                some.insert(*at, tiles.get(*at).unwrap().to_vec());
            }
            some
        };
        let whole = root(&all[..], size).unwrap();
        let some = only(&tiles_of_root(size));
        prop_assert_eq!(root(&some, size).unwrap(), whole);
        let wanted = tiles_of_inclusion(index, size).unwrap();
        prop_assert!(wanted.len() <= 8);
        let proof = inclusion_proof(&only(&wanted), index, size).unwrap();
        let leaf = all[usize::try_from(index).unwrap()];
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &whole).is_ok());
        let wanted = tiles_of_consistency(from, size).unwrap();
        let proof = consistency_proof(&only(&wanted), from, size).unwrap();
        let old = root(&all[..], from).unwrap();
        prop_assert!(verify_consistency(from, size, &proof, &old, &whole).is_ok());
    }
}
