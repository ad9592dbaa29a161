//! Targets for blocks of the audit log. Each input is read as it is and as what was compressed, because almost no
//! change of a compressed text reaches the parser behind it.

use edgeward_audit::SealedRecord;
use edgeward_audit::block::{Bodies, Columns, PartWriter, Places};
use edgeward_audit::query::{ActorFilter, Filter};
use edgeward_identity::testing::TEST_NOW;

/// A frame of RFC 8878 that says its size in four bytes, and holds one block as it is.
const FRAME: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];

pub fn columns(bytes: &[u8]) {
    read_columns(bytes);
    read_columns(&framed(&[1], bytes));
}

pub fn bodies(bytes: &[u8]) {
    read_bodies(bytes);
    // A salt and a hash stand apart.
    let mut head = vec![1, 48];
    head.extend([7; 48]);
    read_bodies(&framed(&head, bytes));
}

pub fn places(bytes: &[u8]) {
    if let Ok(places) = Places::parse(bytes) {
        assert_eq!(places.to_bytes(), bytes);
        assert_eq!(places.iter().count(), places.count());
    }
}

pub fn column_seeds() -> Vec<Vec<u8>> {
    vec![part().0, b"\x00\x00\x00".to_vec()]
}

pub fn body_seeds() -> Vec<Vec<u8>> {
    let text = b"{\"salt\":\"\",\"prev\":\"\"}";
    // Of the first both stand apart; the second names the first.
    let mut plain = vec![2, 3, 21, 4, 1, 21];
    plain.extend(text);
    plain.extend(text);
    vec![part().1, plain]
}

pub fn place_seeds() -> Vec<Vec<u8>> {
    vec![vec![1, 7, 255], vec![0xff; 32]]
}

fn read_columns(bytes: &[u8]) {
    let Ok(columns) = Columns::parse(bytes) else {
        return;
    };
    let filter = Filter {
        actor: Some(ActorFilter::AnyAnonymous),
        ..Filter::default()
    };
    let asked = columns.asked(&filter).count();
    let matching = columns.rows().filter(|row| row.matches(&filter)).count();
    assert_eq!(asked, matching);
}

fn read_bodies(bytes: &[u8]) {
    if let Ok(bodies) = Bodies::parse(bytes) {
        assert!((0..bodies.len()).all(|number| bodies.record(number).is_some()));
        assert!(bodies.record(bodies.len()).is_none());
    }
}

fn framed(head: &[u8], plain: &[u8]) -> Vec<u8> {
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    let mut bytes = head.to_vec();
    let mut rest = length;
    while rest > 0x7f {
        bytes.extend([rest.to_le_bytes()[0] | 0x80]);
        rest >>= 7;
    }
    bytes.extend([rest.to_le_bytes()[0]]);
    bytes.extend(FRAME);
    bytes.extend(length.to_le_bytes());
    bytes.extend(&(length << 3 | 1).to_le_bytes()[..3]);
    bytes.extend(plain);
    bytes
}

/// The columns and the bodies of two records, one of which names the other.
fn part() -> (Vec<u8>, Vec<u8>) {
    let mut writer = PartWriter::new();
    let mut prev = "0".repeat(64);
    for seq in 1..3_u8 {
        let record = format!(
            "{{\"salt\":\"07070707070707070707070707070707\",\"node\":\"spiffe://plant.example/node/gw\",\
             \"boot\":\"01010101010101010101010101010101\",\"seq\":{seq},\"prev\":\"{prev}\",\"event\":\
             {{\"time\":1795000000000,\"actor\":\"anonymous:192.0.2.7\",\"subject\":\"press-4\",\
             \"type\":\"flow.denied\",\"verdict\":\"deny\",\"rule\":\"plant:read\"}}}}"
        );
        let sealed = SealedRecord::parse(record.as_bytes()).expect("a record");
        prev = sealed.hash().to_string();
        writer.push(seq, TEST_NOW, &sealed).expect("ascending");
    }
    let part = writer.finish().expect("compressed");
    (part.columns, part.bodies)
}
