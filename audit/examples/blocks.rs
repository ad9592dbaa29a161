//! What an event costs in a block: `cargo run --release -p edgeward-audit --example blocks`.
#![expect(clippy::print_stdout, reason = "its output is the point")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use edgeward_audit::block::{
    BLOCK_LEAVES, BlockTerms, Bodies, Columns, EncodedPart, PartWriter, TermKey,
};
use edgeward_audit::query::Filter;
use edgeward_audit::record::{BootOpened, Chain, Salts};
use edgeward_audit::{BootId, Event, EventKind, SealedRecord, Verdict};
use edgeward_identity::{SpiffeId, Timestamp};

const BLOCKS: usize = 400;
const T0: u64 = 1_795_000_000_000;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    for (what, nodes, batch) in [
        ("one node", 1, 256),
        ("8 nodes, batches of 50", 8, 50),
        ("1,000 nodes, batches of 200", 1000, 200),
        ("1,000 nodes, batches of 4", 1000, 4),
    ] {
        let records = records(nodes, batch, BLOCKS * usize::try_from(BLOCK_LEAVES)?)?;
        measure(what, &records)?;
    }
    Ok(())
}

fn measure(what: &str, records: &[SealedRecord]) -> Result<(), Box<dyn Error>> {
    let key = TermKey::from_bytes([1; 32]);
    let blocks = records.chunks(usize::try_from(BLOCK_LEAVES)?);
    let begun = Instant::now();
    let parts = blocks.clone().map(encoded).collect::<Result<Vec<_>, _>>()?;
    let encode = begun.elapsed();

    let (begun, mut terms, mut places) = (Instant::now(), 0, 0);
    for block in blocks.clone() {
        let mut index = BlockTerms::new();
        (0..=u8::MAX)
            .zip(block)
            .for_each(|(place, sealed)| index.add(place, sealed.record()));
        let found = index.finish(&key);
        terms += found.len();
        places += found
            .values()
            .map(|places| places.to_bytes().len())
            .sum::<usize>();
    }
    let hash = begun.elapsed();

    let filter = Filter {
        verdict: Some(Verdict::Deny),
        ..Filter::default()
    };
    let (begun, mut found) = (Instant::now(), 0);
    for part in &parts {
        found += Columns::parse(&part.columns)?.asked(&filter).count();
    }
    let columns = begun.elapsed();
    let begun = Instant::now();
    for part in &parts {
        black_box(Bodies::parse(&part.bodies)?.record(0));
    }
    let bodies = begun.elapsed();
    let begun = Instant::now();
    for sealed in records {
        black_box(SealedRecord::parse(sealed.bytes())?);
    }
    let parsed = begun.elapsed();

    let count = records.len();
    let each = |took: Duration| took.as_nanos() / u128::try_from(count).unwrap_or(1);
    let plain: usize = records.iter().map(|sealed| sealed.bytes().len()).sum();
    let sum = |of: fn(&EncodedPart) -> usize| parts.iter().map(of).sum::<usize>();
    println!("{what}: {count} records of {} bytes", plain / count);
    println!(
        "  bytes an event: columns {:.1}, bodies {:.1}, terms {:.1} ({} of a block)",
        ratio(sum(|part| part.columns.len()), count),
        ratio(sum(|part| part.bodies.len()), count),
        // A term and the number of its block, beside the places.
        ratio(places + terms * 16, count),
        terms / BLOCKS,
    );
    println!(
        "  ns an event: encode {}, terms {}, read and filter columns {}, read bodies {}; parse a record {}; found {found}",
        each(encode),
        each(hash),
        each(columns),
        each(bodies),
        each(parsed),
    );
    Ok(())
}

fn encoded(block: &[SealedRecord]) -> Result<EncodedPart, edgeward_audit::block::BlockError> {
    let mut writer = PartWriter::new();
    for (place, sealed) in (0..=u8::MAX).zip(block) {
        writer.push(place, sealed.event().time, sealed)?;
    }
    writer.finish()
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn ratio(bytes: usize, count: usize) -> f64 {
    bytes as f64 / count as f64
}

fn node(number: u64) -> Result<SpiffeId, Box<dyn Error>> {
    Ok(format!("spiffe://plant.example/node/gw-{number}").parse()?)
}

/// Batches of one node after the other.
fn records(nodes: u64, batch: usize, count: usize) -> Result<Vec<SealedRecord>, Box<dyn Error>> {
    let mut numbers = Numbers(1);
    let mut salts = Salts::from_seed([1; 32]);
    let mut chains = Vec::new();
    for number in 0..nodes {
        let mut boot = [1; 16];
        boot[..8].copy_from_slice(
            &(number + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        );
        chains.push(Chain::new(node(number)?, BootId::from_bytes(boot)));
    }
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        let number = usize::try_from(numbers.below(nodes))?;
        let chain = chains.get_mut(number).ok_or("a chain")?;
        for _ in 0..batch.min(count - records.len()) {
            let time = Timestamp::from_millis(
                T0 + u64::try_from(records.len())? * 20 + numbers.below(900),
            );
            let sealed = match chain.head() {
                Some(_) => {
                    let event = event(&mut numbers, time, chain.node())?;
                    chain.seal(event, salts.draw())?
                }
                None => opening(chain, time, &mut salts)?,
            };
            chain.advance(&sealed)?;
            records.push(sealed);
        }
    }
    Ok(records)
}

fn opening(
    chain: &Chain,
    time: Timestamp,
    salts: &mut Salts,
) -> Result<SealedRecord, Box<dyn Error>> {
    let opened = BootOpened {
        previous: None,
        reset_count: Some(1),
        restart_count: Some(0),
    };
    let event = Event::new(time, chain.node().clone(), EventKind::JournalOpened);
    Ok(chain.seal_opening(opened, event, salts.draw())?)
}

/// Seven of ten are flows that were denied; the rest is what a node does.
fn event(numbers: &mut Numbers, time: Timestamp, node: &SpiffeId) -> Result<Event, Box<dyn Error>> {
    let peer = self::node(numbers.below(1000))?;
    Ok(match numbers.below(10) {
        0..7 => Event::new(time, peer, EventKind::FlowDenied)
            .subject(node.clone())
            .rule(&format!("plant/press-{}:read", numbers.below(20)))
            .denied("no-rule")
            .detail("interface", "line3/modbus")
            .detail("count", numbers.below(50))
            .detail("bytes", numbers.below(100_000)),
        7 | 8 => Event::new(time, node.clone(), EventKind::BindOpened)
            .subject(peer)
            .allowed(),
        _ => Event::new(time, node.clone(), EventKind::AppStarted)
            .subject("acme/collector")
            .detail("digest", format!("{:064x}", numbers.below(u64::MAX))),
    })
}
