//! The gate before the TPM: what a stranger must pass before this node signs anything.
//!
//! A responder's TLS handshake costs one TPM signature, and whoever can make it sign can starve attestation. So
//! every first flight carries a *pass* in the one field that is the client's to choose and that a QUIC Retry
//! returns unchanged to the server: the original destination connection ID, 20 bytes (RFC 9000, sections 7.2 and
//! 8.1.2).
//!
//! ```text
//! key  = HMAC-SHA-256("edgeward-bind-gate-v1", trust domain || 0 || SPKI hash of the responder)
//! pass = nonce [4] || tag [8] || mac [8]
//! tag  = first 8 bytes of the initiator's SPKI hash, XOR first 8 bytes of HMAC(key, "tag" || nonce)
//! mac  = first 8 bytes of HMAC(key, "mac" || nonce || tag)
//! ```
//!
//! The steps, cheapest first, and what each costs a node under attack:
//! 1. No or wrong MAC: the datagram is ignored, not even answered (one HMAC). Certificates are encrypted in
//!    TLS 1.3, so only members of the trust domain know the key's SPKI.
//! 2. Source not in the directory: ignored.
//! 3. Address not validated: a stateless Retry; nothing is remembered.
//! 4. Pass used before (an eavesdropper's replay): ignored.
//! 5. Budget of signatures of the source: ignored, and counted.
//! 6. Budget of the node: told to come back (no signature), and given a *turn*. Turns come in the order in which they
//!    were given, as fast as the node signs: after a restart thousands come at once, every one of them gets in at its
//!    first knock after its turn has come, and nobody who comes later is before it.
//!
//! How fast the node signs is measured ([`Gate::signed`]): binds may take half of the signer's time, and no more than
//! [`MOST_PER_MINUTE`], which keeps the WireGuard handshakes that follow below the load at which cookies are asked for.
//!
//! The memory of the gate is bounded by [`MAX_SOURCES`] and [`MAX_PASSES`]. No I/O; told the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use edgeward_identity::{BootTime, SpkiHash, TrustDomain};
use ring::hmac;
use subtle::ConstantTimeEq;

/// Bytes of a pass: the longest connection ID of QUIC version 1.
pub const PASS_BYTES: usize = 20;
/// Signatures that all sources together may cause at once.
pub const GLOBAL_BURST: u32 = 16;
/// Signatures that all sources together may cause in the long run, per minute, before a signature was measured.
pub const GLOBAL_PER_MINUTE: u32 = 120;
/// The least of them, however slowly the node signs.
pub const LEAST_PER_MINUTE: u32 = 30;
/// The most of them, however fast.
pub const MOST_PER_MINUTE: u32 = 3000;
/// A turn that nobody took lasts until this many minutes of further turns have come.
pub const TURN_LASTS_MINUTES: u64 = 3;
/// Signatures that one source may cause at once.
pub const SOURCE_BURST: u32 = 4;
/// Signatures that one source may cause in the long run, per minute.
pub const SOURCE_PER_MINUTE: u32 = 6;
/// Most peers in the directory, and so most sources remembered.
pub const MAX_SOURCES: usize = 16_384;
/// How long a used pass is remembered at least.
pub const PASS_MEMORY: Duration = Duration::from_secs(600);
/// Most passes remembered: more cannot be used within [`PASS_MEMORY`] under the global budget.
pub const MAX_PASSES: usize = 2 * (GLOBAL_BURST as usize + 10 * MOST_PER_MINUTE as usize)
    + 2 * TURN_LASTS_MINUTES as usize * MOST_PER_MINUTE as usize;

const KEY_LABEL: &[u8] = b"edgeward-bind-gate-v1";

/// A pass, as it stands in the first flight.
pub type Pass = [u8; PASS_BYTES];

/// What to do with a first flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with TLS: one signature has been taken from the budgets. The peer must turn out to have this key.
    Accept(SpkiHash),
    /// Answer with a stateless Retry.
    Retry,
    /// Too many at once: say so. It has a turn, and gets in when it comes again after that.
    Later,
    /// Answer nothing.
    Ignore(Turned),
}

/// Why a first flight was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Turned {
    #[error("no pass")]
    NoPass,
    #[error("pass made for another node")]
    WrongMac,
    #[error("source is not in the directory")]
    Unknown,
    #[error("pass was used before")]
    Replayed,
    #[error("signature budget of the source is spent")]
    SourceBudget,
}

impl Turned {
    /// Stable reason code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPass => "gate_no_pass",
            Self::WrongMac => "gate_wrong_mac",
            Self::Unknown => "gate_unknown_source",
            Self::Replayed => "gate_replayed",
            Self::SourceBudget => "gate_source_budget",
        }
    }
}

