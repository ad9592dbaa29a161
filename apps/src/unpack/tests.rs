use std::io::Write as _;

use tar::{Builder, EntryType, Header};

use super::*;

/// What is kept, as a shell would keep it.
#[derive(Default)]
struct Kept {
    files: BTreeMap<String, Vec<u8>>,
    at: String,
}

impl Sink for Kept {
    fn begin(&mut self, path: &AppPath) -> io::Result<()> {
        self.at = path.to_string();
        self.files.insert(self.at.clone(), Vec::new());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.files
            .get_mut(&self.at)
            .unwrap()
            .extend_from_slice(bytes);
        Ok(())
    }

    fn same(&mut self, path: &AppPath, first: &AppPath) -> io::Result<()> {
        let content = self.files[first.as_str()].clone();
        self.files.insert(path.to_string(), content);
        Ok(())
    }

    fn remove(&mut self, path: &AppPath) -> io::Result<()> {
        let begin = format!("{path}/");
        self.files
            .retain(|at, _| at != path.as_str() && !at.starts_with(&begin));
        Ok(())
    }
}

/// One member: name, kind, link, content.
type Member<'m> = (&'m str, EntryType, &'m str, &'m [u8]);

fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    let raw = header.as_old_mut();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link, content) in members {
        builder
            .append(&header(*kind, name, link, content.len() as u64), *content)
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn file<'m>(name: &'m str, content: &'m [u8]) -> Member<'m> {
    (name, EntryType::Regular, "", content)
}

fn unpacked(layers: &[Vec<u8>]) -> Result<(Tree, Kept), Refused> {
    let (mut tree, mut kept) = (Tree::default(), Kept::default());
    for layer in layers {
        tree.add(layer.as_slice(), &mut kept)?;
    }
    Ok((tree, kept))
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.nodes().keys().map(AppPath::as_str).collect()
}

#[test]
fn members_that_leave_the_folder_or_are_no_files_are_refused() {
    use EntryType as T;
    let cases: [(&str, Vec<Member<'_>>); 17] = [
        ("up", vec![file("../x", b"")]),
        ("up in the middle", vec![file("a/../../x", b"")]),
        ("absolute", vec![file("/etc/passwd", b"")]),
        ("absolute folder", vec![("/", T::Directory, "", b"")]),
        (
            "through a link",
            vec![("a", T::Symlink, "b", b""), file("a/x", b"")],
        ),
        ("below a file", vec![file("a", b""), file("a/x", b"")]),
        ("link out", vec![("a", T::Symlink, "../x", b"")]),
        ("absolute link", vec![("a", T::Symlink, "/etc/shadow", b"")]),
        ("hard link out", vec![("a", T::Link, "../x", b"")]),
        ("hard link to nothing", vec![("a", T::Link, "b", b"")]),
        (
            "hard link to a link",
            vec![("b", T::Symlink, "c", b""), ("a", T::Link, "b", b"")],
        ),
        ("device", vec![("a", T::Char, "", b"")]),
        ("pipe", vec![("a", T::Fifo, "", b"")]),
        ("sparse", vec![("a", T::GNUSparse, "", b"")]),
        ("twice", vec![file("a", b"1"), file("a", b"2")]),
        (
            "twice under another spelling",
            vec![file("a", b"1"), file("./a", b"2")],
        ),
        (
            "folder that was filled becomes a file",
            vec![file("a/x", b"1"), file("a", b"2")],
        ),
    ];
    for (name, members) in cases {
        let refused = unpacked(&[tar(&members)]);
        assert!(
            refused.is_err(),
            "{name}: {:?}",
            refused.map(|(tree, _)| tree)
        );
    }
}

#[test]
fn what_is_unpacked_is_what_was_packed() {
    use EntryType as T;
    let long = format!("{}/file", "d".repeat(150));
    let mut builder = Builder::new(Vec::new());
    builder
        .append(&header(T::Directory, "./", "", 0), io::empty())
        .unwrap();
    builder
        .append(&header(T::Regular, "./bin/app", "", 3), &b"elf"[..])
        .unwrap();
    builder
        .append(&header(T::Link, "bin/again", "./bin/app", 0), io::empty())
        .unwrap();
    builder
        .append(
            &header(T::Symlink, "bin/link", "../bin/app", 0),
            io::empty(),
        )
        .unwrap();
    let mut plain = Header::new_gnu();
    plain.set_size(700);
    plain.set_mode(0o644);
    plain.set_entry_type(T::Regular);
    builder
        .append_data(&mut plain, &long, &[9; 700][..])
        .unwrap();
    builder
        .append_pax_extensions([("path", "pax/name".as_bytes()), ("size", b"2")])
        .unwrap();
    builder
        .append(&header(T::Regular, "x", "", 2), &b"ok"[..])
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    for layer in [bytes.clone(), gzip(&bytes)] {
        let (tree, kept) = unpacked(&[layer]).unwrap();
        assert_eq!(kept.files["bin/again"], b"elf");
        assert_eq!(kept.files[&long], [9; 700]);
        assert_eq!(kept.files["pax/name"], b"ok");
        assert!(!kept.files.contains_key("x"), "pax says another name");
        let app = Node::File {
            digest: Digest::of(b"elf"),
            size: 3,
            executable: true,
        };
        assert_eq!(tree.nodes()["bin/app"], app);
        assert_eq!(tree.nodes()["bin/again"], app);
        assert_eq!(
            tree.nodes()["bin/link"],
            Node::Link("../bin/app".to_owned())
        );
        assert!(matches!(
            tree.nodes()[long.as_str()],
            Node::File {
                executable: false,
                ..
            }
        ));
    }
    for cut in [1, 511, 512, 700, 1_500, bytes.len() - 1_100] {
        let torn = unpacked(&[bytes[..cut].to_vec()]);
        assert!(torn.is_err() || cut == 512, "cut at {cut}");
    }
    let mut flipped = bytes.clone();
    flipped[512] ^= 1;
    assert!(
        matches!(unpacked(&[flipped]), Err(Refused::Torn)),
        "checksum of a header"
    );
}

#[test]
fn a_layer_takes_away_what_is_below_it_and_nothing_of_its_own() {
    use EntryType as T;
    let lower = tar(&[
        file("a/one", b"1"),
        file("a/two", b"2"),
        file("b/one", b"1"),
        file("b/deep/x", b"x"),
        file("c", b"c"),
    ]);
    let upper = tar(&[
        file("a/.wh.one", b""),
        file("b/new", b"n"),
        file("b/.wh..wh..opq", b""),
        file("c/is/a/folder", b"f"),
    ]);
    let refused = unpacked(&[lower.clone(), upper]);
    assert!(
        matches!(refused, Err(Refused::NotAFolder(_))),
        "a file becomes a folder only if the layer says so"
    );

    let upper = tar(&[
        file("a/.wh.one", b""),
        file("b/new", b"n"),
        file("b/.wh..wh..opq", b""),
        ("c", T::Directory, "", b""),
        file("c/x", b"f"),
        file(".wh.never", b""),
    ]);
    let (tree, kept) = unpacked(&[lower, upper]).unwrap();
    assert_eq!(names(&tree), ["a", "a/two", "b", "b/new", "c", "c/x"]);
    assert_eq!(
        kept.files.keys().collect::<Vec<_>>(),
        ["a/two", "b/new", "c/x"]
    );
}

#[test]
fn what_unpacks_to_too_much_is_refused_before_it_does() {
    // 64 MiB of zeros: some 64 KiB as gzip.
    let huge = gzip(&tar(&[file("zeros", &vec![0; 64 << 20])]));
    assert!(huge.len() < 1 << 20);
    let plain = flate2::read::MultiGzDecoder::new(huge.as_slice());
    let refused = Tree::default().add_tar(Bounded::new(plain, 1 << 20), &mut Discard);
    assert!(
        matches!(refused, Err(Refused::TooLarge(limit)) if limit == 1 << 20),
        "{refused:?}"
    );

    // A header that states more than any archive holds.
    let mut lying = header(EntryType::Regular, "a", "", 0);
    lying.set_size(u64::MAX);
    lying.set_cksum();
    assert!(matches!(
        unpacked(&[lying.as_bytes().to_vec()]),
        Err(Refused::Torn)
    ));

    // A long name that is longer than any name.
    let mut long = header(EntryType::GNULongName, "././@LongLink", "", 0);
    long.set_size(1 << 40);
    long.set_cksum();
    assert!(matches!(
        unpacked(&[long.as_bytes().to_vec()]),
        Err(Refused::Extended)
    ));

    let many: Vec<String> = (0..=MAX_ENTRIES)
        .map(|number| format!("f{number}"))
        .collect();
    let many: Vec<Member<'_>> = many.iter().map(|name| file(name, b"")).collect();
    assert!(matches!(unpacked(&[tar(&many)]), Err(Refused::Entries)));

    let layers = vec![tar(&[]); MAX_LAYERS + 1];
    assert!(matches!(unpacked(&layers), Err(Refused::Layers)));
    assert!(matches!(
        unpacked(&[b"\x28\xb5\x2f\xfd".to_vec()]),
        Err(Refused::Compression)
    ));
}

#[test]
fn two_records_that_name_one_member_are_refused() {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", &b"a"[..]), ("path", b"b")])
        .unwrap();
    builder
        .append(&header(EntryType::Regular, "x", "", 0), io::empty())
        .unwrap();
    assert!(matches!(
        unpacked(&[builder.into_inner().unwrap()]),
        Err(Refused::Extended)
    ));
}

proptest::proptest! {
    #[test]
    fn no_altered_archive_panics_or_leaves_the_folder(at in 0usize..4_000, byte in proptest::prelude::any::<u8>()) {
        let mut bytes = tar(&[file("a/one", b"content"), ("l", EntryType::Symlink, "a/one", b"")]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok((tree, kept)) = unpacked(&[bytes]) {
            proptest::prop_assert!(kept.files.len() <= tree.nodes().len());
        }
    }
}
