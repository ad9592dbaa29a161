//! Modbus/TCP: function codes, and where they have them data addresses and the unit ("Modbus Application Protocol
//! Specification V1.1b3", "Modbus Messaging on TCP/IP V1.0b").

use std::fmt;
use std::str::FromStr;

use super::{BadPattern, MAX_PATTERN_BYTES};

const EXPECTED: &str = "write function codes, and if needed addresses and units: `fc:1-4`, `fc:5,6,15,16 addr:0-99 unit:1`";

/// Which requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    codes: Ranges,
    /// `None`: every address, and requests that have none.
    addresses: Option<Ranges>,
    /// `None`: every unit.
    units: Option<Ranges>,
}

/// Numbers, as closed ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ranges {
    /// In the order written.
    written: Vec<(u16, u16)>,
    /// The same numbers, sorted, none overlapping or touching the next: a range lies within all of them if it lies
    /// within one.
    merged: Vec<(u16, u16)>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub function: u8,
    pub unit: u8,
    /// Every data address that it touches, as up to two closed ranges (function 23 reads one and writes another; with
    /// one range it stands twice). `None` for a function that has no data addresses (files and records of them are
    /// none) or whose addresses are unknown: fits no pattern that names addresses.
    pub addresses: Option<[(u16, u16); 2]>,
}

impl Pattern {
    /// Whether some request of this function to this unit fits, whatever its addresses.
    pub fn names_function(&self, function: u8, unit: u8) -> bool {
        let (function, unit) = (u16::from(function), u16::from(unit));
        let units = self.units.as_ref();
        self.codes.contain(function, function)
            && units.is_none_or(|units| units.contain(unit, unit))
    }

    pub fn fits(&self, request: &Request) -> bool {
        let addresses_fit = match (&self.addresses, request.addresses) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(allowed), Some(touched)) => touched
                .iter()
                .all(|(first, last)| allowed.contain(*first, *last)),
        };
        addresses_fit && self.names_function(request.function, request.unit)
    }
}

impl super::Compare for Pattern {
    fn covers(&self, other: &Self) -> bool {
        let within = |own: &Option<Ranges>, other: &Option<Ranges>| match (own, other) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.hold(other),
        };
        self.codes.hold(&other.codes)
            && within(&self.addresses, &other.addresses)
            && within(&self.units, &other.units)
    }

    fn meets(&self, other: &Self) -> bool {
        let meet = |own: &Option<Ranges>, other: &Option<Ranges>| match (own, other) {
            (Some(own), Some(other)) => own.meet(other),
            _ => true,
        };
        self.codes.meet(&other.codes)
            && meet(&self.addresses, &other.addresses)
            && meet(&self.units, &other.units)
    }
}

impl Ranges {
    fn hold(&self, other: &Self) -> bool {
        let mut ranges = other.merged.iter();
        ranges.all(|(first, last)| self.contain(*first, *last))
    }

    fn meet(&self, other: &Self) -> bool {
        let mut ranges = self.merged.iter();
        ranges.any(|(from, to)| {
            let mut others = other.merged.iter();
            others.any(|(first, last)| from <= last && first <= to)
        })
    }

    /// Whether all of `first..=last` is among the numbers.
    fn contain(&self, first: u16, last: u16) -> bool {
        // The last range that begins at or before `first` is the only one that can hold it.
        let after = self.merged.partition_point(|(from, _)| *from <= first);
        let held = after
            .checked_sub(1)
            .and_then(|index| self.merged.get(index))
            .is_some_and(|(_, to)| last <= *to);
        first <= last && held
    }

    fn parse(text: &str, least: u16, most: u16) -> Option<Self> {
        let ranges = text.split(',').map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let number = text.parse::<u16>().ok()?;
                let plain = number.to_string() == text && (least..=most).contains(&number);
                plain.then_some(number)
            };
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then_some((from, to))
        });
        let written: Vec<_> = ranges.collect::<Option<_>>()?;
        let merged = merge(&written);
        Some(Self { written, merged })
    }
}

