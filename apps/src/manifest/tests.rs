use proptest::prelude::*;

use super::*;
use crate::chunk::cut;

fn path(text: &str) -> AppPath {
    text.parse().unwrap()
}

/// A manifest as a publisher would write it, changed by hand.
fn written(change: impl FnOnce(&mut serde_json::Value)) -> Result<Manifest, Malformed> {
    let mut value: serde_json::Value =
        serde_json::from_slice(&sample().to_json().unwrap()).unwrap();
    change(&mut value);
    Manifest::parse(value.to_string().as_bytes())
}

pub(crate) fn sample() -> Manifest {
    let entries = BTreeMap::from([
        (path("bin/collector"), Entry::File(cut(&[7; 5_000], true))),
        (path("lib/libx.so.1"), Entry::File(cut(b"library", false))),
        (path("lib/libx.so"), Entry::Link("libx.so.1".to_owned())),
        (path("etc/empty"), Entry::File(cut(b"", false))),
    ]);
    let entry = EntryPoint {
        path: path("bin/collector"),
        args: vec!["--config".to_owned(), "etc/collector.toml".to_owned()],
        env: BTreeMap::from([("COLLECTOR_LOG".to_owned(), "info".to_owned())]),
    };
    let app = "acme/collector".parse().unwrap();
    Manifest::new(app, "2.3.1".parse().unwrap(), entry, entries).unwrap()
}

#[test]
fn what_is_written_reads_as_it_was() {
    let mut manifest = sample();
    manifest.identity = Some("line3/collector".to_owned());
    manifest.resources.memory_bytes = Some(64 << 20);
    manifest.writable = vec![path("data")];
    manifest.image = Some(Digest::of(b"image"));
    manifest.host_libraries = true;
    let bytes = manifest.to_json().unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(manifest.size(), 5_007);
    assert_eq!(manifest.chunks().count(), 2, "an empty file needs none");
}

#[test]
fn what_does_not_hold_together_is_refused() {
    use serde_json::json;
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 22] = [
        ("format", |m| m["format"] = json!("edgeward-app/2")),
        ("unknown field", |m| m["setuid"] = json!(true)),
        ("app", |m| m["app"] = json!("acme/../root")),
        ("version", |m| m["version"] = json!("2.3.1-rc1")),
        ("entry point is missing", |m| {
            m["entry"]["path"] = json!("bin/other")
        }),
        ("entry point is a link", |m| {
            m["entry"]["path"] = json!("lib/libx.so")
        }),
        ("entry point is not executable", |m| {
            m["entry"]["path"] = json!("lib/libx.so.1")
        }),
        ("loader obeys it", |m| {
            m["entry"]["env"] = json!({ "LD_PRELOAD": "lib/libx.so" })
        }),
        ("shell obeys it", |m| {
            m["entry"]["env"] = json!({ "BASH_ENV": "x" })
        }),
        ("where programs are found", |m| {
            m["entry"]["env"] = json!({ "PATH": "/tmp" })
        }),
        ("zero byte in an argument", |m| {
            m["entry"]["args"] = json!(["a\u{0}b"])
        }),
        ("path leaves", |m| {
            m["entries"][0]["path"] = json!("../collector")
        }),
        ("twice", |m| {
            m["entries"][1]["path"] = m["entries"][0]["path"].clone()
        }),
        ("file and folder", |m| {
            m["entries"][1]["path"] = json!("bin/collector/x")
        }),
        ("link leaves", |m| {
            m["entries"][2]["link"] = json!("../../etc/passwd")
        }),
        ("link to nothing", |m| {
            m["entries"][2]["link"] = json!("libz.so")
        }),
        ("link with content", |m| m["entries"][2]["size"] = json!(3)),
        ("size", |m| m["entries"][0]["size"] = json!(4_999)),
        ("no chunks", |m| m["entries"][0]["chunks"] = json!("")),
        ("half a chunk", |m| {
            m["entries"][0]["chunks"] = json!("AAAA")
        }),
        ("identity", |m| m["identity"] = json!("../operator/root")),
        ("no memory", |m| {
            m["resources"] = json!({ "memory_bytes": 0 })
        }),
    ];
    for (name, change) in cases {
        assert!(written(change).is_err(), "{name}");
    }
    written(|_| {}).unwrap();
}

#[test]
fn a_chunk_longer_than_the_limit_is_refused() {
    let chunk = Chunk {
        digest: Digest::of(b"x"),
        size: MAX_CHUNK_BYTES + 1,
    };
    let file = File {
        digest: Digest::of(b"y"),
        size: u64::from(chunk.size),
        executable: true,
        chunks: vec![chunk],
    };
    let entries = BTreeMap::from([(path("a"), Entry::File(file))]);
    assert!(matches!(check_entries(&entries), Err(Malformed::Chunks(_))));
}

#[test]
fn a_key_that_stands_there_twice_is_refused() {
    let bytes = String::from_utf8(sample().to_json().unwrap()).unwrap();
    let twice = bytes.replacen(
        "\"version\":\"2.3.1\"",
        "\"version\":\"2.3.1\",\"version\":\"9\"",
        1,
    );
    assert_ne!(twice, bytes);
    assert!(matches!(
        Manifest::parse(twice.as_bytes()),
        Err(Malformed::Ambiguous(_))
    ));
}

proptest! {
    #[test]
    fn altered_bytes_read_as_something_sound_or_not_at_all(at in 0usize..1_000, byte in any::<u8>()) {
        let mut bytes = sample().to_json().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
        }
    }
}
