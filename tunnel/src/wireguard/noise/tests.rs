use std::path::PathBuf;

use super::*;

/// Published vectors (flynn/noise), without and with a prologue; the session keys show in the transport messages.
const INITIATOR: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const RESPONDER: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
const FIRST_EPHEMERAL: &str = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";
const SECOND_EPHEMERAL: &str = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60";
const PSK: &str = "2176657279736563726574766572797365637265747665727973656372657421";
const WITHOUT_PROLOGUE: [&str; 4] = [
    "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254d06f15f78ad0914d9715147bb5a5004b27345a838bab4aa8bc5f144afc2cf4cca972105ba526e8c92b759e028200e7666a3d77b86f9aa87dcfe685e771e38b97d3c5996368c663051641",
    "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466168e6913e78d7a2b04b2f3d5529e73e953bafe6c7ce2b1005367",
    "6013ea114b4c4884afb82bf029f72f924bd8a32c487a15a1cef4855ba234be",
    "8a2e7119635e41a35b7e64e0adac5483b66b1a9827895124ea07d58440b654",
];
const WITH_PROLOGUE: [&str; 4] = [
    "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254d06f15f78ad0914d9715147bb5a5004b27345a838bab4aa8bc5f144afc2cf4ccb88f9ea1ebd99e94b76e50af7eee0e596a3d77b86f9aa87dcfe61d972bc6f34d0e93751d1260fa6bf0fe",
    "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466168e6913e78d7a2b04b2b154c5149032d1c2584051bdcf04db1d",
    "6013ea114b4c4884afb82bf029f72f924bd8a32c487a15a1cef4855ba234be",
    "8a2e7119635e41a35b7e64e0adac5483b66b1a9827895124ea07d58440b654",
];
const PAYLOADS: [&str; 4] = [
    "test_msg_0",
    "test_msg_1",
    "yellowsubmarine",
    "submarineyellow",
];

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn key(text: &str) -> [u8; 32] {
    bytes(text).try_into().unwrap()
}

fn keys(text: &str) -> Arc<StaticKeys> {
    Arc::new(StaticKeys::new(Secret::new(key(text))))
}

fn seed(ephemeral: &str, mask: u8) -> Seed {
    Seed {
        ephemeral: Zeroizing::new(key(ephemeral)),
        mask: Zeroizing::new([mask; 32]),
    }
}

fn transport(split: &Secret<[u8; 32]>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() + TAG_BYTES];
    let sealed = ChaChaPoly(Zeroizing::new(*split.expose())).encrypt(0, &[], payload, &mut out);
    assert_eq!(sealed, out.len());
    out
}

/// Runs one vector: static and ephemeral keys, pre-shared key, prologue, payloads; gives four messages.
struct Case<'a> {
    statics: [&'a str; 2],
    ephemerals: [&'a str; 2],
    psk: &'a str,
    prologue: &'a [u8],
    payloads: [Vec<u8>; 4],
}

impl Case<'_> {
    /// `mask` blinds what snow holds, and must not show in any byte.
    fn run(&self, mask: u8) -> [Vec<u8>; 4] {
        let (a, b) = (keys(self.statics[0]), keys(self.statics[1]));
        let psk = Secret::new(key(self.psk));
        let mut initiator = Noise::build(
            &a,
            Some(&b.public()),
            seed(self.ephemerals[0], mask),
            self.prologue,
        )
        .unwrap();
        let mut responder = Noise::build(
            &b,
            None,
            seed(self.ephemerals[1], mask.wrapping_mul(3)),
            self.prologue,
        )
        .unwrap();
        let [first, second, third, fourth] = &self.payloads;
        let (mut wire, mut plain) = (vec![0; 1024], vec![0; 1024]);
        let length = initiator.write(first, &mut wire).unwrap();
        let one = wire[..length].to_vec();
        let length = responder.read(&one, &mut plain).unwrap();
        assert_eq!(&plain[..length], &first[..]);
        assert_eq!(responder.remote(), Some(a.public()));
        let length = responder.write_under(&psk, second, &mut wire).unwrap();
        let two = wire[..length].to_vec();
        let length = initiator.read_under(&psk, &two, &mut plain).unwrap();
        assert_eq!(&plain[..length], &second[..]);
        let (ours, theirs) = (initiator.split().unwrap(), responder.split().unwrap());
        assert_eq!(ours.forth.expose(), theirs.forth.expose());
        assert_eq!(ours.back.expose(), theirs.back.expose());
        [
            one,
            two,
            transport(&ours.forth, third),
            transport(&theirs.back, fourth),
        ]
    }
}

