//! A session on its way to another process: keys, counters and window as bytes.

use edgeward_identity::Secret;
use zeroize::Zeroizing;

use super::session::REJECT_AFTER_MESSAGES;
use super::window::{WORDS, Window};

/// Length of an encoded session, in bytes.
pub const SESSION_STATE_BYTES: usize = 4 + 4 + 8 + 1 + 32 + 32 + 8 + 8 * WORDS;

/// What makes a session. Secret; wiped when dropped.
pub struct SessionState {
    pub(super) index: u32,
    pub(super) theirs: u32,
    pub(super) sealed: u64,
    pub(super) confirmed: bool,
    pub(super) send: Secret<[u8; 32]>,
    pub(super) receive: Secret<[u8; 32]>,
    pub(super) window: Window,
}

/// Bytes that are no session of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an exported session")]
pub struct NotASession;

impl SessionState {
    /// The number by which the peer addresses it.
    pub fn index(&self) -> super::SessionIndex {
        super::SessionIndex(self.index)
    }

    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SESSION_STATE_BYTES));
        let (next, words) = self.window.parts();
        bytes.extend(self.index.to_le_bytes());
        bytes.extend(self.theirs.to_le_bytes());
        bytes.extend(self.sealed.to_le_bytes());
        bytes.push(u8::from(self.confirmed));
        bytes.extend(self.send.expose());
        bytes.extend(self.receive.expose());
        bytes.extend(next.to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    /// Reads what [`Self::encode`] wrote; nothing shorter, longer or impossible.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotASession> {
        let mut rest = bytes;
        let index = u32::from_le_bytes(take(&mut rest)?);
        let theirs = u32::from_le_bytes(take(&mut rest)?);
        let sealed = u64::from_le_bytes(take(&mut rest)?);
        let confirmed = match take::<1>(&mut rest)? {
            [0] => false,
            [1] => true,
            _ => return Err(NotASession),
        };
        let send = Secret::new(take(&mut rest)?);
        let receive = Secret::new(take(&mut rest)?);
        let next = u64::from_le_bytes(take(&mut rest)?);
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = u64::from_le_bytes(take(&mut rest)?);
        }
        if !rest.is_empty() || sealed > REJECT_AFTER_MESSAGES || next > REJECT_AFTER_MESSAGES {
            return Err(NotASession);
        }
        Ok(Self {
            index,
            theirs,
            sealed,
            confirmed,
            send,
            receive,
            window: Window::from_parts(next, words),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], NotASession> {
    let (front, after) = rest.split_first_chunk::<N>().ok_or(NotASession)?;
    *rest = after;
    Ok(*front)
}
