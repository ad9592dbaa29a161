//! Packets of networks behind a node, rewritten both ways.

use edgeward_tunnel::translate::{Checksum, HEADROOM_BYTES, Network, Translated, Translations};

/// A network under addresses of its own family and one under those of the other, and a peer with both.
fn all() -> Option<Translations> {
    let net = |seen: &str, real: &str| {
        Some(Network {
            seen: seen.parse().ok()?,
            real: real.parse().ok()?,
        })
    };
    let networks = [
        net("fd7a:1::c0a8:100/120", "192.168.1.0/24"),
        net("10.7.3.0/24", "192.168.3.0/24"),
        net("fd7a:2::/120", "fd01::/120"),
    ];
    let people = [("fd00:aa::5".parse().ok()?, "100.64.0.5".parse().ok()?)];
    Translations::new(networks.into_iter().flatten(), people)
}

/// Whatever comes is left alone, refused, or stands inside of the buffer afterwards; a rewritten packet is one again.
pub fn packet(bytes: &[u8]) {
    let Some(all) = all() else { return };
    let mut buffer = vec![0; HEADROOM_BYTES];
    buffer.extend(bytes);
    let at = HEADROOM_BYTES..buffer.len();
    for checksum in [Checksum::Complete, Checksum::Partial] {
        let mut copy = buffer.clone();
        if let Ok(Translated::At(out)) = all.outward(&mut copy, at.clone(), checksum) {
            let packet = copy.get(out).expect("inside of the buffer");
            assert!(packet.len() <= bytes.len() + HEADROOM_BYTES);
            assert!(matches!(
                packet.first().map(|first| first >> 4),
                Some(4 | 6)
            ));
        }
    }
    if let Ok(Translated::At(out)) = all.inward(&mut buffer, at) {
        let packet = buffer.get(out).expect("inside of the buffer");
        assert!(packet.len() <= bytes.len());
    }
}

/// TCP from the network and towards it, in both families.
pub fn packets() -> Vec<Vec<u8>> {
    let tcp = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ];
    let v4 = |source: [u8; 4], destination: [u8; 4]| {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend(source);
        packet.extend(destination);
        packet.extend(tcp);
        packet
    };
    let mut v6 = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    v6.extend([0xfd, 0, 0, 0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    v6.extend([
        0xfd, 0x7a, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xa8, 1, 0x11,
    ]);
    v6.extend(tcp);
    vec![
        v4([192, 168, 1, 17], [100, 64, 0, 5]),
        v4([192, 168, 3, 17], [100, 64, 0, 5]),
        v4([100, 64, 0, 5], [10, 7, 3, 17]),
        v6,
    ]
}
