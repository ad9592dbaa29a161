use std::collections::HashMap;

use edgeward_identity::SpkiHash;
use edgeward_identity::testing::TestAuthority;
use edgeward_wire::ext_authz::attribute_context::Request;
use edgeward_wire::ext_authz::envoy::config::core::v3 as core;

use super::*;

const NODE: &str = "spiffe://plant.example/node/b";

/// A question of which everything is clear.
fn clear() -> AttributeContext {
    AttributeContext {
        source: Some(Peer {
            address: None,
            principal: NODE.to_owned(),
            certificate: String::new(),
        }),
        request: Some(Request {
            http: Some(HttpRequest {
                method: "GET".to_owned(),
                path: "/status/a%20b?x=/../y".to_owned(),
            }),
        }),
        context_extensions: HashMap::from([
            (SERVICE.to_owned(), "line3".to_owned()),
            (INTERFACE.to_owned(), "web".to_owned()),
        ]),
    }
}

fn read(change: impl FnOnce(&mut AttributeContext)) -> Result<Question, Unclear> {
    let mut attributes = clear();
    change(&mut attributes);
    Question::read(&CheckRequest {
        attributes: Some(attributes),
    })
}

fn source(attributes: &mut AttributeContext) -> &mut Peer {
    attributes.source.as_mut().unwrap()
}

fn http(attributes: &mut AttributeContext) -> &mut HttpRequest {
    attributes.request.as_mut().unwrap().http.as_mut().unwrap()
}

/// As Envoy writes it.
fn percent(pem: &str) -> String {
    pem.bytes()
        .map(|byte| match byte {
            b'-' | b' ' | b'\n' | b'+' | b'/' | b'=' => format!("%{byte:02X}"),
            byte => char::from(byte).to_string(),
        })
        .collect()
}

/// Of a node of the trust domain: `node/b`.
fn certificate(id: &str) -> (String, SpkiHash) {
    let authority = TestAuthority::new("plant.example");
    let svid = authority.svid(id);
    let der = svid.chain().first().unwrap().to_vec();
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", der));
    (percent(&pem), svid.leaf().key.spki_hash())
}

#[test]
fn a_question_that_leaves_something_out_is_unclear() {
    type Spoil = fn(&mut AttributeContext);
    let empty = CheckRequest { attributes: None };
    assert_eq!(Question::read(&empty).unwrap_err(), Unclear::Attributes);
    let cases: [(Spoil, Unclear); 5] = [
        (|a| a.source = None, Unclear::Principal),
        (|a| source(a).principal.clear(), Unclear::Principal),
        (|a| a.context_extensions.clear(), Unclear::Interface),
        (
            |a| drop(a.context_extensions.remove(INTERFACE)),
            Unclear::Interface,
        ),
        (
            |a| {
                drop(
                    a.context_extensions
                        .insert(SERVICE.to_owned(), String::new()),
                )
            },
            Unclear::Interface,
        ),
    ];
    for (change, unclear) in cases {
        assert_eq!(read(change).unwrap_err(), unclear);
    }
}

#[test]
fn a_principal_is_a_node_an_operator_or_a_device() {
    for principal in [
        "CN=b,O=plant",
        "b.plant.example",
        "spiffe://plant.example/node/b/../c",
        "spiffe://plant.example/",
        "spiffe://plant.example/node/b,spiffe://plant.example/node/c",
    ] {
        let unclear = read(|a| source(a).principal = principal.to_owned()).unwrap_err();
        assert_eq!(unclear, Unclear::Principal, "{principal}");
    }
    for principal in [
        "spiffe://plant.example/workload/acme/collector",
        "spiffe://plant.example/cloud/ca",
    ] {
        let unclear = read(|a| source(a).principal = principal.to_owned()).unwrap_err();
        assert_eq!(unclear, Unclear::Kind, "{principal}");
    }
}

#[test]
fn a_certificate_is_an_svid_of_the_principal() {
    let (other, _) = certificate("node/c");
    for wrong in [other.as_str(), "%2D%2D", "%", "%zz", "x"] {
        let unclear = read(|a| source(a).certificate = wrong.to_owned()).unwrap_err();
        assert_eq!(unclear, Unclear::Certificate, "{wrong:.20}");
    }
    let (own, spki) = certificate("node/b");
    for principal in [NODE, ""] {
        let question = read(|a| {
            source(a).principal = principal.to_owned();
            source(a).certificate = own.clone();
        });
        let node = Who::Node {
            id: NODE.parse().unwrap(),
            spki: Some(spki),
        };
        assert_eq!(question.unwrap().who, node);
    }
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_unclear() {
    for path in [
        "",
        "*",
        "status",
        "/a/../b",
        "/a//b",
        "/%2e%2e/b",
        "/a%2fb",
        "/a\\b",
        "/a;b",
        "/a#b",
    ] {
        let unclear = read(|a| http(a).path = path.to_owned()).unwrap_err();
        assert!(matches!(unclear, Unclear::Path(_)), "{path}");
    }
    let question = read(|_| {}).unwrap();
    assert_eq!(question.http.unwrap().path.decoded(), "/status/a b");
}

#[test]
fn a_method_is_one_of_http() {
    let long = "A".repeat(MAX_METHOD_BYTES + 1);
    for method in ["", "get", "GET /", "CONNECT", long.as_str()] {
        let unclear = read(|a| http(a).method = method.to_owned()).unwrap_err();
        assert_eq!(unclear, Unclear::Method, "{method}");
    }
}

#[test]
fn an_address_is_for_the_records_only() {
    let with = |address: &str| {
        read(|a| {
            source(a).address = Some(core::Address {
                address: Some(Address::SocketAddress(core::SocketAddress {
                    address: address.to_owned(),
                })),
            });
        })
        .unwrap()
        .source
    };
    assert_eq!(with("fd00::1"), "fd00::1".parse::<IpAddr>().unwrap());
    assert_eq!(with("proxy"), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}
