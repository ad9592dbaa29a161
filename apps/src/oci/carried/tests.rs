use std::collections::BTreeMap;

use edgeward_identity::{Signer as _, SoftwareKey};
use serde_json::json;

use super::*;
use crate::chunk;
use crate::manifest::EntryPoint;
use crate::testing::policy_keys;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An app that is an image, and all of its files.
struct App {
    files: BTreeMap<String, (Vec<u8>, bool)>,
    links: BTreeMap<String, String>,
    image: Option<Digest>,
    entry: &'static str,
}

fn layer(members: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    builder.append_link(&mut link, "bin/same", "tool").unwrap();
    builder.into_inner().unwrap()
}

impl App {
    fn new(signers: &[&SoftwareKey]) -> Self {
        let layers = [
            layer(&[("bin/tool", b"old", 0o755), ("etc/c", b"conf", 0o644)]),
            layer(&[("bin/tool", b"program", 0o755)]),
        ];
        let named = layers.each_ref().map(|layer| {
            json!({ "mediaType": LAYER, "digest": format!("sha256:{}", Digest::of(layer)), "size": layer.len() })
        });
        let manifest = json!({ "schemaVersion": 2, "layers": named })
            .to_string()
            .into_bytes();
        let image = Digest::of(&manifest);
        let mut files = BTreeMap::from([
            ("bin/tool".to_owned(), (b"program".to_vec(), true)),
            ("etc/c".to_owned(), (b"conf".to_vec(), false)),
        ]);
        for blob in layers.into_iter().chain([manifest]) {
            files.insert(blob_path(Digest::of(&blob)), (blob, false));
        }
        let payload = json!({ "critical": { "identity": {}, "image": { "docker-manifest-digest": format!("sha256:{image}") }, "type": "cosign container image signature" } });
        let payload = payload.to_string().into_bytes();
        for (number, key) in signers.iter().enumerate() {
            let [at, signed] = payload_paths(number);
            files.insert(at, (payload.clone(), false));
            files.insert(signed, (key.sign(&payload).unwrap(), false));
        }
        let links = BTreeMap::from([("bin/same".to_owned(), "tool".to_owned())]);
        let (image, entry) = (Some(image), "bin/tool");
        Self {
            files,
            links,
            image,
            entry,
        }
    }

