use super::*;

#[test]
fn garbage_is_malformed() {
    assert_eq!(SvidLeaf::parse(&[]), Err(SvidError::Malformed));
    assert_eq!(
        SvidLeaf::parse(&[0x30, 0x82, 0xff, 0xff]),
        Err(SvidError::Malformed)
    );
    assert_eq!(
        SvidLeaf::parse(&vec![0; MAX_CERTIFICATE_BYTES + 1]),
        Err(SvidError::TooLarge)
    );
}