/// Sorted, with what overlaps or touches made one.
fn merge(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (from, to) in sorted {
        match merged.last_mut() {
            Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
            _ => merged.push((from, to)),
        }
    }
    merged
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = |why: &str| BadPattern {
            found: format!("{why}: {text:?}"),
            expected: EXPECTED,
        };
        if text.len() > MAX_PATTERN_BYTES {
            return Err(bad("pattern is too long"));
        }
        let (mut codes, mut addresses, mut units) = (None, None, None);
        for part in text.split(' ') {
            let (key, value) = part.split_once(':').ok_or_else(|| bad("no key"))?;
            let (place, least, most) = match key {
                "fc" => (&mut codes, 1, 127),
                "addr" => (&mut addresses, 0, u16::MAX),
                "unit" => (&mut units, 0, 255),
                _ => return Err(bad("unknown key")),
            };
            let ranges = Ranges::parse(value, least, most).ok_or_else(|| bad("not numbers"))?;
            if place.replace(ranges).is_some() {
                return Err(bad("a key stands twice"));
            }
        }
        Ok(Self {
            codes: codes.ok_or_else(|| bad("no function codes"))?,
            addresses,
            units,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fc:{}", self.codes)?;
        if let Some(addresses) = &self.addresses {
            write!(f, " addr:{addresses}")?;
        }
        match &self.units {
            Some(units) => write!(f, " unit:{units}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, to)) in self.written.iter().enumerate() {
            let before = if index > 0 { "," } else { "" };
            match from == to {
                true => write!(f, "{before}{from}")?,
                false => write!(f, "{before}{from}-{to}")?,
            }
        }
        Ok(())
    }
}

super::as_text!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_addresses_and_units_must_all_fit() {
        let pattern: Pattern = "fc:5,6,15-16 addr:0-99,200 unit:1".parse().unwrap();
        let request = |function, unit, first, last| Request {
            function,
            unit,
            addresses: Some([(first, last), (first, last)]),
        };
        assert!(pattern.fits(&request(16, 1, 90, 99)));
        assert!(pattern.fits(&request(5, 1, 200, 200)));
        for other in [
            request(3, 1, 0, 1),
            request(16, 2, 0, 1),
            request(16, 1, 90, 100),
            request(16, 1, 99, 200),
            request(16, 1, 9, 3),
            Request {
                addresses: None,
                ..request(16, 1, 0, 0)
            },
        ] {
            assert!(!pattern.fits(&other), "{other:?}");
        }
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one_and_read_as_written() {
        let text = "fc:16 addr:100-199,0-99,150-250,300,302,65535";
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.to_string(), text);
        let fits = |first, last| {
            pattern.fits(&Request {
                function: 16,
                unit: 1,
                addresses: Some([(first, last), (first, last)]),
            })
        };
        for (first, last) in [(90, 110), (0, 250), (250, 250), (300, 300), (65535, 65535)] {
            assert!(fits(first, last), "{first}-{last}");
        }
        for (first, last) in [
            (250, 251),
            (300, 302),
            (301, 301),
            (251, 251),
            (65534, 65535),
        ] {
            assert!(!fits(first, last), "{first}-{last}");
        }
    }

    #[test]
    fn merged_ranges_hold_what_the_written_ones_hold() {
        // Every number singly, and every pair of a small space, against the plain reading of what is written.
        let text = "fc:1 addr:7-9,3,4-5,9-12,20-20,18-19,0,2";
        let pattern: Pattern = text.parse().unwrap();
        let written = [
            (7, 9),
            (3, 3),
            (4, 5),
            (9, 12),
            (20, 20),
            (18, 19),
            (0, 0),
            (2, 2),
        ];
        for first in 0..24_u16 {
            for last in first..24 {
                let plain = (first..=last).all(|number| {
                    written
                        .iter()
                        .any(|(from, to)| (*from..=*to).contains(&number))
                });
                let request = Request {
                    function: 1,
                    unit: 0,
                    addresses: Some([(first, last); 2]),
                };
                assert_eq!(pattern.fits(&request), plain, "{first}-{last}");
            }
        }
    }

    #[test]
    fn both_ranges_of_a_request_must_fit() {
        let pattern: Pattern = "fc:23 addr:0-9".parse().unwrap();
        let request = |read, written| Request {
            function: 23,
            unit: 1,
            addresses: Some([read, written]),
        };
        assert!(pattern.fits(&request((0, 3), (5, 9))));
        assert!(!pattern.fits(&request((0, 3), (5, 10))));
        assert!(!pattern.fits(&request((9, 10), (5, 9))));
    }

    #[test]
    fn what_is_not_written_plainly_is_not_a_pattern() {
        for text in [
            "",
            "addr:1",
            "fc:0",
            "fc:128",
            "fc:3-1",
            "fc:1 fc:2",
            "fc:01",
            "fc:1  addr:1",
            "fc:1 addr:65536",
            "fc:1,",
            "fc:1 reg:3",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        for text in ["fc:1-4", "fc:5,6,15-16 addr:0-99,200 unit:1"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }
}
