use edgeward_identity::SoftwareKey;

use super::*;

const SECRET: &[u8; 32] = b"\x01n3v3r\x00seen\xfe\xffbytes?of>a~secret!9";

fn base64(bytes: &[u8]) -> String {
    use std::process::Command;
    // Somebody else's encoder.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    std::fs::write(&file, bytes).unwrap();
    let said = Command::new("base64").arg(&file).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

/// For addresses, without padding.
fn base64_url(bytes: &[u8]) -> String {
    base64(bytes)
        .replace(['\n', '='], "")
        .replace('+', "-")
        .replace('/', "_")
}

#[test]
fn a_secret_is_found_in_whatever_form_and_place_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    keep(folder.path(), "the planted one", SECRET);
    let long = |text: &[u8]| [&vec![b'.'; (1 << 20) - 7], text, b"tail"].concat();
    let wrapped = |before: usize| base64(&[&vec![7; before], &SECRET[..]].concat());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("raw", SECRET.to_vec()),
        ("raw.cut", SECRET[5..29].to_vec()),
        ("hex", hex::encode(SECRET).into_bytes()),
        ("hex.upper", hex::encode_upper(SECRET).into_bytes()),
        ("base64", base64(SECRET).into_bytes()),
        ("base64.one", wrapped(1).into_bytes()),
        ("base64.two", wrapped(2).into_bytes()),
        // The encoder breaks lines after 57 bytes: in the middle of it.
        ("base64.line", wrapped(40).into_bytes()),
        (
            "base64.url",
            base64(SECRET)
                .replace('+', "-")
                .replace('/', "_")
                .into_bytes(),
        ),
        ("far", long(SECRET)),
    ];
    for (name, bytes) in &cases {
        std::fs::write(at(name), bytes).unwrap();
        let leaks = look(folder.path(), &[]).unwrap();
        assert_eq!(leaks.len(), 1, "{name}: {leaks:?}");
        assert!(leaks[0].place.ends_with(name), "{leaks:?}");
        assert_eq!(leaks[0].secret, "the planted one");
        assert!(!leaks[0].to_string().contains("n3v3r"));
        std::fs::remove_file(at(name)).unwrap();
        let said = look(folder.path(), &[("what it said".to_owned(), bytes.clone())]).unwrap();
        assert_eq!(said.len(), 1, "{name}");
    }
    std::fs::write(at("other"), "n3v3r seen").unwrap();
    assert_eq!(look(folder.path(), &[]).unwrap(), []);
    forget(folder.path());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_secret_in_a_database_is_found_in_a_text_and_within_a_column_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    keep(folder.path(), "the planted one", SECRET);
    let document = |form: &str| format!("{{\"kept\": \"{form}\"}}");
    let (in_hex, in_base64) = (hex::encode(SECRET), base64_url(SECRET));
    let bytes = |bytes: &[u8]| format!("\\x{}", hex::encode(bytes));
    let values = [
        document(&in_hex),
        document(&in_base64),
        bytes(SECRET),
        bytes(document(&in_hex).as_bytes()),
        bytes(document(&in_base64).as_bytes()),
        bytes(base64(&[&[7; 40], &SECRET[..]].concat()).as_bytes()),
    ];
    for value in &values {
        let rows = [
            format!("INSERT INTO public.a VALUES (1, '{value}', NULL);\n"),
            format!(
                "COPY public.a (b) FROM stdin;\n1\t{}\t\\N\n\\.\n",
                value.replace('\\', "\\\\")
            ),
        ];
        for row in rows {
            let said = look(
                folder.path(),
                &[("pg_dump".to_owned(), row.clone().into_bytes())],
            );
            let said = said.unwrap();
            assert_eq!(said.len(), 1, "{row}");
            assert_eq!(said[0].to_string(), "pg_dump holds the planted one");
        }
    }
    let other = bytes(document(&hex::encode([9; 32])).as_bytes());
    let row = format!("INSERT INTO public.a VALUES (1, '{other}');\n").into_bytes();
    assert_eq!(
        look(folder.path(), &[("pg_dump".to_owned(), row)]).unwrap(),
        []
    );
    forget(folder.path());
}

#[test]
fn a_key_is_a_secret_everywhere_but_in_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("cloud/data/keys");
    std::fs::create_dir_all(&keys).unwrap();
    let key = SoftwareKey::generate().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n",
        base64(key.pkcs8().expose())
    );
    std::fs::write(keys.join("issuing.key"), &pem).unwrap();
    std::fs::write(
        keys.join("log.key"),
        "plant.example/audit+1a2b3c4d+AZabcdefghijkl",
    )
    .unwrap();
    std::fs::write(
        folder.path().join("log"),
        "plant.example/audit+1a2b3c4d+AZabcdefghijkl",
    )
    .unwrap();
    let run = folder.path().join("a/run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(
        run.join("boot-key"),
        [b"id", &key.pkcs8().expose()[..]].concat(),
    )
    .unwrap();
    assert_eq!(look(folder.path(), &[]).unwrap(), []);
    assert_eq!(names(folder.path()).len(), 1);
    // The run folder goes with a power cut; the key was known before.
    gather(folder.path()).unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    for text in [pem, hex::encode(&key.pkcs8().expose()[40..60])] {
        std::fs::write(folder.path().join("log"), format!("failed: {text}")).unwrap();
        let leaks = look(folder.path(), &[]).unwrap();
        assert_eq!(leaks.len(), 1, "{leaks:?}");
        assert!(leaks[0].place.ends_with("log") && leaks[0].secret.contains("key of"));
    }
    forget(folder.path());
}

#[test]
fn tokens_and_api_keys_are_secret_where_more_is_written_than_they() {
    let folder = tempfile::tempdir().unwrap();
    let token = format!("{TOKEN}{}", base64_url(&[&SECRET[..], &[9; 60]].concat()));
    let mut other = *SECRET;
    other.reverse();
    let key = format!("{API_KEY}a1_{}", base64_url(&other));
    std::fs::write(folder.path().join("token"), &token).unwrap();
    assert_eq!(
        keep_words(folder.path(), &format!("created:\n  {key}\n")),
        1
    );
    assert_eq!(look(folder.path(), &[]).unwrap(), []);
    assert_eq!(names(folder.path()).len(), 2);
    // What a token says besides is no secret.
    std::fs::write(folder.path().join("log"), [9; 60]).unwrap();
    assert_eq!(look(folder.path(), &[]).unwrap(), []);
    for text in [&token, &key] {
        std::fs::write(folder.path().join("log"), format!("got {text}")).unwrap();
        assert!(!look(folder.path(), &[]).unwrap().is_empty());
    }
    forget(folder.path());
}
