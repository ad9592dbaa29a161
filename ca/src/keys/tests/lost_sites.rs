//! What the documents tell an operator to do is what works.

use std::process::Command;

use super::super::sites::{Site, SiteKeys, Unopened};
use super::*;

const PAGE: &str = include_str!("../../../../docs/audit-log.md");

#[test]
fn a_key_of_a_site_that_is_lost_stays_missing_until_its_keeper_says_so_as_the_page_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sites");
    let keys = SiteKeys::open(&path).unwrap();
    let (lost, kept) = (Site::parse("lost").unwrap(), Site::parse("kept").unwrap());
    let (lost, kept) = (keys.current(&lost).unwrap(), keys.current(&kept).unwrap());
    let sealed = [lost, kept].map(|id| keys.seal(id, b"place", b"event").unwrap());
    drop(keys);
    fs::remove_file(path.join(format!("{lost}.key"))).unwrap();
    let keys = SiteKeys::open(&path).unwrap();
    assert_eq!(
        keys.open_sealed(lost, b"place", &sealed[0]),
        Err(Unopened::NoKey)
    );
    let (_, script) = PAGE.split_once("```sh\ncd ").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let script = format!("cd {script}")
        .replace("/var/lib/edgeward/keys/sites", path.to_str().unwrap())
        .replace("0123456789abcdef", &lost.to_string());
    let done = Command::new("sh").args(["-e", "-c", &script]).status();
    assert!(done.unwrap().success());
    // Found by the process that runs, and by the next.
    keys.look_again().unwrap();
    for keys in [keys, SiteKeys::open(&path).unwrap()] {
        let opened = keys.open_sealed(lost, b"place", &sealed[0]);
        assert_eq!(opened, Err(Unopened::Erased));
        assert!(keys.open_sealed(kept, b"place", &sealed[1]).is_ok());
    }
}
