//! Targets for the texts inside policy files and slices: patterns and requests of protocols, addresses of devices.

use edgeward_policy::l7::{BadPattern, Patterns, http, modbus, mqtt};
use edgeward_policy::source::SourceFile;
use edgeward_policy::{CompiledPolicy, Fleet, FleetNode, L7, Mac, Slice, WrittenRequest};

/// A pattern that is read prints as what reads as the same; a request is sorted without harm. The first line is the
/// pattern, the second the request.
pub fn l7(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (pattern, request) = text.split_once('\n').unwrap_or((text, text));
    let all = [
        of(pattern, L7::Http),
        of::<mqtt::Pattern>(pattern, L7::Mqtt),
        of::<modbus::Pattern>(pattern, L7::Modbus),
    ];
    let plain = [
        L7::Http(Vec::<Patterns<http::Pattern>>::new()),
        L7::Mqtt(Vec::new()),
        L7::Modbus(Vec::new()),
    ];
    for l7 in all.into_iter().flatten().chain(plain) {
        if let Ok(request) = WrittenRequest::parse(&l7, request) {
            let actions = l7.actions_of(&request.as_request());
            assert!(actions.iter().all(|action| action.0 == 0));
        }
    }
}

fn of<P>(text: &str, make: impl Fn(Vec<Patterns<P>>) -> L7) -> Option<L7>
where
    P: std::str::FromStr<Err = BadPattern> + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    let pattern: P = text.parse().ok()?;
    assert_eq!(pattern.to_string().parse::<P>().as_ref(), Ok(&pattern));
    Some(make(vec![Patterns {
        action: "do".to_owned(),
        any_of: vec![pattern],
    }]))
}

pub fn l7_texts() -> Vec<Vec<u8>> {
    [
        "GET /status/**\nGET /status/a/b",
        "* /a/*/c\nPOST /a/b/c",
        "publish line3/+/temp\npublish line3/a/temp",
        "subscribe cmd/line3/#\nsubscribe cmd/line3/+",
        "fc:5,6,15-16 addr:0-99,200 unit:1\nfc:16 addr:10-12 unit:1",
        "fc:23 addr:1-9\nfc:23 addr:1-2,5",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn mac(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(mac) = text.parse::<Mac>()
    {
        assert_eq!(mac.to_string(), text.to_ascii_lowercase());
    }
}

pub fn macs() -> Vec<Vec<u8>> {
    vec![b"02:00:00:00:00:11".to_vec(), b"02-00-00-00-00-11".to_vec()]
}

/// What parses holds every bound, and is said the same way again.
pub fn slice(bytes: &[u8]) {
    if let Ok(slice) = Slice::parse(bytes) {
        assert_eq!(Slice::parse(&slice.to_json()).ok(), Some(slice));
    }
}

/// A gateway of the sample line: devices, actions of every protocol, approvals and break-glass are in it.
pub fn slices() -> Vec<Vec<u8>> {
    let files = factory().map(|(name, text)| SourceFile::new(name, text));
    let policy = CompiledPolicy::compile(&files, 1).unwrap();
    let node = |name: &str, role: &str| FleetNode {
        id: format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap(),
        labels: [("plant", "suzhou"), ("line", "3"), ("role", role)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        tier: edgeward_identity::Tier::Hardware,
        v4: None,
    };
    let fleet = Fleet {
        nodes: vec![node("gw-3", "gateway"), node("scada-1", "scada")],
    };
    let end = edgeward_identity::Timestamp::from_secs(2_000_000_000);
    let slice = policy.slice(&fleet.nodes[0].id, &fleet, end).unwrap();
    assert!(!slice.devices.is_empty() && !slice.break_glass.is_empty());
    vec![slice.to_json()]
}

/// The sample line, which has every construct that is enforced.
pub fn files() -> Vec<Vec<u8>> {
    factory().map(|(_, text)| text.as_bytes().to_vec()).to_vec()
}

fn factory() -> [(&'static str, &'static str); 2] {
    [
        (
            "plant.toml",
            include_str!("../../deploy/policies/factory/plant.toml"),
        ),
        (
            "line3.toml",
            include_str!("../../deploy/policies/factory/line3.toml"),
        ),
    ]
}
