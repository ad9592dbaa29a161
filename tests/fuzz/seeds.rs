//! Well-formed inputs for targets whose parsers stand in the libraries.

use edgeward_identity::jwt::{JwtBundle, JwtClaims};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Signer, SoftwareKey, TrustDomain};

pub fn bundles() -> Vec<Vec<u8>> {
    let authority = edgeward_identity::testing::TestAuthority::new("plant.example");
    vec![authority.bundle().to_spiffe_json()]
}

/// One token and the bundle that it is good by, made once.
pub fn jwt_seed() -> (Vec<u8>, JwtBundle) {
    static SEED: std::sync::OnceLock<(Vec<u8>, JwtBundle)> = std::sync::OnceLock::new();
    let made = SEED.get_or_init(|| {
        let key = SoftwareKey::generate().expect("the random source works");
        let domain = TrustDomain::new("plant.example").expect("a trust domain");
        let claims = JwtClaims {
            subject: "spiffe://plant.example/workload/a".parse().expect("an id"),
            audience: vec!["historian".to_owned()],
            issued: TEST_NOW,
            expires: TEST_NOW.plus(std::time::Duration::from_secs(300)),
            serial: "1".to_owned(),
        };
        let token = claims.sign(&key).expect("signed");
        let bundle = JwtBundle::new(domain, [*key.public_key()]);
        (token.into_bytes(), bundle)
    });
    made.clone()
}

pub fn jwt_tokens() -> Vec<Vec<u8>> {
    vec![jwt_seed().0]
}

pub fn jwt_bundles() -> Vec<Vec<u8>> {
    vec![jwt_seed().1.to_jwks()]
}

pub fn checkpoints() -> Vec<Vec<u8>> {
    vec![b"plant.example/log\n4\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_vec()]
}

/// Proofs whose checkpoint nobody signed: what reading them does not look at.
pub fn log_proofs() -> Vec<Vec<u8>> {
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let note = format!("plant.example/audit\n4\n{hash}\n\n\u{2014} plant.example/audit AAAAAAAA\n");
    vec![
        format!("c2sp.org/tlog-proof@v1\nindex 3\n{hash}\n{hash}\n\n{note}").into_bytes(),
        format!("c2sp.org/tlog-proof@v1\nextra e30=\nindex 0\n\n{note}").into_bytes(),
    ]
}

/// An export of an empty log, signed, and its end; and a line with an event.
pub fn export_lines() -> Vec<Vec<u8>> {
    use edgeward_audit::checkpoint::Checkpoint;
    use edgeward_audit::merkle::EMPTY_ROOT;
    use edgeward_audit::note::NoteSigner;
    use edgeward_audit::proven::{End, FORMAT, Header, Line, Proven};

    let origin = "plant.example/audit";
    let signed = NoteSigner::generate()
        .and_then(|key| NoteSigner::new(origin, &key))
        .ok()
        .and_then(|signer| {
            let checkpoint = Checkpoint {
                origin: origin.to_owned(),
                size: 0,
                root: EMPTY_ROOT,
            };
            let note = checkpoint.sign(&signer).ok()?;
            Some((signer.verifier().to_string(), note.to_string()))
        });
    let Some((log_key, checkpoint)) = signed else {
        return Vec::new();
    };
    let header = Line::Export(Header {
        format: FORMAT.to_owned(),
        origin: origin.to_owned(),
        log_key,
        checkpoint,
        filter: String::new(),
    });
    let event = Line::Event(Proven::new(0, "{}".to_owned(), &[EMPTY_ROOT]));
    let end = Line::End(End { events: 0 });
    let whole = |lines: &[&Line]| -> Vec<u8> {
        let lines: Vec<String> = lines.iter().map(|line| line.to_json()).collect();
        lines.join("\n").into_bytes()
    };
    vec![whole(&[&header, &end]), whole(&[&header, &event, &end])]
}

/// Where a page of coverage ended.
pub fn coverage_cursors() -> Vec<Vec<u8>> {
    use edgeward_audit::BootId;
    use edgeward_audit::query::CoverageCursor;

    let Ok(node) = "spiffe://plant.example/node/gw-3".parse() else {
        return Vec::new();
    };
    let boot = BootId::from_bytes([7; 16]);
    vec![CoverageCursor { node, boot }.to_string().into_bytes()]
}

/// A block of a log that nobody signed: what reading it does not look at.
pub fn segments() -> Vec<Vec<u8>> {
    use edgeward_audit::block::Places;
    use edgeward_audit::merkle::EMPTY_ROOT;
    use edgeward_audit::segment::{Segment, SegmentBlock, SegmentPart};

    let segment = Segment {
        origin: "plant.example/audit".to_owned(),
        first: 256,
        checkpoint: "plant.example/audit\n600\n".to_owned(),
        proof: vec![EMPTY_ROOT; 3],
        entries: vec![EMPTY_ROOT; 256],
        blocks: vec![SegmentBlock {
            earliest: 5,
            latest: 9,
            parts: vec![SegmentPart {
                site_key: 7,
                places: Places::ALL,
                columns: vec![1; 40],
                bodies: vec![2; 90],
            }],
        }],
    };
    segment.to_bytes().into_iter().collect()
}

pub fn packets() -> Vec<Vec<u8>> {
    let mut ipv4 = vec![
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2,
    ];
    ipv4.extend([
        0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0,
    ]);
    let mut ipv6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    ipv6.extend([0xfd; 32]);
    ipv6.extend([0x1f, 0x90, 0, 53, 0, 8, 0, 0]);
    vec![ipv4, ipv6]
}

pub fn policies() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/policies/quickstart");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .collect()
}

/// Where a journal ends, and what of one is gone, signed.
pub fn journal_statements() -> Vec<Vec<u8>> {
    use edgeward_audit::statement::{HeadStated, LossStated, Signed};
    use edgeward_audit::{BootId, Digest, Head};
    use edgeward_identity::SoftwareKey;

    let (Ok(node), Ok(key)) = (
        "spiffe://plant.example/node/a".parse(),
        SoftwareKey::generate(),
    ) else {
        return Vec::new();
    };
    let boot = BootId::from_bytes([1; 16]);
    let head = HeadStated {
        boot,
        head: Head {
            seq: 7,
            hash: Digest::of(&[b"record"]),
        },
        oldest: boot,
        answers: 3,
    };
    let loss = LossStated {
        boot,
        first_seq: 2,
        last_seq: 5,
    };
    let head = Signed::sign(head, &node, &key).map(|signed| signed.to_bytes());
    let loss = Signed::sign(loss, &node, &key).map(|signed| signed.to_bytes());
    head.into_iter().chain(loss).collect()
}
