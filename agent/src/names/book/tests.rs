use super::*;
use crate::names::testing::{Scene, device, reach};

fn find(book: &Book, name: &str) -> Found {
    book.find(&wire_name(name).unwrap())
}

fn zone() -> Zone {
    Zone(wire_name("plant.example").unwrap())
}

#[test]
fn a_peer_that_may_only_come_in_has_no_name_here_nor_has_its_address() {
    let scene = Scene::new(&["b", "c"]);
    let book = scene.book();
    assert_eq!(find(&book, "b.plant.example"), Found::Nothing(zone()));
    let reverse = Name::<Vec<u8>>::reverse_from_addr(scene.peer(0).v6.into()).unwrap();
    assert!(matches!(book.find(&reverse), Found::Nothing(_)));
    assert_eq!(book.len(), 1);
}

#[test]
fn without_a_policy_that_holds_only_the_nodes_own_name_is_known() {
    let scene = Scene::new(&["b"]).with(reach(0));
    let book = Book::new(&scene.node(), scene.overlay(), None, &[]).unwrap();
    assert_eq!(find(&book, "b.plant.example"), Found::NotKnown);
    let overlay = scene.overlay();
    let (v4, v6) = (overlay.v4, Some(overlay.v6));
    assert_eq!(find(&book, "a.plant.example"), Found::Addresses { v4, v6 });
    let b = Name::<Vec<u8>>::reverse_from_addr(scene.peer(0).v6.into()).unwrap();
    assert_eq!(book.find(&b), Found::NotKnown);
}

#[test]
fn two_names_that_dns_cannot_tell_apart_belong_to_nobody() {
    let scene = Scene::new(&["gw", "GW", "a", "A"])
        .with(reach(0))
        .with(reach(1))
        .with(reach(3));
    let book = scene.book();
    assert_eq!(find(&book, "gw.plant.example"), Found::Nothing(zone()));
    let reverse = Name::<Vec<u8>>::reverse_from_addr(scene.peer(0).v6.into()).unwrap();
    assert!(matches!(book.find(&reverse), Found::Nothing(_)));
    // Whatever others are called, this node is itself.
    let own = scene.overlay();
    let (v4, v6) = (own.v4, Some(own.v6));
    assert_eq!(find(&book, "a.plant.example"), Found::Addresses { v4, v6 });
    assert_eq!((book.len(), book.ambiguous()), (1, 1));
}

#[test]
fn a_name_that_could_be_read_as_another_is_left_out() {
    let scene = Scene::new(&["x.y", "b"]).with(reach(0)).with(reach(1));
    let book = scene.book();
    assert_eq!(find(&book, "x.y.plant.example"), Found::Nothing(zone()));
    // One label with a dot in it is not two.
    let odd = Name::<Vec<u8>>::from_octets(b"\x03a.b\x05plant\x07example\0".to_vec()).unwrap();
    assert_eq!(book.find(&odd), Found::Nothing(zone()));
    let reached = Name::<Vec<u8>>::from_octets(b"\x01b\x05plant\x07example\0".to_vec()).unwrap();
    assert!(matches!(book.find(&reached), Found::Addresses { .. }));
}

#[test]
fn the_clouds_own_host_is_left_to_the_world_even_where_a_node_is_called_so() {
    let scene = Scene::new(&["cloud"]).with(reach(0));
    let hosts = ["Cloud.plant.example".to_owned(), "192.0.2.1".to_owned()];
    let slice = scene.slice();
    let book = Book::new(&scene.node(), scene.overlay(), Some(&slice), &hosts).unwrap();
    assert_eq!(find(&book, "cloud.plant.example"), Found::Cloud);
    assert_eq!(find(&book, "other.plant.example"), Found::Nothing(zone()));
}

#[test]
fn other_zones_are_foreign_however_close() {
    let book = Scene::new(&["b"]).with(reach(0)).book();
    for name in [
        "example",
        "plant.example.com",
        "bplant.example",
        "1.0.0.127.in-addr.arpa",
        "1.0.63.100.in-addr.arpa",
        "1.0.128.100.in-addr.arpa",
        "8.b.d.0.1.0.0.2.ip6.arpa",
        "arpa",
    ] {
        assert_eq!(find(&book, name), Found::Foreign, "{name}");
    }
}

#[test]
fn between_our_zones_and_a_whole_address_nothing_tells_what_is_below() {
    let scene = Scene::new(&["b"]).with(reach(0));
    let book = scene.book();
    let whole = Name::<Vec<u8>>::reverse_from_addr(scene.peer(0).v6.into()).unwrap();
    let mut name: WireName = whole.clone();
    while name.label_count() > book.zones()[1].label_count() {
        name = Name::from_octets(name.parent().unwrap().as_slice().to_vec()).unwrap();
        assert!(matches!(book.find(&name), Found::Bare(_)), "{name}");
    }
    let elsewhere = wire_name(&format!("f.{name}")).unwrap();
    assert!(matches!(book.find(&elsewhere), Found::Bare(_)));
    for strange in ["01.0.64.100.in-addr.arpa", "300.0.64.100.in-addr.arpa"] {
        assert!(matches!(find(&book, strange), Found::Nothing(_)));
    }
    assert!(matches!(find(&book, "64.100.in-addr.arpa"), Found::Bare(_)));
}

#[test]
fn who_may_be_reached_has_a_name_both_ways_in_any_case() {
    let scene = Scene::new(&["b", "GW-3"]).with(reach(0)).with(reach(1));
    let book = scene.book();
    let peer = scene.peer(1);
    let (v4, v6) = (peer.v4, Some(peer.v6));
    assert_eq!(
        find(&book, "gw-3.plant.example"),
        Found::Addresses { v4, v6 }
    );
    let to = wire_name("gw-3.plant.example").unwrap();
    for address in [IpAddr::V6(peer.v6), IpAddr::V4(peer.v4.unwrap())] {
        let reverse = Name::<Vec<u8>>::reverse_from_addr(address).unwrap();
        assert_eq!(book.find(&reverse), Found::Pointer(to.clone()));
    }
}

#[test]
fn devices_stand_below_their_node_by_the_address_that_this_node_reaches() {
    let scene = Scene::new(&["b"])
        .with(device(0, "plc-17", "10.7.3.17"))
        .with_own_device("plc-1", Some("192.168.1.17"))
        .with_own_device("sensor", None);
    let book = scene.book();
    let v4 = |text: &str| Found::Addresses {
        v4: Some(text.parse().unwrap()),
        v6: None,
    };
    assert_eq!(find(&book, "plc-17.b.plant.example"), v4("10.7.3.17"));
    assert_eq!(find(&book, "plc-1.a.plant.example"), v4("192.168.1.17"));
    // Known, but by no address that policy names.
    assert_eq!(find(&book, "sensor.a.plant.example"), Found::Bare(zone()));
    // The node behind which it stands may not be reached itself.
    assert_eq!(find(&book, "b.plant.example"), Found::Bare(zone()));
    assert_eq!(find(&book, "plc-17.plant.example"), Found::Nothing(zone()));
    assert_eq!(
        find(&book, "plc-18.b.plant.example"),
        Found::Nothing(zone())
    );
    let reverse = wire_name("17.3.7.10.in-addr.arpa").unwrap();
    let to = wire_name("plc-17.b.plant.example").unwrap();
    assert_eq!(book.find(&reverse), Found::Pointer(to));
}
