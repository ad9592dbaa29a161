//! On stable: every committed corpus file and seed, whole, cut at every byte, and mutated a bounded number of times.
//! A panic fails the test and names the target; the input is printed in hex for `tests/fuzz/corpus/<target>/`.

#[path = "targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target, VECTORS};

/// Mutations tried per target.
const MUTATIONS: u32 = 20_000;
/// Largest mutated input, in bytes.
const MAX_INPUT_BYTES: usize = 8 * 1024;
/// Largest vector that is a seed of a target of its own, in bytes.
const MAX_OWN_VECTOR_BYTES: usize = 64 * 1024;
/// Most files of another project's vectors taken as seeds per target.
const MAX_VECTOR_SEEDS: usize = 40;

#[test]
fn no_parser_panics_on_any_input_tried() {
    let vectors = vector_seeds();
    assert!(
        VECTORS
            .iter()
            .all(|(name, _)| TARGETS.iter().any(|target| target.name == *name)),
        "vectors of a target that there is not"
    );
    if vectors.is_empty() {
        eprintln!("vectors not found: seeds are the committed corpus and our own only");
    }
    for target in TARGETS {
        let mut seeds = (target.seeds)();
        seeds.extend(corpus(target.name));
        seeds.extend(vectors.iter().cloned());
        seeds.push(Vec::new());
        for seed in &seeds {
            attempt(target, seed);
            for length in 0..seed.len().min(1024) {
                attempt(target, &seed[..length]);
            }
        }
        let own = own_vectors(target.name);
        for seed in &own {
            attempt(target, seed);
            for length in 0..seed.len().min(256) {
                attempt(target, &seed[..length]);
            }
        }
        mutate(target, &seeds, MAX_INPUT_BYTES, MUTATIONS);
        mutate(target, &own, MAX_OWN_VECTOR_BYTES, MUTATIONS);
    }
}

#[test]
fn every_parser_has_a_name_of_its_own_and_they_are_sorted() {
    for pair in TARGETS.windows(2) {
        assert!(
            pair[0].name < pair[1].name,
            "{} before {}",
            pair[0].name,
            pair[1].name
        );
    }
}

fn mutate(target: &Target, seeds: &[Vec<u8>], most_bytes: usize, times: u32) {
    if seeds.is_empty() {
        return;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..times {
        let mut input = seeds[random.below(seeds.len())].clone();
        input.truncate(most_bytes);
        for _ in 0..=random.below(4) {
            random.change(&mut input, seeds);
        }
        attempt(target, &input);
    }
}

fn attempt(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} panicked on {hex}", target.name);
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    files(&folder, usize::MAX, MAX_INPUT_BYTES)
}

fn vectors_folder() -> PathBuf {
    std::env::var_os("EDGEWARD_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    )
}

/// Vectors that are seeds of this target only, larger than those that all targets share.
fn own_vectors(name: &str) -> Vec<Vec<u8>> {
    VECTORS
        .iter()
        .filter(|(target, _)| *target == name)
        .flat_map(|(_, family)| {
            files(
                &vectors_folder().join(family),
                MAX_VECTOR_SEEDS,
                MAX_OWN_VECTOR_BYTES,
            )
        })
        .collect()
}

fn vector_seeds() -> Vec<Vec<u8>> {
    let folder = vectors_folder();
    [
        "tpm-quotes/keylime",
        "spiffe-x509-svid/rust-spiffe",
        "tlog-tiles",
        "ek-certificates/go-tpm-tools",
    ]
    .iter()
    .flat_map(|family| files(&folder.join(family), MAX_VECTOR_SEEDS / 4, MAX_INPUT_BYTES))
    .collect()
}

fn files(folder: &Path, most: usize, most_bytes: usize) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.is_file())
        .filter_map(|path| std::fs::read(path).ok())
        .filter(|bytes| bytes.len() <= most_bytes)
        .take(most)
        .collect()
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(6) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            2 => input.truncate(at),
            3 => input.insert(at, (self.next() & 0xff) as u8),
            4 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                let bytes: Vec<u8> = other[from..].iter().take(64).copied().collect();
                input.splice(at..at, bytes);
            }
            _ => {
                let end = (at + 4).min(input.len());
                input[at..end].fill(0xff);
            }
        }
    }
}
