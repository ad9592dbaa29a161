//! Sets of small numbers as text, six to a character, so that casbin's engine can carry them and a test is one
//! comparison of bytes. Every character is in `@`..=DEL.

/// Members to a character.
pub(super) const DIGIT: usize = 6;
const MARK: u8 = 0x40;
const MASK: u8 = 0x3f;

/// Sets and numbers, one after the other.
#[derive(Default)]
pub(super) struct Digits(Vec<u8>);

impl Digits {
    /// A set in exactly `digits` characters; members beyond are left out.
    pub(super) fn push_set(&mut self, members: impl IntoIterator<Item = usize>, digits: usize) {
        let start = self.0.len();
        self.0.resize(start + digits, MARK);
        let Some(set) = self.0.get_mut(start..) else {
            return;
        };
        for member in members {
            if let Some(digit) = set.get_mut(member / DIGIT) {
                *digit |= 1 << (member % DIGIT);
            }
        }
    }

    /// A number in exactly `digits` characters, the lowest first; what is higher is lost.
    pub(super) fn push_number(&mut self, mut number: usize, digits: usize) {
        for _ in 0..digits {
            let low = u8::try_from(number & usize::from(MASK)).unwrap_or_default();
            self.0.push(MARK | low);
            number >>= DIGIT;
        }
    }

    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.0).unwrap_or_default()
    }
}

/// Whether two sets have a common member.
pub(super) fn meet(one: &[u8], other: &[u8]) -> bool {
    one.iter()
        .zip(other)
        .any(|(one, other)| one & other & MASK != 0)
}

pub(super) fn contains(set: &[u8], member: usize) -> bool {
    set.get(member / DIGIT)
        .is_some_and(|digit| digit & (1 << (member % DIGIT)) != 0)
}

/// `None` for what is no number.
pub(super) fn number(digits: &[u8]) -> Option<usize> {
    let low_first = digits.iter().rev();
    low_first
        .map(|digit| (digit & MARK != 0).then_some(usize::from(digit & MASK)))
        .try_fold(0, |number, digit| Some(number << DIGIT | digit?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_its_members_and_none_beyond_its_digits() {
        let mut digits = Digits::default();
        digits.push_number(70, 3);
        digits.push_set([0, 5, 6, 17, 18, 999], 3);
        let text = digits.into_text();
        assert_eq!(text.len(), 6);
        let (seventy, set) = text.as_bytes().split_at(3);
        assert_eq!(number(seventy), Some(70));
        let members: Vec<usize> = (0..100).filter(|member| contains(set, *member)).collect();
        assert_eq!(members, [0, 5, 6, 17]);
        assert!(meet(set, b"`"));
        assert!(!meet(set, b"P"));
        assert!(!meet(set, b""));
        assert_eq!(number(b"0"), None);
    }

    #[test]
    fn a_mark_is_no_member() {
        let mut empty = Digits::default();
        empty.push_set([], 2);
        let text = empty.into_text();
        assert!(!meet(text.as_bytes(), b"\x7f\x7f"));
        assert!(!(0..64).any(|member| contains(text.as_bytes(), member)));
    }
}
