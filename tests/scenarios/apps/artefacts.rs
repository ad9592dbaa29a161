//! Real programs as their publisher leaves them in a folder, and what a node makes of each file with one byte changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use edgeward_apps::chunk::Filling;
use edgeward_apps::image::{ImageFloors, PublisherKeys, Refresh};
use edgeward_apps::manifest::Entry;
use edgeward_apps::{Digest, Manifest, PublisherName};
use edgeward_identity::{Clock as _, SoftwareKey, SystemClock, Timestamp};
use edgeward_tests::publisher::{Holders, Online, Program, Repository};

use edgeward_tests::plant::APP;

/// A byte is changed at each of these many places of a file.
const PLACES: usize = 48;

fn repository(folder: &Path) -> anyhow::Result<Repository> {
    let online = Online::Own(Box::new(SoftwareKey::generate()?));
    let mut repository = Repository::new(folder, Holders::new(2, 3)?, online)?;
    repository.add_publisher("acme", Holders::new(2, 3)?)?;
    let jq = Program::dynamic("/usr/bin/jq", &["-n", "1"])?.with_link("bin/jq2", "jq");
    repository.release(APP, "1.6", &jq)?;
    repository.sign_fresh()?;
    // What was in force before the publisher and its release were there.
    for role in ["targets", "acme"] {
        std::fs::remove_file(repository.metadata(&format!("1.{role}.json")))?;
    }
    Ok(repository)
}

fn policy(repository: &Repository) -> anyhow::Result<Vec<(PublisherName, PublisherKeys)>> {
    let holders = &repository.publisher("acme")?.holders;
    let texts = holders.texts();
    let keys = PublisherKeys {
        keys: texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
        threshold: u16::try_from(holders.threshold)?,
    };
    Ok(vec![("acme".parse()?, keys)])
}

/// Everything that the release is, verified from the first root on; its bytes.
fn taken(repository: &Repository, now: Timestamp) -> anyhow::Result<u64> {
    let root = std::fs::read(repository.metadata("1.root.json"))?;
    let mut refresh = Refresh::new(&root, ImageFloors::default(), policy(repository)?, now)?;
    while let Some(wanted) = refresh.wanted()? {
        let bytes = std::fs::read(repository.metadata(&wanted.name)).ok();
        refresh.give(bytes.as_deref())?;
    }
    let image = refresh.finish()?;
    let release = image.release(&APP.parse()?, &"1.6".parse()?, now)?;
    let folder = repository.folder().join("image");
    let manifest = folder.join("targets").join(APP);
    let manifest = std::fs::read(manifest.join(format!("{}.1.6", release.digest)))?;
    anyhow::ensure!(Digest::of(&manifest) == release.digest, "another manifest");
    let manifest = Manifest::parse(&manifest)?;
    for entry in manifest.entries().values() {
        let Entry::File(file) = entry else { continue };
        let mut filling = Filling::new(file);
        while let Some(chunk) = filling.wanted() {
            let name = chunk.digest.to_string();
            let (begin, _) = name.split_at(2);
            filling.take(&std::fs::read(
                folder.join("chunks").join(begin).join(&name),
            )?)?;
        }
        filling.finish()?;
    }
    Ok(manifest.size())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

#[test]
fn no_changed_byte_of_any_artefact_of_a_real_program_is_taken() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = repository(folder.path())?;
    let now = SystemClock.now();
    assert!(taken(&repository, now)? > 1_000_000, "jq and its libraries");
    let all = files(folder.path())?;
    assert!(all.len() > 15, "{all:?}");
    for file in all {
        // Pinned by its digest, not by itself.
        if file.ends_with("1.root.json") {
            continue;
        }
        let good = std::fs::read(&file)?;
        let step = (good.len() / PLACES).max(1);
        let is_content = file.to_string_lossy().contains("/chunks/");
        for at in (0..good.len()).step_by(if is_content { step * 16 } else { step }) {
            let mut bad = good.clone();
            let byte = bad.get_mut(at).context("inside")?;
            *byte ^= 1;
            std::fs::write(&file, &bad)?;
            let took = taken(&repository, now);
            assert!(
                took.is_err(),
                "{} with another byte at {at}",
                file.display()
            );
        }
        std::fs::write(&file, &good)?;
    }
    taken(&repository, now)?;
    Ok(())
}

#[test]
fn what_is_past_its_end_or_went_back_is_not_taken() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = repository(folder.path())?;
    let now = SystemClock.now();
    taken(&repository, now)?;
    let later = now.plus(Duration::from_secs(31 * 86_400));
    assert!(taken(&repository, later).is_err(), "everything has ended");
    Ok(())
}
