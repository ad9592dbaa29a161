//! What one program of the agent hands to the next.

use edgeward_agent::enforce::handover::{FORMAT, Handed};
use edgeward_tunnel::filter::MovedFlows;

/// What is read is what was written.
pub fn flows(bytes: &[u8]) {
    if let Ok(flows) = MovedFlows::decode(bytes) {
        assert!(flows.encode() == bytes);
    }
}

/// What is read is written in a form that is read again.
pub fn handed(bytes: &[u8]) {
    if let Ok(handed) = Handed::parse(bytes) {
        let written = handed.write().unwrap();
        assert!(Handed::parse(&written).unwrap().paper == handed.paper);
    }
}

pub fn tables() -> Vec<Vec<u8>> {
    let rule = [&4u16.to_le_bytes()[..], b"a/b:"].concat();
    let flow = |family: u8, address: [u8; 16]| {
        [
            &7u64.to_le_bytes()[..],
            &0u32.to_le_bytes(),
            &[6, family],
            &address,
            &address,
            &[1, 2, 3, 4, 0b1_0111],
            &[9; 32],
        ]
        .concat()
    };
    let mut v4 = [0; 16];
    v4[12..].fill(10);
    let table = [
        &[1][..],
        &1u32.to_le_bytes(),
        &rule,
        &2u32.to_le_bytes(),
        &flow(4, v4),
        &flow(6, [0xfd; 16]),
    ];
    vec![MovedFlows::default().encode(), table.concat()]
}

pub fn states() -> Vec<Vec<u8>> {
    let paper = r#"{"version":"1.0.0","uid":0,"node":"spiffe://plant.example/node/a","v6":"fd00::a",
        "v4":"100.64.0.1","device":"edgeward0","mtu":1420,"listen":"[::]:51820","offload":true,"udp_offload":false,
        "table":null,"keys_since":5,"heard":{"at":1,"time":2,"lost_after":3},"online":true,"next_number":9,
        "numbers":{"7":"spiffe://plant.example/node/b"},"armed":[],"bound":[]}"#;
    let part = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap();
        [&length.to_le_bytes()[..], bytes].concat()
    };
    let state = |paper: &str| {
        [
            &b"edgeward tunnels"[..],
            &FORMAT.to_le_bytes(),
            &[1; 32],
            &part(paper.as_bytes()),
            &part(&MovedFlows::default().encode()),
            &0u32.to_le_bytes(),
        ]
        .concat()
    };
    let sound = state(paper);
    assert!(Handed::parse(&sound).is_ok(), "a seed that is no seed");
    vec![sound, state("{}")]
}
