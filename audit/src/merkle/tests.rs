use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::vectors;

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// RFC 6962 2.1, as it is written there.
fn reference_root(leaves: &[Digest]) -> Digest {
    match leaves.len() {
        0 => EMPTY_ROOT,
        1 => leaves[0],
        n => {
            let split = n.next_power_of_two() / 2;
            node_hash(
                &reference_root(&leaves[..split]),
                &reference_root(&leaves[split..]),
            )
        }
    }
}

#[test]
fn the_vectors_of_others_verify_exactly_where_they_should() {
    let Some(folder) = vectors::folder("merkle-proofs") else {
        return;
    };
    let mut inclusion = 0;
    each_json(&folder.join("inclusion"), &mut |case| {
        let (Some(root), Some(leaf), Some(proof)) = (
            digest(&case["root"]),
            digest(&case["leafHash"]),
            proof(&case["proof"]),
        ) else {
            return assert_refused(case);
        };
        let (index, size) = (number(&case["leafIdx"]), number(&case["treeSize"]));
        let held = verify_inclusion(&leaf, index, size, &proof, &root);
        assert_eq!(
            held.is_err(),
            case["wantErr"].as_bool().unwrap(),
            "{held:?} {case}"
        );
        inclusion += 1;
    });
    let mut consistency = 0;
    each_json(&folder.join("consistency"), &mut |case| {
        let (Some(old), Some(new), Some(proof)) = (
            digest(&case["root1"]),
            digest(&case["root2"]),
            proof(&case["proof"]),
        ) else {
            return assert_refused(case);
        };
        let held = verify_consistency(
            number(&case["size1"]),
            number(&case["size2"]),
            &proof,
            &old,
            &new,
        );
        assert_eq!(
            held.is_err(),
            case["wantErr"].as_bool().unwrap(),
            "{held:?} {case}"
        );
        consistency += 1;
    });
    assert!(
        inclusion > 30 && consistency > 30,
        "{inclusion} {consistency}"
    );
}

/// A hash or proof of another form than ours is refused when it is read.
fn assert_refused(case: &Value) {
    assert_eq!(case["wantErr"], true, "{case}");
}

fn each_json(folder: &Path, check: &mut dyn FnMut(&Value)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_json(&path, check);
        } else {
            check(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
        }
    }
}

fn digest(value: &Value) -> Option<Digest> {
    let bytes = BASE64_STANDARD.decode(value.as_str()?).unwrap();
    Digest::try_from(bytes.as_slice()).ok()
}

