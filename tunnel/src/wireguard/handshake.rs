//! Handshakes, from both ends, up to a session.

use std::sync::Arc;

use super::message::{
    INITIATION_BYTES, INITIATION_HEADER_BYTES, MACS_BYTES, RESPONSE_BYTES, RESPONSE_HEADER_BYTES,
    TAG_BYTES, initiation_header, response_header, word,
};
use super::noise::{Noise, Seed};
use super::session::Session;
use super::timestamp::Stamp;
use super::{Door, Message, Psk, Refused, SessionIndex, StaticKeys};

/// A handshake that we started. Only its newest initiation may be answered: a responder keeps one unconfirmed
/// session, and the newer initiation replaces the one that a late answer belongs to.
pub struct Initiator {
    keys: Arc<StaticKeys>,
    peer: [u8; 32],
    psk: Psk,
    index: SessionIndex,
    noise: Option<Box<Noise>>,
}

/// An initiation that is authentic, and not answered yet.
pub struct Received {
    noise: Noise,
    sender: [u8; 32],
    stamp: Stamp,
    theirs: u32,
}

impl Initiator {
    pub fn new(door: &Door, peer: &[u8; 32], psk: &Psk, index: SessionIndex) -> Self {
        Self {
            keys: Arc::clone(door.keys()),
            peer: *peer,
            psk: psk.clone(),
            index,
            noise: None,
        }
    }

    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Makes an initiation, the first or a further one. Its authenticators are still to be written
    /// ([`super::CookieJar::sign`]).
    pub fn initiate(
        &mut self,
        seed: Seed,
        stamp: Stamp,
    ) -> Result<[u8; INITIATION_BYTES], Refused> {
        let mut noise = Noise::initiator(&self.keys, &self.peer, seed)?;
        let mut message = [0; INITIATION_BYTES];
        let (header, rest) = message.split_at_mut(INITIATION_HEADER_BYTES);
        header.copy_from_slice(&initiation_header(self.index));
        let room = rest.len() - MACS_BYTES;
        let body = rest.get_mut(..room).ok_or(Refused::Malformed)?;
        if noise.write(&stamp.to_bytes(), body)? != room {
            return Err(Refused::Unexpected);
        }
        self.noise = Some(Box::new(noise));
        Ok(message)
    }

    /// Takes the peer's admitted response. On failure the handshake goes on waiting.
    pub fn complete(&mut self, response: &[u8]) -> Result<Session, Refused> {
        if Message::parse(response)? != Message::Response(self.index) {
            return Err(Refused::Unexpected);
        }
        let theirs = word(response, 4).ok_or(Refused::Malformed)?;
        let body = response
            .get(RESPONSE_HEADER_BYTES..RESPONSE_BYTES - MACS_BYTES)
            .ok_or(Refused::Malformed)?;
        let noise = self.noise.as_mut().ok_or(Refused::Unexpected)?;
        noise.read_under(&self.psk, body, &mut [])?;
        let noise = self.noise.take().ok_or(Refused::Unexpected)?;
        let keys = noise.split()?;
        Ok(Session::new(
            self.index, theirs, keys.forth, keys.back, true,
        ))
    }
}

impl Received {
    pub(super) fn new(noise: Noise, sender: [u8; 32], stamp: Stamp, theirs: u32) -> Self {
        Self {
            noise,
            sender,
            stamp,
            theirs,
        }
    }

    /// Whose static key it carries.
    pub fn sender(&self) -> &[u8; 32] {
        &self.sender
    }

    /// To be shown to the sender's [`super::ReplayGate`] before anything is answered.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Makes the answer; its authenticators are still to be written. The session may not send before it has opened
    /// a first message: only that proves that the initiator holds the same keys.
    pub fn answer(
        mut self,
        psk: &Psk,
        index: SessionIndex,
    ) -> Result<(Session, [u8; RESPONSE_BYTES]), Refused> {
        let mut message = [0; RESPONSE_BYTES];
        let (header, rest) = message.split_at_mut(RESPONSE_HEADER_BYTES);
        header.copy_from_slice(&response_header(index, self.theirs));
        let room = rest.len() - MACS_BYTES;
        let body = rest.get_mut(..room).ok_or(Refused::Malformed)?;
        if self.noise.write_under(psk, &[], body)? != room {
            return Err(Refused::Unexpected);
        }
        let keys = self.noise.split()?;
        let session = Session::new(index, self.theirs, keys.back, keys.forth, false);
        Ok((session, message))
    }
}

const _: () = assert!(RESPONSE_BYTES - MACS_BYTES - RESPONSE_HEADER_BYTES == 32 + TAG_BYTES);
