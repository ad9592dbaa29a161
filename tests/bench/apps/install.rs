//! What installing costs on a disk: `apps-install VOLUME STATE [MIB]`, where VOLUME is a file system of its own. A release of
//! random bytes is stored chunk by chunk, staged, activated and checked once more, beside SHA-256 of the same bytes from
//! that disk. Prints markdown. Everything is verified and made durable as on a node; nothing is fetched.

#![allow(clippy::print_stdout, reason = "prints what it measured")]

use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use edgeward_agent::apps::installer::Installer;
use edgeward_agent::apps::receipt::Words;
use edgeward_agent::apps::store::Limits;
use edgeward_agent::apps::volume::Volume;
use edgeward_apps::Digest;
use edgeward_apps::testing::{Content, Published};
use edgeward_identity::testing::TEST_NOW;

const FILES: usize = 4;
const WORDS: Words = Words {
    root: 1,
    timestamp: 1,
    snapshot: 1,
    targets: 1,
    publisher: 1,
    director: 1,
    policy: 1,
};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [volume, state, rest @ ..] = words.as_slice() else {
        anyhow::bail!("usage: apps-install VOLUME STATE [MIB]");
    };
    let mib: usize = rest.first().map_or(Ok(128), |text| text.parse())?;
    let bytes = mib << 20;
    let mut content = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut content)?;
    let parts: Vec<&[u8]> = content.chunks(bytes.div_ceil(FILES)).collect();
    let names: Vec<String> = (0..parts.len()).map(|n| format!("data/{n}")).collect();
    let program = std::fs::read("/bin/true")?;
    let mut tree = vec![("bin/true", Content::Program(&program))];
    let data = names.iter().zip(&parts);
    tree.extend(data.map(|(name, part)| (name.as_str(), Content::Data(part))));
    let mut published = Published::new();
    let manifest = published.release("acme/large", "1.0", &tree);
    let release = published.installable("acme/large")?;
    let signed = published
        .manifests
        .get(&release.digest())
        .context("a manifest")?;

    let limits = Limits {
        bytes: u64::MAX,
        keep_free: 0,
    };
    let (installer, _) =
        Installer::open(Volume::open(Path::new(volume))?, Path::new(state), limits)?;
    installer.want(&[&manifest])?;
    println!(
        "| {mib} MiB, {} chunks | MB/s |\n|---|---:|",
        manifest.chunks().count()
    );
    let (whole, mut begun) = (Instant::now(), Instant::now());
    let mut row = |what: &str| {
        let rate = bytes as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("| {what} | {rate:.0} |");
        begun = Instant::now();
    };
    for chunk in installer.missing(&manifest)? {
        let bytes = published.chunks.get(&chunk.digest).context("a chunk")?;
        installer.put(chunk.digest, bytes)?;
    }
    row("chunks checked and stored, durably");
    let staged = installer.stage(&release, signed)?;
    row("staged: chunks read, checked, written as files, files hashed, durably");
    installer.activate(&staged, WORDS, TEST_NOW)?;
    row("activated");
    let rate = bytes as f64 / whole.elapsed().as_secs_f64() / 1e6;
    println!("| all of it | {rate:.0} |");
    let installed = installer.installed();
    installer.check(installed.first().context("installed")?)?;
    row("checked once more, as before a start");
    let begun = Instant::now();
    let file = std::fs::read(Path::new(volume).join("acme/large/current/data/0"))?;
    std::hint::black_box(Digest::of(&file));
    let rate = file.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!("| one file read and hashed by SHA-256, nothing else | {rate:.0} |");
    Ok(())
}
