//! Windows of time, judged by the clock on the wall of one time zone.
//!
//! A window is open whenever that clock reads at least `from` and less than `to`, on a day it names. One that
//! crosses midnight belongs to the day on which it starts. So where daylight saving repeats an hour the window is
//! open in both, and where it skips one the window is not open in it. The time zone database is the one built in.

use edgeward_identity::Timestamp;
use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Minutes of a day: the largest `to`, written `24:00`.
pub const MINUTES_PER_DAY: u16 = 24 * 60;
/// How far ahead the next edge is looked for, in days: a weekly window that daylight saving skips once.
const EDGE_HORIZON_DAYS: i64 = 16;

/// A weekly window as the policy says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub name: String,
    /// IANA name.
    pub tz: String,
    /// Days on which it starts, never empty.
    pub days: Vec<Day>,
    /// Minute of the day, 0 to 1439.
    pub from: u16,
    /// Minute of the day, 0 to 1440; at or below `from` it is on the next day.
    pub to: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A window ready to be asked. One whose zone or minutes make no sense cannot be evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    zone: Option<TimeZone>,
    days: Vec<Weekday>,
    from: u16,
    to: u16,
}

impl Day {
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// Whether the built-in database knows the zone.
pub(crate) fn zone_exists(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

impl Schedule {
    pub(crate) fn new(window: &Window) -> Self {
        let sound = window.from < MINUTES_PER_DAY
            && window.to <= MINUTES_PER_DAY
            && window.from != window.to
            && !window.days.is_empty();
        Self {
            zone: TimeZone::get(&window.tz).ok().filter(|_| sound),
            days: window.days.iter().map(|day| day.weekday()).collect(),
            from: window.from,
            to: window.to,
        }
    }

    /// `None` where it cannot be told.
    pub(crate) fn is_open(&self, at: Timestamp) -> Option<bool> {
        let zone = self.zone.as_ref()?;
        Some(self.is_open_at(zone.to_datetime(instant(at)?)))
    }

    /// The next time at which it opens or closes; `None` where there is none or it cannot be told.
    pub(crate) fn next_edge(&self, after: Timestamp) -> Option<Timestamp> {
        let zone = self.zone.as_ref()?;
        let start = instant(after)?;
        let local = zone.to_datetime(start);
        let open_now = self.is_open_at(local);
        let turn = zone.following(start).next().map(|turn| turn.timestamp());
        for day in -1..EDGE_HORIZON_DAYS {
            let date = local.date().checked_add(day.days()).ok()?;
            let mut edges = self.edges_on(zone, date);
            edges.extend(turn.filter(|turn| zone.to_datetime(*turn).date() == date));
            edges.retain(|edge| *edge > start);
            edges.sort_unstable();
            let edge = edges
                .into_iter()
                .find(|edge| self.is_open_at(zone.to_datetime(*edge)) != open_now);
            if let Some(edge) = edge {
                return u64::try_from(edge.as_millisecond())
                    .ok()
                    .map(Timestamp::from_millis);
            }
        }
        None
    }

    fn is_open_at(&self, local: DateTime) -> bool {
        let minute = minute_of_day(local);
        let today = self.days.contains(&local.weekday());
        if self.from < self.to {
            return today && self.from <= minute && minute < self.to;
        }
        let yesterday = self.days.contains(&local.weekday().previous());
        (today && self.from <= minute) || (yesterday && minute < self.to)
    }

    /// Where the window might open or close around one civil day: both readings of an hour that comes twice.
    fn edges_on(&self, zone: &TimeZone, date: Date) -> Vec<jiff::Timestamp> {
        let mut edges = Vec::new();
        for minutes in [self.from, self.to] {
            let local = date
                .to_datetime(jiff::civil::Time::midnight())
                .checked_add(i64::from(minutes).minutes());
            let Ok(local) = local else { continue };
            let reading = zone.to_ambiguous_timestamp(local);
            edges.extend(reading.earlier().ok());
            edges.extend(reading.later().ok());
        }
        edges
    }
}

fn instant(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.millis()).ok()?).ok()
}

fn minute_of_day(local: DateTime) -> u16 {
    u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs())
}

#[cfg(test)]
mod tests;