/// Makes and reads passes for one responder.
#[derive(Clone)]
pub struct PassKey(hmac::Key);

/// The gate of one node.
pub struct Gate {
    keys: Vec<PassKey>,
    directory: HashMap<[u8; 8], Source>,
    turns: Turns,
    passes: PassLog,
}

struct Source {
    spki: SpkiHash,
    budget: Bucket,
    turn: Option<u64>,
}

/// Who may cause a signature when: numbers are given to those who must wait, and called as time passes. All in
/// thousandths.
struct Turns {
    per_minute: u32,
    /// The last number given away.
    given: u64,
    /// Up to here numbers are called.
    called: u64,
    filled: BootTime,
    /// Time of one signature, averaged.
    signing: Option<Duration>,
}

/// A token bucket in thousandths of a token.
#[derive(Clone, Copy)]
struct Bucket {
    burst: u32,
    per_minute: u32,
    milli: u64,
    filled: BootTime,
}

/// Passes used in the present and the last period.
#[derive(Default)]
struct PassLog {
    present: HashSet<Pass>,
    last: HashSet<Pass>,
    since: BootTime,
}

impl PassKey {
    pub fn new(trust_domain: &TrustDomain, responder: &SpkiHash) -> Self {
        let label = hmac::Key::new(hmac::HMAC_SHA256, KEY_LABEL);
        let mut context = hmac::Context::with_key(&label);
        context.update(trust_domain.as_str().as_bytes());
        context.update(&[0]);
        context.update(responder.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// The pass of `initiator`. `nonce` is random.
    pub fn issue(&self, initiator: &SpkiHash, nonce: [u8; 4]) -> Pass {
        let tag = xor(short(initiator), self.first8(&[b"tag", &nonce]));
        let mac = self.first8(&[b"mac", &nonce, &tag]);
        let mut pass = [0; PASS_BYTES];
        let parts = nonce.iter().chain(&tag).chain(&mac);
        for (to, from) in pass.iter_mut().zip(parts) {
            *to = *from;
        }
        pass
    }

    /// The short form of the initiator's SPKI hash, if the pass was made for this responder.
    fn read(&self, pass: &Pass) -> Option<[u8; 8]> {
        let (nonce, rest) = pass.split_first_chunk::<4>()?;
        let (tag, mac) = rest.split_first_chunk::<8>()?;
        let expected = self.first8(&[b"mac", nonce, tag]);
        bool::from(expected.ct_eq(mac)).then(|| xor(*tag, self.first8(&[b"tag", nonce])))
    }

    fn first8(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 8];
        for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        out
    }
}

impl Gate {
    /// `own` are the node's present keys: the SVID's, and for a while the one before.
    pub fn new(trust_domain: &TrustDomain, own: &[SpkiHash], now: BootTime) -> Self {
        Self {
            keys: pass_keys(trust_domain, own),
            directory: HashMap::new(),
            turns: Turns::new(now),
            passes: PassLog {
                since: now,
                ..PassLog::default()
            },
        }
    }

    pub fn set_own_keys(&mut self, trust_domain: &TrustDomain, own: &[SpkiHash]) {
        self.keys = pass_keys(trust_domain, own);
    }

    /// Replaces the directory by the first [`MAX_SOURCES`] of `peers`; budgets of those who stay are kept.
    pub fn set_directory(&mut self, peers: impl IntoIterator<Item = SpkiHash>, now: BootTime) {
        let mut old = std::mem::take(&mut self.directory);
        for spki in peers.into_iter().take(MAX_SOURCES) {
            let short = short(&spki);
            let source = match old.remove(&short) {
                Some(source) if source.spki == spki => source,
                _ => Source {
                    spki,
                    budget: Bucket::full(SOURCE_BURST, SOURCE_PER_MINUTE, now),
                    turn: None,
                },
            };
            self.directory.insert(short, source);
        }
    }

    /// Judges a first flight by its original destination connection ID.
    pub fn judge(&mut self, first_id: &[u8], address_validated: bool, now: BootTime) -> Verdict {
        let Ok(pass) = Pass::try_from(first_id) else {
            return Verdict::Ignore(Turned::NoPass);
        };
        let Some(short) = self.keys.iter().find_map(|key| key.read(&pass)) else {
            return Verdict::Ignore(Turned::WrongMac);
        };
        let Some(source) = self.directory.get_mut(&short) else {
            return Verdict::Ignore(Turned::Unknown);
        };
        if !address_validated {
            return Verdict::Retry;
        }
        if self.passes.contains(&pass, now) {
            return Verdict::Ignore(Turned::Replayed);
        }
        if !source.budget.has_one(now) {
            return Verdict::Ignore(Turned::SourceBudget);
        }
        if !self.turns.take(&mut source.turn, now) {
            return Verdict::Later;
        }
        source.budget.take_one();
        self.passes.insert(pass);
        Verdict::Accept(source.spki)
    }

