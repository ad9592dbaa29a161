//! Which grants were opened here: kept in the sealed state, so that a restored disk forgets none.

use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::OpenGlass;

/// Most uses that are remembered. One is forgotten once its grant has ended, and opens nothing any more by itself.
pub const MAX_USES: usize = 256;

/// Every use of a grant that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GlassUses(Vec<GlassUse>);

/// One grant, opened once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlassUse {
    pub number: u64,
    pub name: String,
    /// When the grant ends.
    pub ends: Timestamp,
    pub rules: Vec<String>,
    pub by: Vec<SpiffeId>,
    pub opened: Timestamp,
    /// The kernel's boot id: a reboot closes what was open, since its boot clock is another one.
    pub kernel_boot: String,
    /// Milliseconds of that boot's `CLOCK_BOOTTIME` at which it closes.
    pub until_boot_millis: u64,
    pub closed: bool,
}

impl GlassUse {
    fn until(&self) -> BootTime {
        BootTime::from_duration(Duration::from_millis(self.until_boot_millis))
    }
}

impl GlassUses {
    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|held| held.number == number)
    }

    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_USES
    }

    /// Remembers a use; forgets those whose grants have ended.
    pub fn add(&mut self, one: GlassUse, now: Timestamp) {
        self.0.retain(|held| now < held.ends);
        self.0.push(one);
    }

    /// For an opening that could not be stored: nothing was opened.
    pub fn take_back(&mut self, number: u64) {
        self.0.retain(|held| held.number != number);
    }

    /// Closes what is open for good, all of it or one.
    pub fn close(&mut self, number: Option<u64>) {
        for held in &mut self.0 {
            held.closed |= number.is_none_or(|number| held.number == number);
        }
    }

    /// What is open at a moment of this boot.
    pub fn open_at(&self, kernel_boot: &str, now: BootTime) -> Vec<OpenGlass> {
        self.0
            .iter()
            .filter(|held| !held.closed && held.kernel_boot == kernel_boot && now < held.until())
            .map(|held| OpenGlass {
                number: held.number,
                name: held.name.as_str().into(),
                rules: held.rules.iter().map(|rule| rule.as_str().into()).collect(),
                by: held.by.clone(),
                until: held.until(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(number: u64, until: u64) -> GlassUse {
        GlassUse {
            number,
            name: "line3".to_owned(),
            ends: Timestamp::from_secs(1000),
            rules: vec!["vendor".to_owned()],
            by: Vec::new(),
            opened: Timestamp::from_secs(10),
            kernel_boot: "boot-1".to_owned(),
            until_boot_millis: until * 1000,
            closed: false,
        }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn nothing_is_open_past_its_end_after_a_reboot_or_once_closed() {
        let mut uses = GlassUses::default();
        uses.add(used(1, 50), Timestamp::from_secs(10));
        assert_eq!(uses.open_at("boot-1", at(49)).len(), 1);
        assert!(uses.open_at("boot-1", at(50)).is_empty());
        assert!(uses.open_at("boot-2", at(5)).is_empty());
        uses.close(Some(2));
        assert_eq!(uses.open_at("boot-1", at(49)).len(), 1);
        uses.close(None);
        assert!(uses.open_at("boot-1", at(49)).is_empty());
        assert!(uses.contains(1));
    }

    #[test]
    fn a_use_is_remembered_until_its_grant_has_ended() {
        let mut uses = GlassUses::default();
        uses.add(used(1, 50), Timestamp::from_secs(10));
        uses.add(used(2, 50), Timestamp::from_secs(999));
        assert!(uses.contains(1));
        uses.add(used(3, 50), Timestamp::from_secs(1000));
        assert!(!uses.contains(1));
    }
}
