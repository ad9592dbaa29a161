use super::*;

mod abuse;
mod net;
mod ways;

#[test]
fn addresses_that_nobody_can_be_at_are_not_tried() {
    for address in [
        "0.0.0.0:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
        "192.0.2.1:0",
        "[::]:1",
        "[ff02::1]:1",
        "[::ffff:224.0.0.1]:1",
        "[100::1]:6",
    ] {
        assert!(!is_plausible(&address.parse().unwrap()), "{address}");
    }
    assert!(is_plausible(&"192.0.2.1:1".parse().unwrap()));
    assert!(is_plausible(&"[2001:db8::1]:1".parse().unwrap()));
}

#[test]
fn detours_have_addresses_that_no_network_has() {
    assert!(is_detour(&"[100::1]:6".parse().unwrap()));
    assert!(is_detour(&"[100::ffff:1:2:3]:9".parse().unwrap()));
    assert!(!is_detour(&"[100:0:0:1::1]:6".parse().unwrap()));
    assert!(!is_detour(&"1.0.0.1:6".parse().unwrap()));
}
