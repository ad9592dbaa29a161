use edgeward_audit::Digest;
use edgeward_audit::block::{PartWriter, Places};
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::merkle::{leaf_hash, root};
use edgeward_audit::note::NoteSigner;
use edgeward_audit::record::{BootId, BootOpened, Chain, Salt};
use edgeward_audit::segment::SegmentBlock;
use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};

use super::*;
use crate::keys::sites::Site;

const ORIGIN: &str = "plant.example/audit";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// One block: even places are of one site, odd ones of another.
fn made(keys: &SiteKeys) -> (Segment, NoteSigner) {
    let domain = TrustDomain::new("plant.example").unwrap();
    let node = SpiffeId::new(&domain, Kind::Node, "gw-3").unwrap();
    let mut chain = Chain::new(node, BootId::from_bytes([1; 16]));
    let opened = BootOpened {
        previous: None,
        reset_count: None,
        restart_count: None,
    };
    let (mut entries, mut parts): (Vec<Digest>, Vec<SegmentPart>) = (Vec::new(), Vec::new());
    let mut writers = [PartWriter::new(), PartWriter::new()];
    for place in 0..=u8::MAX {
        let kind = match place {
            0 => EventKind::JournalOpened,
            _ => EventKind::FlowDenied,
        };
        let event = Event::new(NOW, Actor::Cloud, kind);
        let salt = Salt::from_bytes([place; 16]);
        let record = match place {
            0 => chain.seal_opening(opened.clone(), event, salt).unwrap(),
            _ => chain.seal(event, salt).unwrap(),
        };
        chain.advance(&record).unwrap();
        entries.push(record.hash());
        writers[usize::from(place % 2)]
            .push(place, NOW, &record)
            .unwrap();
    }
    for (site, writer) in ["even", "odd"].into_iter().zip(writers) {
        let id = keys.current(&Site::parse(site).unwrap()).unwrap();
        let part = writer.finish().unwrap();
        let seal = |sealed: Sealed, plain: &[u8]| keys.seal(id, &sealed.context(), plain).unwrap();
        let places: Places = (0..=u8::MAX)
            .filter(|place| (place % 2 == 1) == (site == "odd"))
            .collect();
        parts.push(SegmentPart {
            site_key: id.get(),
            places,
            columns: seal(Sealed::Columns(0), &part.columns),
            bodies: seal(Sealed::Bodies(0), &part.bodies),
        });
    }
    parts.sort_by_key(|part| part.site_key);
    let hashes: Vec<Digest> = entries
        .iter()
        .map(|entry| leaf_hash(entry.as_bytes()))
        .collect();
    let signer = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 256,
        root: root(hashes.as_slice(), 256).unwrap(),
    };
    let segment = Segment {
        origin: ORIGIN.to_owned(),
        first: 0,
        checkpoint: checkpoint.sign(&signer).unwrap().to_string(),
        proof: Vec::new(),
        entries,
        blocks: vec![SegmentBlock {
            earliest: 1,
            latest: 2,
            parts,
        }],
    };
    (segment, signer)
}

#[test]
fn records_of_an_erased_site_of_other_keys_or_of_another_log_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let above = folder.path().join("sites");
    let keys = SiteKeys::open(&above).unwrap();
    let (segment, signer) = made(&keys);
    segment.verify(ORIGIN, signer.verifier()).unwrap();
    let path = Path::new("a.segment");
    let reader = SiteKeys::open_existing(&above).unwrap();
    assert_eq!(
        records_of(path, &segment, 0, &reader)
            .unwrap()
            .records
            .len(),
        256
    );
    let mut other = segment.clone();
    other.entries.swap(3, 4);
    assert!(matches!(
        records_of(path, &other, 0, &reader),
        Err(Failure::Unsound(_))
    ));
    let mut moved = segment.clone();
    moved.first = 256;
    assert!(matches!(
        records_of(path, &moved, 0, &reader),
        Err(Failure::Unsound(_))
    ));
    assert!(matches!(
        records_of(path, &segment, 0, &SiteKeys::temporary()),
        Err(Failure::NoAnswer(_))
    ));
    keys.erase(&Site::parse("odd").unwrap(), NOW).unwrap();
    let reader = SiteKeys::open_existing(&above).unwrap();
    let found = records_of(path, &segment, 0, &reader).unwrap();
    assert_eq!((found.records.len(), found.erased), (128, 128));
    assert!(found.records.keys().all(|index| index % 2 == 0));
    segment.verify(ORIGIN, signer.verifier()).unwrap();
}
