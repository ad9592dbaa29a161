//! Frames and messages of the bind, hand-written and bounded. All integers are big-endian.
//!
//! On the stream: `length u32 | body`, with 1 <= length <= [`MAX_FRAME_BYTES`]. A body is one byte of kind and
//! the fields of that kind; bytes left over are an error. A variable field is `length u16 | bytes`.
//!
//! | kind | message | fields |
//! |---|---|---|
//! | 1 | [`Offer`] | version u16, WireGuard key \[32\], boot id \[16\], nonce \[32\], slice number u64, share kind u8 + share, result, flag u8 + boot statement |
//! | 2 | [`Proof`] | boot-key signature (variable), possession MAC \[32\] |
//! | 3 | `Armed` | epoch u64 |
//! | 4 | `Turn` | epoch u64, nonce \[32\] |
//! | 5 | `NewResult` | result (variable) |
//! | 6 | `Detach` | code u16 |
//!
//! An offer has no signature and no MAC inside, so that the transcript is simply the two offers as sent; both
//! proofs follow in a message of their own.

use super::code::Code;

/// Longest body of a frame, in bytes.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// Longest attestation result in a message, in bytes.
pub const MAX_RESULT_BYTES: usize = edgeward_evidence::result::MAX_RESULT_BYTES;
/// Longest boot statement in a message, in bytes.
pub const MAX_STATEMENT_BYTES: usize = edgeward_evidence::boot_statement::MAX_BOOT_STATEMENT_BYTES;
/// Longest signature, in bytes: an ASN.1 DER ECDSA P-256 signature has at most 72.
pub const MAX_SIGNATURE_BYTES: usize = 80;
/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub const ENCAPSULATION_KEY_BYTES: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext (FIPS 203, table 3).
pub const CIPHERTEXT_BYTES: usize = 1088;

const OFFER: u8 = 1;
const PROOF: u8 = 2;
const ARMED: u8 = 3;
const TURN: u8 = 4;
const NEW_RESULT: u8 = 5;
const DETACH: u8 = 6;

const SHARE_KEY: u8 = 1;
const SHARE_CIPHERTEXT: u8 = 2;

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Offer(Box<Offer>),
    Proof(Proof),
    /// The responder's WireGuard expects this epoch.
    Armed {
        epoch: u64,
    },
    /// The initiator asks for this epoch, the responder agrees; each adds its nonce.
    Turn {
        epoch: u64,
        nonce: [u8; 32],
    },
    /// A newer attestation result of the sender.
    NewResult(Vec<u8>),
    /// The sender leaves the bind and says why.
    Detach(Code),
}

/// What a side brings into the bind. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub version: u16,
    /// Public half of the sender's WireGuard key.
    pub wireguard_key: [u8; 32],
    /// Random, made at each start of the sender's boot.
    pub boot_id: [u8; 16],
    pub nonce: [u8; 32],
    /// Number of the policy slice that the sender holds.
    pub slice_number: u64,
    pub share: KemShare,
    /// Signed attestation result, as the cloud gave it.
    pub result: Vec<u8>,
    pub boot_statement: Option<Vec<u8>>,
}

/// The sender's part of ML-KEM-768.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KemShare {
    /// From the initiator.
    Key(Box<[u8; ENCAPSULATION_KEY_BYTES]>),
    /// From the responder.
    Ciphertext(Box<[u8; CIPHERTEXT_BYTES]>),
}

/// Proof that the sender holds the boot key and the WireGuard key that it offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// ASN.1 DER ECDSA P-256.
    pub signature: Vec<u8>,
    pub possession: [u8; 32],
}

/// Why bytes are not a message. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("frame is empty or longer than the limit in bytes: {0}")]
    FrameLength(usize),
    #[error("message is truncated")]
    Truncated,
    #[error("message has bytes left over: {0}")]
    Trailing(usize),
    #[error("unknown kind of message: {0}")]
    Kind(u8),
    #[error("unknown kind of key share: {0}")]
    Share(u8),
    #[error("flag is neither 0 nor 1: {0}")]
    Flag(u8),
    #[error("field is longer than the limit in bytes: {0}")]
    FieldLength(usize),
}

