use super::*;
use std::path::PathBuf;

use edgeward_evidence::ima::MAX_IMA_PART_BYTES;
use edgeward_evidence::tpm::PcrBank;

fn entry(pcr: u32, path: &str, violation: bool) -> Vec<u8> {
    let mut data = Vec::new();
    for field in [
        b"sha256:\0\x11\x22".as_slice(),
        &[path.as_bytes(), &[0]].concat(),
    ] {
        data.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        data.extend(field);
    }
    raw(pcr, [u8::from(!violation); 20], b"ima-ng", &data)
}

fn raw(pcr: u32, digest: [u8; 20], name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = pcr.to_le_bytes().to_vec();
    bytes.extend(digest);
    for part in [name, data] {
        bytes.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

/// PCR 10 after these entries, by a replay of its own.
fn quoted(entries: &[Vec<u8>]) -> QuotedIma {
    let mut value = vec![0; 32];
    for entry in entries {
        if entry[..4] != 10u32.to_le_bytes() {
            continue;
        }
        let data = 4 + 20 + 4 + 6 + 4;
        let template = if entry[4..24] == [0; 20] {
            vec![0xff; 32]
        } else {
            digest(&SHA256, &entry[data..]).as_ref().to_vec()
        };
        value = digest(&SHA256, &[value, template].concat())
            .as_ref()
            .to_vec();
    }
    QuotedIma {
        bank: PcrBank::Sha256,
        value,
    }
}

struct Place {
    folder: tempfile::TempDir,
    reader: LogReader,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = LogPaths {
            boot: folder.path().join("boot"),
            ima: folder.path().join("ima"),
        };
        Self {
            reader: LogReader::new(paths),
            folder,
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn ima(&self, known: u64, quoted: Option<&QuotedIma>) -> v1::ImaPart {
        let wanted = v1::LogsWanted {
            ima: true,
            ima_known: known,
            ..Default::default()
        };
        let logs = self.reader.read(&wanted, quoted);
        assert!(logs.boot.is_none(), "it was not asked for");
        logs.ima.unwrap()
    }

    fn boot(&self, known: &[u8]) -> Option<v1::BootLog> {
        let wanted = v1::LogsWanted {
            boot: true,
            boot_known: known.to_vec(),
            ..Default::default()
        };
        let logs = self.reader.read(&wanted, None);
        assert!(logs.ima.is_none(), "it was not asked for");
        logs.boot
    }
}

fn paths(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|at| entry(IMA_PCR, &format!("/usr/bin/{at}"), false))
        .collect()
}

#[test]
fn a_log_that_is_not_there_is_a_code_and_no_error() {
    let place = Place::new();
    for (write, code) in [
        (None, "log_absent"),
        (Some(Vec::new()), "log_empty"),
        (Some(vec![7; MAX_BOOT_LOG_BYTES + 1]), "log_too_large"),
    ] {
        if let Some(bytes) = write {
            place.write("boot", &bytes);
        }
        let log = place.boot(&[]).unwrap();
        assert_eq!((log.missing.as_str(), log.log.len()), (code, 0));
        assert!(log.path.ends_with("/boot"));
    }
    std::fs::remove_file(place.folder.path().join("boot")).unwrap();
    std::fs::create_dir(place.folder.path().join("boot")).unwrap();
    assert_eq!(place.boot(&[]).unwrap().missing, "log_unreadable");

    assert_eq!(place.ima(0, None).missing, "log_absent");
    for bad in [
        raw(IMA_PCR, [1; 20], b"ima", &[0; 20]),
        raw(IMA_PCR, [1; 20], &[b'a'; 256], &[]),
        raw(IMA_PCR, [1; 20], b"ima-ng", &vec![0; (64 << 10) + 1]),
    ] {
        place.write("ima", &[entry(IMA_PCR, "/a", false), bad].concat());
        let part = place.ima(0, None);
        assert_eq!(
            (part.missing.as_str(), part.entries.len()),
            ("log_malformed", 0)
        );
    }
}

#[test]
fn a_boot_log_that_is_known_is_not_sent_again_until_it_changes() {
    let place = Place::new();
    place.write("boot", b"one");
    let known = digest(&SHA256, b"one");
    assert!(place.boot(known.as_ref()).is_none());
    assert_eq!(place.boot(&[]).unwrap().log, b"one");
    place.write("boot", b"two");
    assert_eq!(place.boot(known.as_ref()).unwrap().log, b"two");
}

#[test]
fn the_ima_list_is_cut_where_the_quote_stands_and_only_what_is_new_is_sent() {
    let place = Place::new();
    let mut list = paths(3);
    list.push(entry(11, "/another/pcr", false));
    list.push(entry(IMA_PCR, "/written/while/open", true));
    list.extend(paths(2));
    let at = |count: usize| quoted(&list[..count]);
    place.write("ima", &list.concat());

    let part = place.ima(0, Some(&at(3)));
    assert_eq!((part.first, part.more), (0, false));
    assert_eq!(part.entries, list[..3].concat());
    assert!(place.ima(3, Some(&at(3))).entries.is_empty());
    let part = place.ima(3, Some(&at(5)));
    assert_eq!((part.first, part.entries), (3, list[3..5].concat()));
    // The cloud took nothing of the last answers: it gets all of it again.
    assert_eq!(place.ima(0, Some(&at(7))).entries, list.concat());
}

#[test]
fn a_list_that_does_not_lead_to_the_quote_is_sent_as_it_is() {
    let place = Place::new();
    let list = paths(4);
    place.write("ima", &list.concat());
    assert_eq!(
        place.ima(0, Some(&quoted(&list))).entries.len(),
        list.concat().len()
    );

    let elsewhere = QuotedIma {
        bank: PcrBank::Sha256,
        value: vec![9; 32],
    };
    let part = place.ima(2, Some(&elsewhere));
    assert_eq!((part.first, part.entries), (2, list[2..].concat()));
    let part = place.ima(9, Some(&elsewhere));
    assert_eq!(
        (part.first, part.entries.len()),
        (4, 0),
        "fewer than are known"
    );
}

#[test]
fn a_list_that_began_anew_is_replayed_from_its_start() {
    let place = Place::new();
    let old = paths(5);
    place.write("ima", &old.concat());
    assert_eq!(place.ima(0, Some(&quoted(&old))).entries, old.concat());

    let new: Vec<_> = ["/x", "/y", "/z", "/long/enough/to/move/all", "/w", "/v"]
        .iter()
        .map(|path| entry(IMA_PCR, path, false))
        .collect();
    place.write("ima", &new.concat());
    let part = place.ima(5, Some(&quoted(&new)));
    assert_eq!((part.first, part.entries), (5, new[5..].concat()));
    place.write("ima", &new[..2].concat());
    assert_eq!(
        place.ima(0, Some(&quoted(&new[..2]))).entries,
        new[..2].concat()
    );
}

#[test]
fn an_answer_holds_whole_entries_up_to_its_limit_and_says_that_there_is_more() {
    let place = Place::new();
    let list: Vec<_> = (0..60)
        .map(|at| entry(IMA_PCR, &"x".repeat(50_000 + at), false))
        .collect();
    // The kernel has not finished its last entry.
    let mut bytes = list.concat();
    bytes.extend(&entry(IMA_PCR, "/late", false)[..40]);
    place.write("ima", &bytes);
    let quoted = quoted(&list);

    let first = place.ima(0, Some(&quoted));
    assert!(first.more && first.entries.len() <= MAX_IMA_PART_BYTES);
    let sent = (0..list.len())
        .find(|count| list[..*count].concat().len() == first.entries.len())
        .unwrap();
    let rest = place.ima(u64::try_from(sent).unwrap(), Some(&quoted));
    assert!(!rest.more);
    assert_eq!([first.entries, rest.entries].concat(), list.concat());
}

#[test]
fn no_cut_or_altered_byte_of_a_list_makes_more_of_it_than_there_is() {
    let place = Place::new();
    let list = paths(3).concat();
    for at in 0..list.len() {
        let mut altered = list.clone();
        altered[at] ^= 0x80;
        for bytes in [&list[..at], &altered] {
            place.write("ima", bytes);
            let part = place.ima(0, None);
            assert!(part.entries.len() <= bytes.len());
            assert!(bytes.starts_with(&part.entries));
        }
    }
}