    /// A signature took this long: how many of them there may be follows from it.
    pub fn signed(&mut self, took: Duration, now: BootTime) {
        self.turns.signed(took, now);
    }

    /// Signatures per minute that all sources together may cause now.
    pub fn per_minute(&self) -> u32 {
        self.turns.per_minute
    }

    /// How many things the gate remembers: sources and passes.
    pub fn remembered(&self) -> (usize, usize) {
        let passes = self.passes.present.len() + self.passes.last.len();
        (self.directory.len(), passes)
    }
}

impl Turns {
    const ONE: u64 = 1000;

    fn new(now: BootTime) -> Self {
        Self {
            per_minute: GLOBAL_PER_MINUTE,
            given: 0,
            called: u64::from(GLOBAL_BURST) * Self::ONE,
            filled: now,
            signing: None,
        }
    }

    /// Whether whoever holds this number, or none yet, may go on now; else it holds a number afterwards.
    fn take(&mut self, held: &mut Option<u64>, now: BootTime) -> bool {
        self.call(now);
        let lasts = TURN_LASTS_MINUTES * u64::from(self.per_minute) * Self::ONE;
        let number = match held.filter(|number| self.called.saturating_sub(*number) <= lasts) {
            Some(number) => number,
            None => {
                self.given = self.given.saturating_add(Self::ONE);
                self.given
            }
        };
        let come = number <= self.called;
        *held = (!come).then_some(number);
        come
    }

    /// Calls further numbers for the time that passed, and at most [`GLOBAL_BURST`] that nobody has yet.
    fn call(&mut self, now: BootTime) {
        let passed = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(self.per_minute)) / 60;
        if gained > 0 {
            let most = self
                .given
                .saturating_add(u64::from(GLOBAL_BURST) * Self::ONE);
            self.called = self.called.saturating_add(gained).min(most);
            self.filled = now;
        }
    }

    fn signed(&mut self, took: Duration, now: BootTime) {
        self.call(now);
        let average = self
            .signing
            .map_or(took, |average| average - average / 8 + took / 8);
        self.signing = Some(average);
        // Half of the time.
        let possible = 30_000_000_u128
            .checked_div(average.as_micros())
            .unwrap_or(u128::MAX);
        self.per_minute = u32::try_from(possible)
            .unwrap_or(u32::MAX)
            .clamp(LEAST_PER_MINUTE, MOST_PER_MINUTE);
    }
}

impl Bucket {
    fn full(burst: u32, per_minute: u32, now: BootTime) -> Self {
        Self {
            burst,
            per_minute,
            milli: u64::from(burst) * 1000,
            filled: now,
        }
    }

    fn has_one(&mut self, now: BootTime) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(self.per_minute)) / 60;
        if gained > 0 {
            self.milli = self
                .milli
                .saturating_add(gained)
                .min(u64::from(self.burst) * 1000);
            self.filled = now;
        }
        self.milli >= 1000
    }

    fn take_one(&mut self) {
        self.milli = self.milli.saturating_sub(1000);
    }
}

impl PassLog {
    fn contains(&mut self, pass: &Pass, now: BootTime) -> bool {
        if now.since(self.since) >= PASS_MEMORY {
            self.last = std::mem::take(&mut self.present);
            if now.since(self.since) >= PASS_MEMORY * 2 {
                self.last.clear();
            }
            self.since = now;
        }
        self.present.contains(pass) || self.last.contains(pass)
    }

    fn insert(&mut self, pass: Pass) {
        self.present.insert(pass);
    }
}

fn pass_keys(trust_domain: &TrustDomain, own: &[SpkiHash]) -> Vec<PassKey> {
    own.iter()
        .take(2)
        .map(|spki| PassKey::new(trust_domain, spki))
        .collect()
}

fn short(spki: &SpkiHash) -> [u8; 8] {
    let mut out = [0; 8];
    for (to, from) in out.iter_mut().zip(spki.as_bytes()) {
        *to = *from;
    }
    out
}

fn xor(a: [u8; 8], b: [u8; 8]) -> [u8; 8] {
    (u64::from_ne_bytes(a) ^ u64::from_ne_bytes(b)).to_ne_bytes()
}

#[cfg(test)]
mod tests;