/// The length of the body that follows these four bytes.
pub fn parse_length(length: [u8; LENGTH_BYTES]) -> Result<usize, Malformed> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if (1..=MAX_FRAME_BYTES).contains(&length) {
        Ok(length)
    } else {
        Err(Malformed::FrameLength(length))
    }
}

/// Reads the body of one frame.
pub fn parse(body: &[u8]) -> Result<Message, Malformed> {
    if body.is_empty() || body.len() > MAX_FRAME_BYTES {
        return Err(Malformed::FrameLength(body.len()));
    }
    let mut reader = Reader(body);
    let message = match reader.u8()? {
        OFFER => Message::Offer(Box::new(parse_offer(&mut reader)?)),
        PROOF => Message::Proof(Proof {
            signature: reader.field(MAX_SIGNATURE_BYTES)?,
            possession: reader.array()?,
        }),
        ARMED => Message::Armed {
            epoch: reader.u64()?,
        },
        TURN => Message::Turn {
            epoch: reader.u64()?,
            nonce: reader.array()?,
        },
        NEW_RESULT => Message::NewResult(reader.field(MAX_RESULT_BYTES)?),
        DETACH => Message::Detach(Code::from_wire(reader.u16()?)),
        kind => return Err(Malformed::Kind(kind)),
    };
    match reader.0.len() {
        0 => Ok(message),
        left => Err(Malformed::Trailing(left)),
    }
}

impl Message {
    /// The body of the frame, without its length.
    ///
    /// Fields longer than their limits are cut to 65,535 bytes, which every reader refuses: callers check what
    /// they put in.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Offer(offer) => put_offer(&mut out, offer),
            Self::Proof(proof) => {
                out.push(PROOF);
                put_field(&mut out, &proof.signature);
                out.extend_from_slice(&proof.possession);
            }
            Self::Armed { epoch } => {
                out.push(ARMED);
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            Self::Turn { epoch, nonce } => {
                out.push(TURN);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(nonce);
            }
            Self::NewResult(result) => {
                out.push(NEW_RESULT);
                put_field(&mut out, result);
            }
            Self::Detach(code) => {
                out.push(DETACH);
                out.extend_from_slice(&code.to_wire().to_be_bytes());
            }
        }
        out
    }
}

/// A body with its length before it, ready for the stream.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), body].concat()
}

fn parse_offer(reader: &mut Reader<'_>) -> Result<Offer, Malformed> {
    Ok(Offer {
        version: reader.u16()?,
        wireguard_key: reader.array()?,
        boot_id: reader.array()?,
        nonce: reader.array()?,
        slice_number: reader.u64()?,
        share: match reader.u8()? {
            SHARE_KEY => KemShare::Key(Box::new(reader.array()?)),
            SHARE_CIPHERTEXT => KemShare::Ciphertext(Box::new(reader.array()?)),
            kind => return Err(Malformed::Share(kind)),
        },
        result: reader.field(MAX_RESULT_BYTES)?,
        boot_statement: match reader.u8()? {
            0 => None,
            1 => Some(reader.field(MAX_STATEMENT_BYTES)?),
            flag => return Err(Malformed::Flag(flag)),
        },
    })
}

fn put_offer(out: &mut Vec<u8>, offer: &Offer) {
    out.push(OFFER);
    out.extend_from_slice(&offer.version.to_be_bytes());
    out.extend_from_slice(&offer.wireguard_key);
    out.extend_from_slice(&offer.boot_id);
    out.extend_from_slice(&offer.nonce);
    out.extend_from_slice(&offer.slice_number.to_be_bytes());
    match &offer.share {
        KemShare::Key(key) => {
            out.push(SHARE_KEY);
            out.extend_from_slice(key.as_slice());
        }
        KemShare::Ciphertext(ciphertext) => {
            out.push(SHARE_CIPHERTEXT);
            out.extend_from_slice(ciphertext.as_slice());
        }
    }
    put_field(out, &offer.result);
    match &offer.boot_statement {
        None => out.push(0),
        Some(statement) => {
            out.push(1);
            put_field(out, statement);
        }
    }
}

fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn field(&mut self, most: usize) -> Result<Vec<u8>, Malformed> {
        let length = usize::from(self.u16()?);
        if length > most {
            return Err(Malformed::FieldLength(length));
        }
        self.take(length).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests;
