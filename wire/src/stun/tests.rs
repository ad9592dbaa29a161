use super::*;

const ID: TransactionId = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
/// RFC 5769 2.1: a request with attributes of ICE, a user name and an integrity that nobody here checks.
const RFC_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
/// RFC 5769 2.2: 192.0.2.1:32853.
const RFC_RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
/// RFC 5769 2.3: [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const RFC_RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed41\
    80280004c8fb0b4c";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

#[test]
fn what_is_no_binding_message_is_refused() {
    let good = request(&ID);
    assert_eq!(Message::parse(&[]), Err(Malformed::NotStun));
    assert_eq!(Message::parse(&good[..19]), Err(Malformed::NotStun));
    // WireGuard and QUIC.
    assert_eq!(
        Message::parse(&[4, 0, 0, 0, 1, 2, 3, 4].repeat(8)),
        Err(Malformed::NotStun)
    );
    assert_eq!(Message::parse(&[0x40; 64]), Err(Malformed::NotStun));
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Message::parse(&longer), Err(Malformed::Length(53)));
    let mut error = success(&ID, "192.0.2.1:9".parse().unwrap());
    error[1] = 0x11;
    assert_eq!(Message::parse(&error), Err(Malformed::Fingerprint));
    let mut other = header(0x0111, &ID);
    push(&mut other, SOFTWARE, b"x");
    assert_eq!(Message::parse(&seal(other)), Err(Malformed::Type(0x0111)));
    let mut demanding = header(BINDING_REQUEST, &ID);
    push(&mut demanding, 0x0003, &[0; 4]);
    assert_eq!(
        Message::parse(&seal(demanding)),
        Err(Malformed::NotUnderstood(3))
    );
    assert_eq!(
        Message::parse(&seal(header(BINDING_SUCCESS, &ID))),
        Err(Malformed::Address)
    );
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_sealed_message_is_refused() {
    let good = success(&ID, "[2001:db8::1]:51820".parse().unwrap());
    for end in 0..good.len() {
        assert!(Message::parse(&good[..end]).is_err(), "{end}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A fingerprint whose attribute is not one any more is not missed: it is optional, and so are its bits here.
        let kind_of_fingerprint = (44..46).contains(&(bit / 8));
        assert!(
            Message::parse(&bad).is_err() || kind_of_fingerprint,
            "{bit}"
        );
    }
}

#[test]
fn addresses_of_the_wrong_length_or_family_or_without_a_port_are_refused() {
    for value in [
        &[0, 1, 1, 1, 1, 1, 1][..],
        &[0, 2, 1, 1, 1, 1, 1, 1],
        &[0, 3, 1, 1, 1, 1, 1, 1],
        &[0, 1, 0x21, 0x12, 1, 1, 1, 1],
        &[0],
    ] {
        let mut message = header(BINDING_SUCCESS, &ID);
        push(&mut message, XOR_MAPPED_ADDRESS, value);
        assert_eq!(Message::parse(&seal(message)), Err(Malformed::Address));
    }
}

#[test]
fn more_attributes_than_are_looked_at_are_refused() {
    let mut message = header(BINDING_REQUEST, &ID);
    for _ in 0..MAX_ATTRIBUTES {
        push(&mut message, SOFTWARE, b"");
    }
    assert_eq!(Message::parse(&seal(message)), Err(Malformed::TooMany));
}

#[test]
fn no_answer_is_longer_than_the_request() {
    let asked = request(&ID).len();
    assert_eq!(asked, MIN_REQUEST_BYTES);
    for from in ["192.0.2.1:1", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:7"] {
        assert!(success(&ID, from.parse().unwrap()).len() <= asked);
    }
}

#[test]
fn the_examples_of_rfc_5769_are_read() {
    assert_eq!(
        Message::parse(&{
            // ICE-CONTROLLED is optional to understand.
            bytes(RFC_REQUEST)
        }),
        Ok(Message::Request(ID))
    );
    let v4 = "192.0.2.1:32853".parse().unwrap();
    assert_eq!(
        Message::parse(&bytes(RFC_RESPONSE_V4)),
        Ok(Message::Success(ID, v4))
    );
    let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
        .parse()
        .unwrap();
    assert_eq!(
        Message::parse(&bytes(RFC_RESPONSE_V6)),
        Ok(Message::Success(ID, v6))
    );
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(Message::parse(&request(&ID)), Ok(Message::Request(ID)));
    for from in ["192.0.2.1:1", "[2001:db8::1]:65535"] {
        let from = from.parse().unwrap();
        assert_eq!(
            Message::parse(&success(&ID, from)),
            Ok(Message::Success(ID, from))
        );
    }
    let mapped = success(&ID, "[::ffff:192.0.2.1]:7".parse().unwrap());
    let plain = "192.0.2.1:7".parse().unwrap();
    assert_eq!(Message::parse(&mapped), Ok(Message::Success(ID, plain)));
}
