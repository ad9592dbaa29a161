//! What need not travel: chunks of other releases, and of a download that was cut.

use super::*;

#[test]
fn only_what_is_new_in_a_release_is_fetched() {
    as_the_agent(|| {
        let ground = Ground::new();
        let (installer, mut published) = (ground.installer(), Published::new());
        let old = noise(8_000_000, 11);
        published.release(APP, "1.0", &[("bin/collector", Content::Program(&old))]);
        let first = published.installable(APP).unwrap();
        let fetched = fetch(&installer, &published, first.manifest());
        assert_eq!(fetched, old.len() as u64);
        install(&installer, &mut published, APP);

        // Ten bytes become thirty-three, so that all behind them lies elsewhere.
        let mut new = old.clone();
        new.splice(4_000_000..4_000_010, noise(33, 12));
        published.release(APP, "1.1", &[("sbin/renamed", Content::Program(&new))]);
        let second = published.installable(APP).unwrap();
        let fetched = fetch(&installer, &published, second.manifest());
        println!("of {} bytes {fetched} travelled", new.len());
        assert!(fetched > 0);
        assert!(
            fetched < new.len() as u64 / 10,
            "{fetched} of {}",
            new.len()
        );
        let bytes = published.manifests[&second.digest()].clone();
        let staged = installer.stage(&second, &bytes).unwrap();
        installer.activate(&staged, WORDS, TEST_NOW).unwrap();
        let used = &installer.installed()[0];
        assert_eq!(std::fs::read(used.tree.join("sbin/renamed")).unwrap(), new);
        installer.check(used).unwrap();

        // Another app with the same library has it from the first.
        published.release("acme/other", "1", &[("x", Content::Program(&old))]);
        let other = published.installable("acme/other").unwrap();
        assert_eq!(fetch(&installer, &published, other.manifest()), 0);
        install(&installer, &mut published, "acme/other");
    });
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_was() {
    as_the_agent(|| {
        let (ground, mut published) = (Ground::new(), Published::new());
        let content = noise(6_000_000, 21);
        published.release(APP, "1.0", &[("bin/collector", Content::Program(&content))]);
        let admitted = published.installable(APP).unwrap();
        let manifest = admitted.manifest();
        let total = manifest.chunks().count();
        let (mut fetched, mut cuts) = (0, 0usize);
        loop {
            // A new agent each time, after at most three chunks.
            let installer = ground.installer();
            installer.want(&[manifest]).unwrap();
            let missing = installer.missing(manifest).unwrap();
            assert_eq!(missing.len(), total - fetched);
            if missing.is_empty() {
                break;
            }
            for chunk in missing.iter().take(1 + cuts % 3) {
                installer
                    .put(chunk.digest, &published.chunks[&chunk.digest])
                    .unwrap();
                fetched += 1;
            }
            cuts += 1;
        }
        assert!(cuts > 10, "{cuts}");
        assert_eq!(fetched, total, "each chunk travelled once");
        let installer = ground.installer();
        installer.want(&[manifest]).unwrap();
        install(&installer, &mut published, APP);
        assert_sound(&ground, &installer);
    });
}
