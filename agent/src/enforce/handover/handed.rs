//! All that is handed over, as bytes: one version, every part's length bounded, nothing left over.

use edgeward_identity::Secret;
use edgeward_tunnel::filter::{MAX_MOVED_FLOWS_BYTES, MovedFlows, NotFlows};
use edgeward_tunnel::node::{MAX_MOVED_BYTES, MAX_PEERS, MovedPeer, NotAPeer};
use zeroize::Zeroizing;

use super::paper::Paper;

/// Version of the format: a program that knows another one starts anew.
pub const FORMAT: u32 = 1;
/// Most that is read of it, in bytes.
pub const MAX_HANDED_BYTES: usize = 256 << 20;
const MAGIC: &[u8; 16] = b"edgeward tunnels";
/// Longest paper, in bytes.
const MAX_PAPER_BYTES: usize = 48 << 20;

/// What one program hands to the next.
pub struct Handed {
    pub paper: Paper,
    /// Our WireGuard key for binds to come.
    pub private: Secret<[u8; 32]>,
    pub flows: MovedFlows,
    pub peers: Vec<MovedPeer>,
}

/// Bytes that are nothing of the kind. Ours, or another version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHanded {
    #[error("of another format: {0}")]
    Format(u32),
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("contradicts itself: {0}")]
    Odd(&'static str),
    #[error(transparent)]
    Peer(#[from] NotAPeer),
    #[error(transparent)]
    Flows(#[from] NotFlows),
}

impl Handed {
    /// Secret, and to be kept so.
    pub fn write(&self) -> Result<Zeroizing<Vec<u8>>, NotHanded> {
        let paper = serde_json::to_vec(&self.paper).map_err(|_| NotHanded::Malformed("paper"))?;
        let flows = self.flows.encode();
        let peers: Vec<_> = self.peers.iter().map(MovedPeer::encode).collect();
        let length: usize = peers.iter().map(|peer| peer.len() + 4).sum();
        // With all the room at once: what grows leaves copies behind.
        let room = 1024 + paper.len() + flows.len() + length;
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.private.expose());
        put(&mut out, &paper)?;
        put(&mut out, &flows)?;
        out.extend(length_of(peers.len())?);
        for peer in &peers {
            put(&mut out, peer)?;
        }
        Ok(out)
    }

    /// Reads what [`Self::write`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotHanded> {
        let mut input = Input(bytes);
        if input.array::<16>()? != *MAGIC {
            return Err(NotHanded::Malformed("not tunnels"));
        }
        let format = u32::from_le_bytes(input.array()?);
        if format != FORMAT {
            return Err(NotHanded::Format(format));
        }
        let private = Secret::new(input.array()?);
        let paper = input.part(MAX_PAPER_BYTES)?;
        let paper: Paper =
            serde_json::from_slice(paper).map_err(|_| NotHanded::Malformed("paper"))?;
        let flows = MovedFlows::decode(input.part(MAX_MOVED_FLOWS_BYTES)?)?;
        let count = input.length(MAX_PEERS)?;
        let peers = (0..count)
            .map(|_| Ok(MovedPeer::decode(input.part(MAX_MOVED_BYTES)?)?))
            .collect::<Result<Vec<_>, NotHanded>>()?;
        if !input.0.is_empty() {
            return Err(NotHanded::Malformed("more than tunnels"));
        }
        paper.check(&peers)?;
        Ok(Self {
            paper,
            private,
            flows,
            peers,
        })
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) -> Result<(), NotHanded> {
    out.extend(length_of(part.len())?);
    out.extend(part);
    Ok(())
}

fn length_of(length: usize) -> Result<[u8; 4], NotHanded> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(|_| NotHanded::Malformed("length"))
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotHanded> {
        let (front, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(NotHanded::Malformed("cut short"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn length(&mut self, most: usize) -> Result<usize, NotHanded> {
        usize::try_from(u32::from_le_bytes(self.array()?))
            .ok()
            .filter(|length| *length <= most)
            .ok_or(NotHanded::Malformed("length"))
    }

    fn part(&mut self, most: usize) -> Result<&'a [u8], NotHanded> {
        let length = self.length(most)?;
        let (part, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(NotHanded::Malformed("cut short"))?;
        self.0 = rest;
        Ok(part)
    }
}
