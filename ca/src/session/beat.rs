//! Heartbeats of a session.

use edgeward_identity::Purpose;
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
        if now.since(self.beaten).saturating_add(HEARTBEAT_EVERY / 2) < pace.heartbeat {
            return Ok(());
        }
        self.beaten = now;
        self.heartbeat()
            .and_then(|beat| self.send(Body::Heartbeat(beat)))
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

    pub(super) fn heartbeat(&self) -> Result<Vec<u8>, SessionEnded> {
        let now = self.hub.clock.now();
        let every = self.opened.metered.then(|| self.pace().heartbeat);
        let beat = Heartbeat {
            time: now,
            deny_number: self.hub.deny_number(),
            every: every.map(|every| u32::try_from(every.as_secs()).unwrap_or(u32::MAX)),
        };
        let label = Label {
            purpose: Purpose::Control,
            audience: self.id().to_string(),
            number: self.hub.keys.rising_number(now),
            issued: now,
            lifetime: beat.lost_after(),
        };
        Ok(self.hub.keys.sign(label, &beat).map_err(HubFault::from)?)
    }
}
