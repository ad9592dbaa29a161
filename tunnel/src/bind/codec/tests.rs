use proptest::prelude::*;

use super::*;

fn offer(share: KemShare, boot_statement: Option<Vec<u8>>) -> Message {
    Message::Offer(Box::new(Offer {
        version: 1,
        wireguard_key: [1; 32],
        boot_id: [2; 16],
        nonce: [3; 32],
        slice_number: 4,
        share,
        result: vec![5; 700],
        boot_statement,
    }))
}

fn samples() -> Vec<Message> {
    vec![
        offer(KemShare::Key(Box::new([6; ENCAPSULATION_KEY_BYTES])), None),
        offer(
            KemShare::Ciphertext(Box::new([7; CIPHERTEXT_BYTES])),
            Some(vec![8; 900]),
        ),
        Message::Proof(Proof {
            signature: vec![9; 71],
            possession: [10; 32],
        }),
        Message::Armed { epoch: 11 },
        Message::Turn {
            epoch: u64::MAX,
            nonce: [12; 32],
        },
        Message::NewResult(vec![13; 1000]),
        Message::Detach(Code::Cut),
    ]
}

#[test]
fn every_truncation_and_every_byte_left_over_is_refused() {
    for message in samples() {
        let body = message.body();
        for end in 0..body.len() {
            assert!(parse(&body[..end]).is_err(), "{message:?} cut at {end}");
        }
        assert_eq!(
            parse(&[body.as_slice(), &[0]].concat()),
            Err(Malformed::Trailing(1))
        );
    }
}

#[test]
fn oversized_frames_and_fields_are_refused() {
    assert_eq!(parse(&[]), Err(Malformed::FrameLength(0)));
    assert_eq!(
        parse(&vec![0; MAX_FRAME_BYTES + 1]),
        Err(Malformed::FrameLength(MAX_FRAME_BYTES + 1))
    );
    assert!(parse_length([0; 4]).is_err());
    assert!(parse_length(0x0001_0001_u32.to_be_bytes()).is_err());
    assert!(parse_length([0xff; 4]).is_err());
    assert_eq!(parse_length(0x0001_0000_u32.to_be_bytes()), Ok(65_536));
    let long = Message::NewResult(vec![0; MAX_RESULT_BYTES + 1]).body();
    assert_eq!(
        parse(&long),
        Err(Malformed::FieldLength(MAX_RESULT_BYTES + 1))
    );
    let signature = Message::Proof(Proof {
        signature: vec![0; MAX_SIGNATURE_BYTES + 1],
        possession: [0; 32],
    });
    assert_eq!(
        parse(&signature.body()),
        Err(Malformed::FieldLength(MAX_SIGNATURE_BYTES + 1))
    );
}

#[test]
fn unknown_kinds_shares_and_flags_are_refused() {
    assert_eq!(parse(&[0]), Err(Malformed::Kind(0)));
    assert_eq!(parse(&[7, 1, 2]), Err(Malformed::Kind(7)));
    let mut body = offer(KemShare::Key(Box::new([0; ENCAPSULATION_KEY_BYTES])), None).body();
    let share_at = 1 + 2 + 32 + 16 + 32 + 8;
    body[share_at] = 3;
    assert_eq!(parse(&body), Err(Malformed::Share(3)));
    body[share_at] = SHARE_KEY;
    let flag_at = body.len() - 1;
    body[flag_at] = 2;
    assert_eq!(parse(&body), Err(Malformed::Flag(2)));
}

#[test]
fn an_unknown_detach_code_is_unspecified() {
    assert_eq!(
        parse(&[DETACH, 0xff, 0xff]),
        Ok(Message::Detach(Code::Unspecified))
    );
}

#[test]
fn every_message_round_trips_and_its_frame_holds_its_length() {
    for message in samples() {
        let body = message.body();
        assert_eq!(parse(&body), Ok(message));
        let framed = frame(&body);
        let (length, rest) = framed.split_at(LENGTH_BYTES);
        assert_eq!(parse_length(length.try_into().unwrap()), Ok(body.len()));
        assert_eq!(rest, body);
    }
}

#[test]
fn altered_messages_never_panic_and_reencode_to_the_same_bytes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for message in samples() {
        let body = message.body();
        for _ in 0..2_000 {
            let mut altered = body.clone();
            for _ in 0..=next() % 3 {
                let at = usize::try_from(next()).unwrap() % altered.len();
                altered[at] = u8::try_from(next() & 0xff).unwrap();
            }
            if next().is_multiple_of(4) {
                altered.truncate(usize::try_from(next()).unwrap() % (altered.len() + 1));
            }
            if let Ok(parsed) = parse(&altered)
                && !matches!(parsed, Message::Detach(_))
            {
                assert_eq!(parsed.body(), altered);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        if let Ok(message) = parse(&bytes)
            && !matches!(message, Message::Detach(_))
        {
            prop_assert_eq!(message.body(), bytes);
        }
    }
}
