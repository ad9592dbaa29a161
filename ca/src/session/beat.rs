//! Heartbeats of a session.

use edgeward_identity::{BootTime, Purpose};
use edgeward_wire::control::Heartbeat;
use edgeward_wire::limits::HEARTBEAT_EVERY;
use edgeward_wire::v1::cloud_message::Body;

use super::SessionEnded;
use super::live::Live;
use super::pace::Pace;
use crate::hub::HubFault;
use crate::keys::Label;

impl Live {
    /// Heartbeats and challenges at the pace that the node's policy of now lets them have.
    pub(super) fn beat(&mut self) -> Result<(), SessionEnded> {
        let now = self.hub.clock.boottime();
        let pace = self.pace();
        self.schedule.keep_to(pace.attest, now);
        // On a metered link the next challenge takes it along, and it goes alone only where none came in time.
        let rare = self.opened.metered && pace.heartbeat > HEARTBEAT_EVERY * 3 / 2;
        let latest = match rare {
            true => pace.heartbeat.saturating_add(HEARTBEAT_EVERY),
            false => pace.heartbeat.saturating_sub(HEARTBEAT_EVERY / 2),
        };
        match now.since(self.beaten) < latest {
            true => Ok(()),
            false => self.send_heartbeat(now),
        }
    }

    /// One packet instead of two, where every packet is paid for.
    pub(super) fn beat_along(&mut self) -> Result<(), SessionEnded> {
        match self.opened.metered {
            true => self.send_heartbeat(self.hub.clock.boottime()),
            false => Ok(()),
        }
    }

    fn send_heartbeat(&mut self, now: BootTime) -> Result<(), SessionEnded> {
        self.beaten = now;
        let (number, beat) = self.heartbeat()?;
        if self.journal.asked(number) {
            self.journal_silent();
        }
        self.journal.coverage.goes_along();
        self.send(Body::Heartbeat(beat))
    }

    fn pace(&self) -> Pace {
        let usual = self.hub.config.attest;
        match self.opened.metered {
            true => {
                let sent = self.hub.strictest_fresh(&self.name);
                Pace::metered(usual, sent.or(self.first_fresh))
            }
            false => Pace::usual(usual),
        }
    }

    /// The next one, with its number.
    pub(super) fn heartbeat(&self) -> Result<(u64, Vec<u8>), SessionEnded> {
        let now = self.hub.clock.now();
        let every = self.opened.metered.then(|| self.pace().heartbeat);
        let beat = Heartbeat {
            time: now,
            deny_number: self.hub.deny_number(),
            every: every.map(|every| u32::try_from(every.as_secs()).unwrap_or(u32::MAX)),
        };
        let number = self.hub.keys.rising_number(now);
        let label = Label {
            purpose: Purpose::Control,
            audience: self.id().to_string(),
            number,
            issued: now,
            lifetime: beat.lost_after(),
        };
        let signed = self.hub.keys.sign(label, &beat).map_err(HubFault::from)?;
        Ok((number, signed))
    }
}
