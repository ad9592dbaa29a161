//! What verifying costs: `release_rate refresh` (a publisher with 10,000 releases), `release_rate fill` (a file of 256 MiB
//! filled chunk by chunk beside plain SHA-256 of the same bytes), `release_rate archive FILE.tar`, and
//! `release_rate delta OLD NEW` (what a node that has one folder's files lacks of the other's).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use edgeward_apps::author::{Envelope, Pin, RoleKey, Signers};
use edgeward_apps::chunk::{Filling, cut};
use edgeward_apps::image::ImageFloors;
use edgeward_apps::unpack::{Discard, Tree};
use edgeward_apps::{Digest, PublisherKeys, PublisherName, Refresh};
use edgeward_identity::{Signer as _, SoftwareKey, Timestamp};

const RELEASES: u32 = 10_000;
const FILE_BYTES: usize = 256 * 1024 * 1024;
const ROUNDS: usize = 20;

type Failure = Box<dyn std::error::Error>;

#[allow(clippy::print_stdout, reason = "prints what it measured")]
fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["refresh"] => {
            println!("memory at the start: {}", memory()?);
            refresh()?;
            println!("memory after refreshes: {}", memory()?);
            Ok(())
        }
        ["fill"] => fill(),
        ["archive", path] => archive(Path::new(path)),
        ["delta", old, new] => delta(Path::new(old), Path::new(new)),
        _ => Err("usage: release_rate refresh | fill | archive FILE | delta OLD NEW".into()),
    }
}

#[allow(clippy::print_stdout, reason = "prints what it measured")]
fn archive(path: &Path) -> Result<(), Failure> {
    let bytes = std::fs::read(path)?;
    let start = Instant::now();
    let mut tree = Tree::default();
    tree.add(bytes.as_slice(), &mut Discard)?;
    let rate = bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("archive: {} entries, {rate:.0} MB/s", tree.nodes().len());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "prints what it measured")]
fn delta(old: &Path, new: &Path) -> Result<(), Failure> {
    let mut held = BTreeSet::new();
    for bytes in files(old)? {
        held.extend(cut(&bytes, false).chunks.iter().map(|chunk| chunk.digest));
    }
    let (mut whole, mut lacking, mut count) = (0u64, 0u64, 0usize);
    for bytes in files(new)? {
        for chunk in cut(&bytes, false).chunks {
            whole += u64::from(chunk.size);
            if held.insert(chunk.digest) {
                lacking += u64::from(chunk.size);
                count += 1;
            }
        }
    }
    let share = 100.0 * lacking as f64 / whole as f64;
    println!("of {whole} bytes {lacking} are new: {share:.1} %, {count} chunks");
    Ok(())
}

/// The contents of every plain file below a folder.
fn files(folder: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(std::fs::read(entry.path())?);
        }
    }
    Ok(found)
}

fn signed(mut envelope: Envelope, key: &SoftwareKey) -> Result<Vec<u8>, Failure> {
    let signature = key.sign(&envelope.to_sign()?)?;
    envelope.add(&RoleKey::p256(key.public_key())?, &signature)?;
    Ok(envelope.to_bytes())
}

#[allow(clippy::print_stdout, reason = "prints what it measured")]
fn refresh() -> Result<(), Failure> {
    let now = Timestamp::from_secs(1_800_000_000);
    let end = now.plus(Duration::from_secs(86_400));
    let key = SoftwareKey::generate()?;
    let signers = || -> Result<Signers, Failure> {
        Ok(Signers {
            keys: vec![RoleKey::p256(key.public_key())?],
            threshold: 1,
        })
    };
    let acme: PublisherName = "acme".parse()?;
    let names = ["root", "targets", "timestamp", "snapshot"];
    let roles = names
        .into_iter()
        .map(|name| Ok((name, signers()?)))
        .collect::<Result<BTreeMap<_, _>, Failure>>()?;
    let root = signed(Envelope::root(1, end, &roles)?, &key)?;
    let manifests = (0..RELEASES)
        .map(|number| {
            (
                format!("acme/app{}/1.{number}", number % 100),
                (4_000, Digest::of(&number.to_be_bytes())),
            )
        })
        .collect();
    let releases = signed(Envelope::releases(1, end, &manifests)?, &key)?;
    let image = signed(
        Envelope::image(1, end, &BTreeMap::from([(acme.clone(), signers()?)]))?,
        &key,
    )?;
    let pins = BTreeMap::from([
        ("targets".to_owned(), Pin::of(1, &image)),
        ("acme".to_owned(), Pin::of(1, &releases)),
    ]);
    let snapshot = signed(Envelope::snapshot(1, end, &pins)?, &key)?;
    let fresh = signed(Envelope::timestamp(1, end, &Pin::of(1, &snapshot))?, &key)?;
    let text = format!("ecdsa-p256:{}", hex::encode(key.public_key().point()));
    let policy = PublisherKeys {
        keys: [text.parse()?].into(),
        threshold: 1,
    };
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut refresh = Refresh::new(
            &root,
            ImageFloors::default(),
            vec![(acme.clone(), policy.clone())],
            now,
        )?;
        while let Some(wanted) = refresh.wanted()? {
            let bytes = match wanted.name.as_str() {
                "timestamp.json" => Some(&fresh),
                "1.snapshot.json" => Some(&snapshot),
                "1.targets.json" => Some(&image),
                "1.acme.json" => Some(&releases),
                _ => None,
            };
            refresh.give(bytes.map(Vec::as_slice))?;
        }
        let image = refresh.finish()?;
        image.release(&"acme/app7".parse()?, &"1.7".parse()?, now)?;
        least = least.min(start.elapsed());
    }
    println!(
        "refresh of {RELEASES} releases ({} bytes): {least:?} at best of {ROUNDS}",
        releases.len()
    );
    Ok(())
}

#[allow(clippy::print_stdout, reason = "prints what it measured")]
fn fill() -> Result<(), Failure> {
    let mut state = 1u64;
    let word = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state
    };
    let content: Vec<u8> = std::iter::repeat_with(word)
        .take(FILE_BYTES / 8)
        .flat_map(u64::to_be_bytes)
        .collect();
    let rate = |start: Instant| FILE_BYTES as f64 / start.elapsed().as_secs_f64() / 1e6;
    let start = Instant::now();
    let digest = Digest::of(&content);
    println!("sha-256: {:.0} MB/s", rate(start));
    let start = Instant::now();
    let file = cut(&content, false);
    println!(
        "cut and hashed: {:.0} MB/s, {} chunks",
        rate(start),
        file.chunks.len()
    );
    let start = Instant::now();
    let (mut filling, mut rest) = (Filling::new(&file), content.as_slice());
    while let Some(chunk) = filling.wanted() {
        let (part, after) = rest.split_at(chunk.size as usize);
        filling.take(part)?;
        rest = after;
    }
    filling.finish()?;
    println!("filled and checked: {:.0} MB/s", rate(start));
    assert_eq!(digest, file.digest, "one content has one digest");
    Ok(())
}

/// Of the process: now, and at most so far.
fn memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines = status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", "))
}
