use super::*;
use crate::vectors::{self, mutations};

#[test]
fn paths_of_another_spelling_are_refused() {
    let refused = [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/x001",
        "tile/0/x001/x002",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/../000",
        "tile/entry/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/+01",
    ];
    for path in refused {
        assert!(path.parse::<Tile>().is_err(), "{path}");
    }
    assert!("x".repeat(MAX_TILE_PATH_BYTES + 1).parse::<Tile>().is_err());
}

#[test]
fn a_path_names_its_tile() {
    let cases = [
        ("tile/0/000", Row::Level(0), 0, 256),
        ("tile/0/x001/x234/067", Row::Level(0), 1_234_067, 256),
        ("tile/3/x001/000.p/7", Row::Level(3), 1000, 7),
        ("tile/entries/999.p/255", Row::Entries, 999, 255),
        (
            "tile/63/x018/x446/x744/x073/x709/x551/615",
            Row::Level(63),
            u64::MAX,
            256,
        ),
    ];
    for (path, row, index, width) in cases {
        let tile = Tile::new(row, index, width).unwrap();
        assert_eq!(tile.to_string(), path);
        assert_eq!(path.parse(), Ok(tile));
    }
}

#[test]
fn a_tree_has_the_tiles_that_its_size_reaches() {
    let width = |row, index, size| Tile::in_tree(row, index, size).map(|tile| tile.width());
    assert_eq!(width(Row::Level(0), 0, 0), None);
    assert_eq!(width(Row::Level(0), 0, 255), Some(255));
    assert_eq!(width(Row::Level(0), 0, 256), Some(256));
    assert_eq!(width(Row::Level(0), 1, 256), None);
    assert_eq!(width(Row::Entries, 1, 300), Some(44));
    assert_eq!(width(Row::Level(1), 0, 255), None);
    assert_eq!(width(Row::Level(1), 0, 70_000), Some(256));
    assert_eq!(width(Row::Level(1), 1, 70_000), Some(17));
    assert_eq!(width(Row::Level(2), 0, 70_000), Some(1));
    assert_eq!(width(Row::Level(8), 0, u64::MAX), None);
    assert_eq!(width(Row::Level(0), u64::MAX, u64::MAX), None);
}

#[test]
fn tiles_of_another_length_are_refused() {
    let tile = Tile::new(Row::Level(0), 0, 2).unwrap();
    for length in [0, 32, 63, 65, 96] {
        assert_eq!(
            tile.parse_hashes(&vec![0; length]),
            Err(TileError::Length(length))
        );
    }
    assert_eq!(tile.parse_hashes(&[0; 64]), Ok(vec![Digest::ZERO; 2]));
}

#[test]
fn a_bundle_gives_its_entries_back_and_nothing_more() {
    let bundle_tile = Tile::new(Row::Entries, 0, 3).unwrap();
    let mut bundle = Vec::new();
    for entry in [b"one".as_slice(), b"", b"three"] {
        put_entry(&mut bundle, entry).unwrap();
    }
    assert_eq!(
        bundle_tile.parse_entries(&bundle),
        Ok(vec![b"one".as_slice(), b"", b"three"])
    );
    mutations(&bundle, |bytes| {
        let _ = bundle_tile.parse_entries(bytes);
    });
    let longer = [bundle.as_slice(), &[0]].concat();
    assert_eq!(
        bundle_tile.parse_entries(&longer),
        Err(TileError::Length(longer.len()))
    );
    assert_eq!(
        put_entry(&mut bundle, &vec![0; MAX_ENTRY_BYTES + 1]),
        Err(TileError::EntryTooLong)
    );
}

#[test]
fn a_flipped_byte_in_the_tiles_of_others_shows() {
    let Some(folder) = vectors::folder("tlog-tiles") else {
        return;
    };
    let read = |row| {
        let tile = Tile::in_tree(row, 0, 14).unwrap();
        (
            tile,
            std::fs::read(folder.join("log").join(tile.to_string())).unwrap(),
        )
    };
    let (hash_tile, hashes) = read(Row::Level(0));
    let (bundle_tile, bundle) = read(Row::Entries);
    let root = |hashes: &[Digest]| crate::merkle::root(hashes, 14).unwrap();
    let good = hash_tile.parse_hashes(&hashes).unwrap();
    mutations(&hashes, |bytes| {
        assert!(
            hash_tile.parse_hashes(bytes).is_err_and(|_| true)
                || root(&hash_tile.parse_hashes(bytes).unwrap()) != root(&good)
        );
    });
    mutations(&bundle, |bytes| {
        if let Ok(entries) = bundle_tile.parse_entries(bytes) {
            let leaves: Vec<Digest> = entries
                .iter()
                .map(|entry| crate::merkle::leaf_hash(entry))
                .collect();
            assert_ne!(leaves, good);
        }
    });
}