fn published<'a>(prologue: &'a [u8]) -> Case<'a> {
    Case {
        statics: [INITIATOR, RESPONDER],
        ephemerals: [FIRST_EPHEMERAL, SECOND_EPHEMERAL],
        psk: PSK,
        prologue,
        payloads: PAYLOADS.map(|payload| payload.as_bytes().to_vec()),
    }
}

/// A handshake under way: the initiator, and what the responder answered under `psk`.
fn answered(psk: u8) -> (Noise, Vec<u8>) {
    let (a, b) = (keys(INITIATOR), keys(RESPONDER));
    let mut initiator = Noise::initiator(&a, &b.public(), seed(FIRST_EPHEMERAL, 1)).unwrap();
    let mut responder = Noise::responder(&b, seed(SECOND_EPHEMERAL, 2)).unwrap();
    let mut wire = [0; 256];
    let length = initiator.write(&[], &mut wire).unwrap();
    responder.read(&wire[..length], &mut [0; 16]).unwrap();
    let length = responder
        .write_under(&Secret::new([psk; 32]), &[], &mut wire)
        .unwrap();
    (initiator, wire[..length].to_vec())
}

#[test]
fn a_key_that_agrees_on_nothing_is_refused() {
    let a = keys(INITIATOR);
    let mut wire = [0; 256];
    // Neutral elements and points of low order, in the initiator's hands and in the responder's.
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [[0; 32], one] {
        let mut initiator = Noise::initiator(&a, &weak, seed(FIRST_EPHEMERAL, 1)).unwrap();
        assert_eq!(initiator.write(&[], &mut wire), Err(Refused::WeakKey));
        let mut responder = Noise::responder(&a, seed(SECOND_EPHEMERAL, 1)).unwrap();
        let mut message = [0; 108];
        message[..32].copy_from_slice(&weak);
        assert_eq!(responder.read(&message, &mut wire), Err(Refused::WeakKey));
    }
    let (mut initiator, mut answer) = answered(7);
    answer[..32].fill(0);
    assert_eq!(
        initiator.read_under(&Secret::new([7; 32]), &answer, &mut []),
        Err(Refused::WeakKey)
    );
}

#[test]
fn a_wrong_pre_shared_key_gives_no_keys_and_the_right_one_still_does() {
    let (mut initiator, answer) = answered(7);
    assert_eq!(
        initiator.read_under(&Secret::new([8; 32]), &answer, &mut []),
        Err(Refused::NotAuthentic)
    );
    assert_eq!(
        initiator.read_under(&Secret::new([7; 32]), &answer, &mut []),
        Ok(0)
    );
    assert!(initiator.split().is_ok());
}

#[test]
fn an_unfinished_handshake_gives_no_keys() {
    let (initiator, _) = answered(7);
    assert_eq!(initiator.split().err(), Some(Refused::Unexpected));
}

#[test]
fn messages_out_of_turn_are_refused() {
    let (mut initiator, answer) = answered(7);
    let mut wire = [0; 256];
    assert!(initiator.write(&[], &mut wire).is_err());
    let mut responder = Noise::responder(&keys(RESPONDER), seed(SECOND_EPHEMERAL, 1)).unwrap();
    assert!(responder.write(&[], &mut wire).is_err());
    // Without a pre-shared key the answer is not even opened under one of zeros.
    assert!(initiator.read(&answer, &mut wire).is_err());
}

#[test]
fn an_ephemeral_key_is_given_once() {
    let mut once = Once(Some(Arc::new(seed(FIRST_EPHEMERAL, 1))));
    let mut key = [0; 32];
    assert!(once.try_fill_bytes(&mut key).is_ok());
    assert!(once.try_fill_bytes(&mut key).is_err());
}

