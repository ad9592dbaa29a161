//! Where handshake messages come in: what is checked before anything costs more than a hash.

use std::net::SocketAddr;
use std::sync::Arc;

use edgeward_identity::BootTime;

use super::cookie::{Baker, PublicKeys};
use super::message::{COOKIE_BYTES, INITIATION_BYTES, INITIATION_HEADER_BYTES, MACS_BYTES, word};
use super::noise::{Noise, Seed};
use super::timestamp::{STAMP_BYTES, Stamp};
use super::{Message, Random, Received, Refused, StaticKeys};

/// What the door says to a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// We are busy: this cookie reply is to be sent to where the message came from.
    Answer([u8; COOKIE_BYTES]),
    Refused(Refused),
}

/// First authenticators and cookies for one of our static keys.
pub struct Door {
    keys: Arc<StaticKeys>,
    public: PublicKeys,
    baker: Baker,
}

/// Whether handshake messages need a cookie now.
#[derive(Clone, Copy)]
pub enum Mood<'a> {
    Calm,
    Busy {
        now: BootTime,
        random: &'a dyn Random,
    },
}

impl Door {
    pub fn new(keys: Arc<StaticKeys>) -> Self {
        Self {
            public: PublicKeys::new(&keys.public()),
            keys,
            baker: Baker::default(),
        }
    }

    pub fn keys(&self) -> &Arc<StaticKeys> {
        &self.keys
    }

    /// Checks the authenticators of an initiation or response.
    pub fn admit(&self, from: SocketAddr, datagram: &[u8], mood: Mood<'_>) -> Admission {
        match Message::parse(datagram) {
            Ok(Message::Initiation | Message::Response(_)) => {}
            Ok(_) => return Admission::Refused(Refused::Unexpected),
            Err(refused) => return Admission::Refused(refused),
        }
        if let Err(refused) = self.public.check_first(datagram) {
            return Admission::Refused(refused);
        }
        let Mood::Busy { now, random } = mood else {
            return Admission::Admitted;
        };
        match self.baker.check_second(from, datagram, now, random) {
            Ok(true) => Admission::Admitted,
            Ok(false) => {
                let reply = self.baker.reply(&self.public, from, datagram, now, random);
                reply.map_or_else(Admission::Refused, Admission::Answer)
            }
            Err(none) => Admission::Refused(none.into()),
        }
    }

    /// Opens an admitted initiation: who sent it, and when. Two X25519 operations, which are part of the answer.
    pub fn read(&self, initiation: &[u8], seed: Seed) -> Result<Received, Refused> {
        let body = (Message::parse(initiation)? == Message::Initiation)
            .then(|| initiation.get(INITIATION_HEADER_BYTES..INITIATION_BYTES - MACS_BYTES))
            .flatten()
            .ok_or(Refused::Unexpected)?;
        let theirs = word(initiation, 4).ok_or(Refused::Malformed)?;
        let mut noise = Noise::responder(&self.keys, seed)?;
        let mut stamp = [0; STAMP_BYTES];
        if noise.read(body, &mut stamp)? != STAMP_BYTES {
            return Err(Refused::Malformed);
        }
        let sender = noise.remote().ok_or(Refused::NotAuthentic)?;
        Ok(Received::new(
            noise,
            sender,
            Stamp::from_bytes(stamp),
            theirs,
        ))
    }
}
