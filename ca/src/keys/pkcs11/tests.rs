//! On SoftHSM, which `tests/run` installs. A TPM behind tpm2-pkcs11 is tried in `tests/scenarios/key_stores.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use edgeward_identity::{Timestamp, TrustDomain};

use super::*;
use crate::keys::ledger::{Place, Role};
use crate::keys::stores::KeyStores;
use crate::keys::{CloudKeys, KeysFault};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const CONFIGURATION: &str = "SOFTHSM2_CONF";

/// Runs `body` in a process of its own: the library reads its configuration from the environment, once, and a test
/// cannot change its own environment safely.
fn on_softhsm(test: &str, body: impl FnOnce(&Path)) {
    if let Some(configuration) = std::env::var_os(CONFIGURATION) {
        return body(Path::new(&configuration).parent().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&configuration, text).unwrap();
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CONFIGURATION, &configuration)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Makes a token with PIN 1234.
fn token(folder: &Path, label: &str) -> TokenUri {
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label])
        .args(["--so-pin", "12345678", "--pin", "1234"])
        .output()
        .expect("softhsm2 is installed (tests/run does)");
    assert!(made.status.success(), "{made:?}");
    uri(folder, label, "1234", MODULE).parse().unwrap()
}

fn uri(folder: &Path, label: &str, pin: &str, module: &str) -> String {
    let path = folder.join(format!("pin-{pin}"));
    fs::write(&path, format!("{pin}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "pkcs11:token={label}?module-path={module}&pin-source=file:{}",
        path.display()
    )
}

fn stores(uri: &str) -> KeyStores {
    toml::from_str(&format!("issuing = {{ store = {uri:?} }}")).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

#[test]
fn a_token_that_is_not_as_it_should_be_is_refused_with_the_reason() {
    on_softhsm(
        "a_token_that_is_not_as_it_should_be_is_refused_with_the_reason",
        |folder| {
            let good = token(folder, "hsm");
            let refused = |text: String| Token::open(&text.parse().unwrap()).unwrap_err();
            assert!(matches!(
                refused(uri(folder, "hsm", "1234", "/nonexistent/p11.so")),
                TokenFault::Module { .. }
            ));
            assert!(matches!(
                refused(uri(folder, "other", "1234", MODULE)),
                TokenFault::NoToken(label) if label == "other"
            ));
            assert!(matches!(
                refused(uri(folder, "hsm", "4321", MODULE)),
                TokenFault::Login { .. }
            ));
            let exposed = uri(folder, "hsm", "1234", MODULE);
            let open = fs::Permissions::from_mode(0o644);
            fs::set_permissions(&good.pin, open).unwrap();
            let fault = refused(exposed);
            assert!(matches!(&fault, TokenFault::Pin { .. }), "{fault}");
            assert!(!fault.to_string().contains("1234\n"));
            uri(folder, "hsm", "1234", MODULE);
            let token = Token::open(&good).unwrap();
            assert!(matches!(
                token.key("issuing").unwrap_err(),
                TokenFault::NoKey { .. }
            ));
        },
    );
}

#[test]
fn a_key_is_made_in_the_token_found_again_and_signs_for_many_at_once() {
    on_softhsm(
        "a_key_is_made_in_the_token_found_again_and_signs_for_many_at_once",
        |folder| {
            let token = Token::open(&token(folder, "hsm")).unwrap();
            let key = token.make("issuing").unwrap();
            assert_eq!(token.key("issuing").unwrap().public_key(), key.public_key());
            assert_eq!(
                token.make("issuing").unwrap().public_key(),
                key.public_key(),
                "one that is there is taken"
            );
            std::thread::scope(|scope| {
                for worker in 0..8 {
                    let key = &key;
                    scope.spawn(move || {
                        for turn in 0..25 {
                            let message = format!("{worker} {turn}");
                            let signature = key.sign(message.as_bytes()).unwrap();
                            key.public_key()
                                .verify(message.as_bytes(), &signature)
                                .unwrap();
                        }
                    });
                }
            });
        },
    );
}

#[test]
fn a_lost_session_costs_one_more_attempt_and_a_lost_key_an_error() {
    on_softhsm(
        "a_lost_session_costs_one_more_attempt_and_a_lost_key_an_error",
        |folder| {
            let token = Token::open(&token(folder, "hsm")).unwrap();
            let key = token.make("issuing").unwrap();
            key.sign(b"before").unwrap();
            // What a token's restart does to every session of the process.
            token.session(false).unwrap().logout().unwrap();
            let signature = key.sign(b"after").unwrap();
            key.public_key().verify(b"after", &signature).unwrap();
            let session = token.session(true).unwrap();
            let handle = token.private(&session, "edgeward-issuing").unwrap();
            session.destroy_object(handle).unwrap();
            let failed = key.sign(b"lost").unwrap_err().to_string();
            assert!(
                failed.contains("edgeward-issuing") || failed.contains("hsm"),
                "{failed}"
            );
        },
    );
}

#[test]
fn the_issuing_authority_lives_in_a_token_from_the_first_start_or_from_a_rotation_on() {
    on_softhsm(
        "the_issuing_authority_lives_in_a_token_from_the_first_start_or_from_a_rotation_on",
        |folder| {
            token(folder, "hsm");
            let uri = uri(folder, "hsm", "1234", MODULE);
            let data = tempfile::tempdir().unwrap();
            let keys = CloudKeys::create_in(data.path(), &domain(), stores(&uri), NOW, |_| Ok(()))
                .unwrap();
            let issuing = keys.ledger().active(Role::Issuing).unwrap().clone();
            assert_eq!(issuing.place, Place::Pkcs11);
            assert!(!data.path().join("keys/issuing.key").exists());
            // Without the token's name in the configuration it is not found, and the reason says so.
            match CloudKeys::open(data.path(), &domain(), NOW) {
                Err(fault @ KeysFault::Elsewhere { .. }) => {
                    assert!(fault.to_string().contains("[keys.issuing]"), "{fault}");
                }
                other => panic!("{other:?}"),
            }
            drop(keys);
            let keys = CloudKeys::open_in(data.path(), &domain(), stores(&uri), NOW).unwrap();
            keys.prepare(Role::Issuing, NOW).unwrap();
            keys.publish(NOW).unwrap();
            keys.activate(NOW).unwrap();
            assert_eq!(
                keys.ledger().active(Role::Issuing).unwrap().place,
                Place::Pkcs11
            );
            // One that began in files is taken to the token by a rotation.
            let data = tempfile::tempdir().unwrap();
            CloudKeys::create(data.path(), &domain(), NOW, |_| Ok(())).unwrap();
            let keys = CloudKeys::open_in(data.path(), &domain(), stores(&uri), NOW).unwrap();
            assert_eq!(
                keys.ledger().active(Role::Issuing).unwrap().place,
                Place::File
            );
            keys.prepare(Role::Issuing, NOW).unwrap();
            keys.publish(NOW).unwrap();
            keys.activate(NOW).unwrap();
            assert_eq!(
                keys.ledger().active(Role::Issuing).unwrap().place,
                Place::Pkcs11
            );
            // A key that is never rotated by itself stays where it was made.
            let moved: KeyStores =
                toml::from_str(&format!("results = {{ store = {uri:?} }}")).unwrap();
            assert!(matches!(
                CloudKeys::open_in(data.path(), &domain(), moved, NOW),
                Err(KeysFault::InFile("results") | KeysFault::Elsewhere { .. })
            ));
        },
    );
}

#[test]
fn a_signature_is_written_as_der_whatever_its_leading_bits() {
    let mut raw = [0; 64];
    raw[31] = 1;
    raw[32] = 0x80;
    let der = der_of(&raw).unwrap();
    assert_eq!(&der[..5], [0x30, 38, 0x02, 1, 1]);
    assert_eq!(&der[5..9], [0x02, 33, 0, 0x80]);
    assert_eq!(der_of(&raw[1..]), None);
    assert_eq!(der_of(&[0; 64]), None);
}