    fn check(&self, keys: &[&SoftwareKey], threshold: u16) -> Result<(), NotCarried> {
        let files = self.files.iter().map(|(path, (content, executable))| {
            let file = chunk::cut(content, *executable);
            (path.parse().unwrap(), Entry::File(file))
        });
        let links = self
            .links
            .iter()
            .map(|(path, target)| (path.parse().unwrap(), Entry::Link(target.clone())));
        let entry = EntryPoint {
            path: self.entry.parse().unwrap(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let mut app = Manifest::new(
            "acme/tool".parse().unwrap(),
            "1.0".parse().unwrap(),
            entry,
            files.chain(links).collect(),
        )
        .unwrap();
        app.image = self.image;
        let mut open = |path: &AppPath| {
            let content = self.files[path.as_str()].0.clone();
            Ok(Box::new(io::Cursor::new(content)) as Box<dyn Read>)
        };
        check(&app, &mut open, &policy_keys(keys, threshold))
    }

    fn put(mut self, path: &str, content: &[u8], executable: bool) -> Self {
        self.files
            .insert(path.to_owned(), (content.to_vec(), executable));
        self
    }
}

#[test]
fn only_the_image_that_was_signed_and_nothing_else_is_the_app() {
    let keys = [
        SoftwareKey::generate().unwrap(),
        SoftwareKey::generate().unwrap(),
    ];
    let [first, second] = &keys;
    let whole = || App::new(&[first, second]);
    whole().check(&[first, second], 2).unwrap();
    let refused = |app: App| app.check(&[first, second], 2).unwrap_err();

    assert!(matches!(
        App::new(&[first]).check(&[first, second], 2),
        Err(NotCarried::Unsigned(Unsigned::TooFew { found: 1, .. }))
    ));
    let unnamed = App {
        image: None,
        ..whole()
    };
    assert!(matches!(refused(unnamed), NotCarried::NoImage));
    let other = App {
        image: Some(Digest::of(b"x")),
        ..whole()
    };
    assert!(matches!(refused(other), NotCarried::Missing(_)));
    for (path, content, executable) in [
        ("bin/tool", &b"other"[..], true),
        ("etc/c", b"conf", true),
        ("etc/more", b"", false),
    ] {
        let changed = whole().put(path, content, executable);
        assert!(
            matches!(refused(changed), NotCarried::Different(_)),
            "{path}"
        );
    }
    let mut gone = whole();
    gone.files.remove("etc/c");
    assert!(matches!(refused(gone), NotCarried::Different(_)));
    let mut elsewhere = whole();
    elsewhere
        .links
        .insert("bin/same".to_owned(), "../etc/c".to_owned());
    assert!(matches!(refused(elsewhere), NotCarried::Different(_)));
}

#[test]
fn what_hides_beside_the_image_is_refused() {
    let key = SoftwareKey::generate().unwrap();
    let whole = || App::new(&[&key]);
    let refused = |app: App| app.check(&[&key], 1).unwrap_err();
    let hidden = App {
        entry: "oci/hidden",
        ..whole().put("oci/hidden", b"evil", true)
    };
    assert!(matches!(refused(hidden), NotCarried::Stray(_)));
    let signature = App {
        entry: "oci/signatures/9.bundle",
        ..whole().put("oci/signatures/9.bundle", b"evil", true)
    };
    assert!(matches!(refused(signature), NotCarried::Stray(_)));
    assert!(matches!(
        refused(whole().put("oci/signatures/x", b"", false)),
        NotCarried::Stray(_)
    ));
    let alone = whole().put("oci/signatures/7.payload", b"{}", false);
    assert!(matches!(refused(alone), NotCarried::Missing(_)));
    let mut link = whole();
    link.links
        .insert("oci/link".to_owned(), "../bin/tool".to_owned());
    assert!(matches!(refused(link), NotCarried::Stray(_)));
    // A layer that is another than its name says.
    let mut layer = whole();
    let at = layer
        .files
        .keys()
        .find(|path| path.contains("blobs"))
        .unwrap()
        .clone();
    layer.files.get_mut(&at).unwrap().0.push(0);
    assert!(layer.check(&[&key], 1).is_err());
}

/// Image, layers, signatures, what they unpack to: each named by digest or signed.
#[test]
fn a_changed_byte_anywhere_in_an_image_or_its_signatures_is_refused() {
    let keys = [
        SoftwareKey::generate().unwrap(),
        SoftwareKey::generate().unwrap(),
    ];
    let [first, second] = &keys;
    let names: Vec<String> = App::new(&[first, second]).files.into_keys().collect();
    assert!(names.len() >= 9, "layers, image, signatures: {names:?}");
    let mut app = App::new(&[first, second]);
    app.check(&[first, second], 2).unwrap();
    for name in names {
        let size = app.files[&name].0.len();
        for at in (0..size).step_by((size / 400).max(1)) {
            app.files.get_mut(&name).unwrap().0[at] ^= 1;
            assert!(
                app.check(&[first, second], 2).is_err(),
                "byte {at} of {name}"
            );
            app.files.get_mut(&name).unwrap().0[at] ^= 1;
        }
        let (mut whole, executable) = app.files[&name].clone();
        whole.pop();
        let cut = std::mem::replace(app.files.get_mut(&name).unwrap(), (whole, executable));
        assert!(app.check(&[first, second], 2).is_err(), "{name} cut");
        app.files.insert(name, cut);
    }
    app.check(&[first, second], 2).unwrap();
}
