//! What of a record's bytes need not be compressed, because it cannot be: its salt and the hash before it. They are
//! cut out, and put back exactly.

use crate::digest::{DIGEST_BYTES, Digest};
use crate::record::{SALT_BYTES, Salt, SealedRecord};

/// How a record with salt begins.
const SALT_FIELD: &[u8] = b"{\"salt\":\"";
/// Names and ids hold no quotation marks, so this is nowhere before the field itself.
const PREV_FIELD: &[u8] = b",\"prev\":\"";

/// The salt stands apart.
const SALT_APART: u8 = 1;
/// The hash before stands apart.
const PREV_APART: u8 = 2;
/// The hash before is that of a record that precedes it in the same part.
const PREV_KNOWN: u8 = 4;

/// Which pieces are cut out of a record's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form(u8);

/// A record in pieces.
pub(super) struct Pieces {
    pub(super) form: Form,
    pub(super) text: Vec<u8>,
    /// The salt, then the hash before, as far as they stand apart.
    pub(super) apart: Vec<u8>,
}

impl Form {
    /// None if no record has such a form.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = SALT_APART | PREV_APART | PREV_KNOWN;
        let both = PREV_APART | PREV_KNOWN;
        (byte & !all == 0 && byte & both != both).then_some(Self(byte))
    }

    pub(super) fn to_byte(self) -> u8 {
        self.0
    }

    pub(super) fn has_salt_apart(self) -> bool {
        self.0 & SALT_APART != 0
    }

    pub(super) fn has_prev_apart(self) -> bool {
        self.0 & PREV_APART != 0
    }

    pub(super) fn has_prev_known(self) -> bool {
        self.0 & PREV_KNOWN != 0
    }

    /// Bytes that stand apart.
    pub(super) fn apart_bytes(self) -> usize {
        let salt = if self.has_salt_apart() { SALT_BYTES } else { 0 };
        let prev = if self.has_prev_apart() {
            DIGEST_BYTES
        } else {
            0
        };
        salt + prev
    }

    /// Bytes of the record that is put together of a text of `text` bytes.
    pub(super) fn whole_bytes(self, text: usize) -> usize {
        let salt = if self.has_salt_apart() {
            2 * SALT_BYTES
        } else {
            0
        };
        let has_prev = self.has_prev_apart() || self.has_prev_known();
        text + salt + if has_prev { 2 * DIGEST_BYTES } else { 0 }
    }
}

/// Takes a record apart; whether the record that it names the hash of precedes it in the part is known to the caller.
pub(super) fn take_apart(sealed: &SealedRecord, is_prev_known: bool) -> Pieces {
    let record = sealed.record();
    let prev_form = match is_prev_known {
        true => PREV_KNOWN,
        false => PREV_APART,
    };
    let salt_form = if record.salt.is_some() { SALT_APART } else { 0 };
    let form = Form(salt_form | prev_form);
    let bytes = sealed.bytes();
    if let Some(text) = without(bytes, form) {
        let mut apart = Vec::with_capacity(form.apart_bytes());
        if let Some(salt) = &record.salt {
            apart.extend_from_slice(salt.as_bytes());
        }
        if form.has_prev_apart() {
            apart.extend_from_slice(record.prev.as_bytes());
        }
        let salt = record.salt.as_ref().map(Salt::as_bytes);
        let whole = put_together(form, &text, salt, Some(&record.prev));
        // Whatever does not come back as it is stays as it is.
        if whole.is_some_and(|whole| whole == bytes) {
            return Pieces { form, text, apart };
        }
    }
    Pieces {
        form: Form::default(),
        text: bytes.to_vec(),
        apart: Vec::new(),
    }
}

/// A record's bytes; none if the text has no place for what was cut out.
pub(super) fn put_together(
    form: Form,
    text: &[u8],
    salt: Option<&[u8; SALT_BYTES]>,
    prev: Option<&Digest>,
) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(form.whole_bytes(text.len()));
    let mut rest = text;
    if form.has_salt_apart() {
        let (before, after) = split_behind(rest, SALT_FIELD)?;
        whole.extend_from_slice(before);
        whole.extend_from_slice(hex::encode(salt?).as_bytes());
        rest = after;
    }
    if form.has_prev_apart() || form.has_prev_known() {
        let (before, after) = split_behind(rest, PREV_FIELD)?;
        whole.extend_from_slice(before);
        whole.extend_from_slice(hex::encode(prev?.as_bytes()).as_bytes());
        rest = after;
    }
    whole.extend_from_slice(rest);
    Some(whole)
}

/// The text without what the form keeps apart.
fn without(bytes: &[u8], form: Form) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    if form.has_salt_apart() {
        let (before, after) = split_behind(rest, SALT_FIELD)?;
        text.extend_from_slice(before);
        rest = after.get(2 * SALT_BYTES..)?;
    }
    let (before, after) = split_behind(rest, PREV_FIELD)?;
    text.extend_from_slice(before);
    text.extend_from_slice(after.get(2 * DIGEST_BYTES..)?);
    Some(text)
}

/// Splits behind the first place where `field` stands.
fn split_behind<'a>(bytes: &'a [u8], field: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(field.len())
        .position(|window| window == field)?;
    bytes.split_at_checked(at + field.len())
}