fn proof(value: &Value) -> Option<Vec<Digest>> {
    value.as_array().map_or(Some(Vec::new()), |hashes| {
        hashes.iter().map(digest).collect()
    })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn proofs_beyond_the_tree_are_not_made() {
    let leaves = leaves(5);
    assert_eq!(
        inclusion_proof(&leaves[..], 5, 5),
        Err(ProofError::Index { index: 5, size: 5 })
    );
    assert_eq!(
        inclusion_proof(&leaves[..], 0, 0),
        Err(ProofError::Index { index: 0, size: 0 })
    );
    assert_eq!(
        consistency_proof(&leaves[..], 0, 5),
        Err(ProofError::Sizes { from: 0, to: 5 })
    );
    assert_eq!(
        consistency_proof(&leaves[..], 5, 4),
        Err(ProofError::Sizes { from: 5, to: 4 })
    );
    assert_eq!(
        root(&leaves[..], 6),
        Err(ProofError::Unknown { level: 0, index: 5 })
    );
}

#[test]
fn every_proof_of_every_small_tree_holds_and_no_other() {
    let leaves = leaves(34);
    for size in 1..=34_u64 {
        let tree = root(&leaves[..], size).unwrap();
        assert_eq!(tree, reference_root(&leaves[..size as usize]));
        for index in 0..size {
            let proof = inclusion_proof(&leaves[..], index, size).unwrap();
            let leaf = &leaves[index as usize];
            assert_eq!(verify_inclusion(leaf, index, size, &proof, &tree), Ok(()));
            assert!(
                verify_inclusion(leaf, (index + 1) % size, size, &proof, &tree).is_err()
                    || size == 1
            );
            assert!(verify_inclusion(&EMPTY_ROOT, index, size, &proof, &tree).is_err());
            let longer = [proof.as_slice(), &[EMPTY_ROOT]].concat();
            assert!(verify_inclusion(leaf, index, size, &longer, &tree).is_err());
        }
        for from in 1..=size {
            let old = root(&leaves[..], from).unwrap();
            let proof = consistency_proof(&leaves[..], from, size).unwrap();
            assert_eq!(verify_consistency(from, size, &proof, &old, &tree), Ok(()));
            assert!(verify_consistency(from, size, &proof, &EMPTY_ROOT, &tree).is_err());
            assert!(verify_consistency(from, size, &proof, &old, &EMPTY_ROOT).is_err());
            for drop in 0..proof.len() {
                let mut shorter = proof.clone();
                shorter.remove(drop);
                assert!(verify_consistency(from, size, &shorter, &old, &tree).is_err());
            }
        }
    }
}

#[test]
fn a_stored_frontier_that_does_not_fit_its_size_is_refused() {
    let mut frontier = Frontier::new();
    for leaf in leaves(11) {
        frontier.append(leaf).unwrap();
    }
    let bytes = frontier.to_bytes();
    assert_eq!(Frontier::parse(&bytes), Ok(frontier));
    for length in 0..bytes.len() {
        assert!(Frontier::parse(&bytes[..length]).is_err());
    }
    let mut other = bytes.clone();
    other[7] = 12;
    assert_eq!(
        Frontier::parse(&other),
        Err(FrontierError::Peaks { size: 12, found: 3 })
    );
    let full = Frontier::from_parts(u64::MAX, vec![EMPTY_ROOT; 64]).unwrap();
    assert_eq!(full.clone().append(EMPTY_ROOT), Err(FrontierError::Full));
    assert_eq!(Frontier::parse(&full.to_bytes()), Ok(full));
}

#[test]
fn the_empty_root_is_the_hash_of_nothing() {
    assert_eq!(EMPTY_ROOT, Digest::of(&[]));
    assert_eq!(Frontier::new().root(), EMPTY_ROOT);
}

#[test]
fn proofs_can_be_made_from_the_nodes_that_the_frontier_completes() {
    struct Stored(BTreeMap<(u8, u64), Digest>);
    impl Nodes for Stored {
        fn node(&self, level: u8, index: u64) -> Option<Digest> {
            self.0.get(&(level, index)).copied()
        }
    }
    let leaves = leaves(300);
    let mut stored = Stored(BTreeMap::new());
    let mut frontier = Frontier::new();
    for leaf in &leaves {
        frontier
            .append_visiting(*leaf, |level, index, hash| {
                stored.0.insert((level, index), hash);
            })
            .unwrap();
    }
    assert_eq!(root(&stored, 300), Ok(frontier.root()));
    for index in [0, 1, 127, 128, 255, 256, 298, 299] {
        assert_eq!(
            inclusion_proof(&stored, index, 300),
            inclusion_proof(&leaves[..], index, 300)
        );
        assert_eq!(
            consistency_proof(&stored, index + 1, 300),
            consistency_proof(&leaves[..], index + 1, 300)
        );
    }
}

proptest! {
    #[test]
    fn a_frontier_agrees_with_the_tree_it_never_holds(count in 0_usize..600) {
        let leaves = leaves(count);
        let mut frontier = Frontier::new();
        for leaf in &leaves {
            frontier.append(*leaf).unwrap();
        }
        prop_assert_eq!(frontier.root(), reference_root(&leaves));
        prop_assert_eq!(root(&leaves[..], count as u64), Ok(frontier.root()));
    }

    #[test]
    fn no_proof_makes_the_verifiers_panic(
        index: u64, size: u64, from: u64, hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let proof: Vec<Digest> = hashes.into_iter().map(Digest::from_bytes).collect();
        prop_assert!(verify_inclusion(&EMPTY_ROOT, index, size, &proof, &EMPTY_ROOT).is_err() || size == 1);
        let _ = verify_consistency(from, size, &proof, &EMPTY_ROOT, &EMPTY_ROOT);
    }
}