#[test]
fn snow_holds_no_chaining_key_in_clear() {
    let mut plain = Blake2s {
        state: Blake2s256::new(),
        seed: Arc::new(seed(FIRST_EPHEMERAL, 0)),
    };
    let mut blinded = Blake2s {
        state: Blake2s256::new(),
        seed: Arc::new(seed(FIRST_EPHEMERAL, 0x5a)),
    };
    let (mut clear, mut hidden, mut key) = ([0; 64], [0; 64], [0; 64]);
    plain.hkdf(
        &FIRST_CHAINING_KEY[..],
        &[1; 32],
        2,
        &mut clear,
        &mut key,
        &mut [],
    );
    blinded.hkdf(
        &FIRST_CHAINING_KEY[..],
        &[1; 32],
        2,
        &mut hidden,
        &mut key,
        &mut [],
    );
    assert!(
        clear[..32]
            .iter()
            .zip(&hidden[..32])
            .all(|(a, b)| a ^ b == 0x5a)
    );
    let (mut last, mut same) = ([0; 64], [0; 64]);
    plain.hkdf(&clear[..32], &[], 2, &mut last, &mut key, &mut []);
    blinded.hkdf(&hidden[..32], &[], 2, &mut same, &mut key, &mut []);
    assert_eq!(last, same, "session keys are what they are");
}

#[test]
fn published_handshakes_come_out_byte_by_byte() {
    for mask in [0, 1, 0xff] {
        for (prologue, expected) in [(&b""[..], WITHOUT_PROLOGUE), (b"notsecret", WITH_PROLOGUE)] {
            assert_eq!(published(prologue).run(mask), expected.map(bytes));
        }
    }
}

fn vectors(file: &str) -> Option<String> {
    let folder = std::env::var_os("EDGEWARD_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(file)).ok();
    if text.is_none() {
        println!("vectors not found: skipped");
    }
    text
}

#[test]
fn a_handshake_of_another_implementation_comes_out_byte_by_byte() {
    let Some(text) = vectors("noise-ikpsk2/snow/cacophony.txt") else {
        return;
    };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    for vector in all["vectors"].as_array().unwrap() {
        let field = |name: &str| vector[name].as_str().unwrap();
        let message =
            |number: usize, part: &str| bytes(vector["messages"][number][part].as_str().unwrap());
        let prologue = bytes(field("init_prologue"));
        let case = Case {
            statics: [field("init_static"), field("resp_static")],
            ephemerals: [field("init_ephemeral"), field("resp_ephemeral")],
            psk: vector["init_psks"][0].as_str().unwrap(),
            prologue: &prologue,
            payloads: std::array::from_fn(|number| message(number, "payload")),
        };
        assert_eq!(
            case.run(9),
            std::array::from_fn(|number| message(number, "ciphertext"))
        );
    }
}

#[test]
fn agreement_holds_against_the_published_traps() {
    let Some(text) = vectors("wycheproof/x25519_test.json") else {
        return;
    };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut zeros = 0;
    for test in all["testGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter())
    {
        let field = |name: &str| test[name].as_str().unwrap();
        let agreed = keys(field("private")).agree(&key(field("public")));
        let expected = key(field("shared"));
        if expected == [0; 32] {
            zeros += 1;
            assert!(agreed.is_none(), "{}", test["tcId"]);
        } else {
            assert_eq!(*agreed.unwrap().expose(), expected, "{}", test["tcId"]);
        }
    }
    assert!(zeros > 0);
}

#[test]
fn the_cipher_holds_against_the_published_traps() {
    let Some(text) = vectors("wycheproof/chacha20_poly1305_test.json") else {
        return;
    };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut tried = 0;
    for test in all["testGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter())
    {
        let field = |name: &str| bytes(test[name].as_str().unwrap());
        // Only nonces that begin with four zero bytes can come up in WireGuard.
        let nonce = field("iv");
        let Ok([0, 0, 0, 0, counter @ ..]) = <[u8; 12]>::try_from(nonce) else {
            continue;
        };
        let cipher = ChaChaPoly(Zeroizing::new(field("key").try_into().unwrap()));
        let counter = u64::from_le_bytes(counter);
        let (plain, data) = (field("msg"), field("aad"));
        let sealed = [field("ct"), field("tag")].concat();
        let mut out = vec![0; sealed.len()];
        let opened = cipher.decrypt(counter, &data, &sealed, &mut out);
        tried += 1;
        if test["result"] == "valid" {
            assert_eq!(opened, Ok(plain.len()), "{}", test["tcId"]);
            assert_eq!(&out[..plain.len()], &plain[..]);
            assert_eq!(
                cipher.encrypt(counter, &data, &plain, &mut out),
                sealed.len()
            );
            assert_eq!(out, sealed);
        } else {
            assert!(opened.is_err(), "{}", test["tcId"]);
        }
    }
    assert!(tried > 0);
}
