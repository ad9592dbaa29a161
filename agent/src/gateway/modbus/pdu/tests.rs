use super::*;

fn touched(pdu: &[u8]) -> Option<[(u16, u16); 2]> {
    parse(1, pdu).unwrap().addresses
}

fn is_malformed(pdu: &[u8]) -> bool {
    matches!(parse(1, pdu), Err(BadPdu::Malformed { .. }))
}

fn illegal(pdu: &[u8]) -> Option<Exception> {
    match parse(1, pdu) {
        Err(BadPdu::Illegal(exception)) => Some(exception),
        _ => None,
    }
}

/// A well-formed request of every function that has a form.
const WELL_FORMED: &[&[u8]] = &[
    &[1, 0, 10, 0, 2],
    &[2, 0, 10, 0, 2],
    &[3, 0, 10, 0, 2],
    &[4, 0, 10, 0, 2],
    &[5, 0, 10, 0xff, 0],
    &[6, 0, 10, 1, 2],
    &[7],
    &[8, 0, 0, 0xa5, 0x37],
    &[11],
    &[12],
    &[15, 0, 10, 0, 10, 2, 0xcd, 1],
    &[16, 0, 10, 0, 2, 4, 0, 1, 0, 2],
    &[17],
    &[20, 14, 6, 0, 4, 0, 1, 0, 2, 6, 0, 3, 0, 9, 0, 2],
    &[21, 13, 6, 0, 4, 0, 7, 0, 3, 6, 0xaf, 4, 0xbe, 0x10, 0x0d],
    &[22, 0, 10, 0, 0xf2, 0, 0x25],
    &[23, 0, 3, 0, 6, 0, 14, 0, 1, 2, 0, 0xff],
    &[24, 0, 10],
    &[43, 14, 1, 0],
];

#[test]
fn a_request_that_is_too_short_or_too_long_is_malformed() {
    for pdu in WELL_FORMED {
        assert!(parse(1, pdu).is_ok(), "{pdu:?}");
        // With nothing behind the function code, functions without data are whole.
        let least = if pdu.len() == 1 { 1 } else { 0 };
        for length in least..pdu.len() {
            assert!(
                is_malformed(&pdu[..length]) || length == pdu.len(),
                "{pdu:?} cut to {length}"
            );
        }
        let mut longer = pdu.to_vec();
        longer.push(0);
        // Diagnostics take any even number of bytes.
        assert!(is_malformed(&longer), "{pdu:?} and a byte more");
    }
    assert!(is_malformed(&[]));
}

#[test]
fn codes_that_are_no_request_are_malformed() {
    for function in [0, 0x80, 0x83, 0xff] {
        assert!(is_malformed(&[function, 0, 0, 0, 1]), "{function}");
    }
}

#[test]
fn numbers_of_bytes_that_contradict_the_quantity_are_malformed() {
    for pdu in [
        &[16, 0, 10, 0, 2, 2, 0, 1][..],
        &[16, 0, 10, 0, 1, 4, 0, 1, 0, 2],
        &[16, 0, 10, 0, 2, 5, 0, 1, 0, 2],
        &[15, 0, 10, 0, 8, 2, 0, 0],
        &[15, 0, 10, 0, 9, 1, 0],
        &[23, 0, 3, 0, 6, 0, 14, 0, 1, 4, 0, 0xff, 0, 0],
        // The reading half is out of bounds as well: malformed goes first.
        &[23, 0, 3, 0, 0, 0, 14, 0, 1, 2, 0],
        &[20, 8, 6, 0, 4, 0, 1, 0, 2, 6],
        &[20, 0],
        &[21, 9, 6, 0, 4, 0, 7, 0, 2, 0, 0],
        &[21, 0],
    ] {
        assert!(is_malformed(pdu), "{pdu:?}");
    }
}

#[test]
fn quantities_and_values_out_of_bounds_are_illegal() {
    for pdu in [
        &[1, 0, 0, 0, 0][..],
        &[1, 0, 0, 0x07, 0xd1],
        &[3, 0, 0, 0, 126],
        &[5, 0, 0, 0, 1],
        &[15, 0, 0, 0, 0, 0],
        &[16, 0, 0, 0, 0, 0],
        &[23, 0, 0, 0, 126, 0, 0, 0, 1, 2, 0, 0],
        &[43, 14, 5, 0],
        &[43, 14, 0, 0],
    ] {
        assert_eq!(illegal(pdu), Some(Exception::IllegalValue), "{pdu:?}");
    }
}

#[test]
fn a_range_past_the_last_address_is_illegal() {
    for pdu in [
        &[3, 0xff, 0xff, 0, 2][..],
        &[16, 0xff, 0xff, 0, 2, 4, 0, 1, 0, 2],
        &[23, 0, 0, 0, 1, 0xff, 0xff, 0, 2, 4, 0, 0, 0, 0],
        // Reference type, file 0, record 10000.
        &[20, 7, 5, 0, 4, 0, 1, 0, 2],
        &[20, 7, 6, 0, 0, 0, 1, 0, 2],
        &[21, 9, 6, 0, 1, 0x27, 0x10, 0, 1, 0, 0],
    ] {
        assert_eq!(illegal(pdu), Some(Exception::IllegalAddress), "{pdu:?}");
    }
}

#[test]
fn a_request_touches_the_addresses_that_it_names() {
    let cases = [
        (&[1, 0, 10, 0x07, 0xd0][..], [(10, 2009); 2]),
        (&[3, 0xff, 0xff, 0, 1], [(65535, 65535); 2]),
        (&[5, 0, 10, 0, 0], [(10, 10); 2]),
        (&[6, 1, 0, 0, 0], [(256, 256); 2]),
        (&[15, 0, 10, 0, 10, 2, 0xcd, 1], [(10, 19); 2]),
        (&[16, 0, 10, 0, 2, 4, 0, 1, 0, 2], [(10, 11); 2]),
        (&[22, 0, 10, 0, 0, 0, 0], [(10, 10); 2]),
        (
            &[23, 0, 3, 0, 6, 0, 14, 0, 1, 2, 0, 0xff],
            [(3, 8), (14, 14)],
        ),
        (&[24, 0, 10], [(10, 41); 2]),
        (&[24, 0xff, 0xff], [(65535, 65535); 2]),
    ];
    for (pdu, addresses) in cases {
        assert_eq!(touched(pdu), Some(addresses), "{pdu:?}");
    }
}

#[test]
fn where_addresses_are_none_or_unknown_none_are_said() {
    for function in
        (1..0x80).filter(|function| !matches!(function, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43))
    {
        assert_eq!(touched(&[function, 1, 2, 3]), None, "{function}");
    }
    for pdu in [
        &[7][..],
        &[8, 0, 1, 0, 0],
        &[43, 13, 1, 2, 3],
        &[43, 14, 4, 9],
    ] {
        assert_eq!(touched(pdu), None, "{pdu:?}");
    }
}
