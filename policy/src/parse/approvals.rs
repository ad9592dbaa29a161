//! `approval` of a rule, and what it shares with `[break-glass.x]`: which people, how many of them, for how long.

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use crate::ast::ApprovalDef;
use crate::seconds::Seconds;
use crate::source::{MAX_LIST, Placed};

/// Longest time that one approval holds.
pub(crate) const MAX_APPROVAL_TTL: Seconds = Seconds::from_hours(7 * 24);
/// Shortest time that an approval or an opening holds: less is over before anybody could use it.
const MIN_TTL: Seconds = Seconds::new(10);

const APPROVAL: Keys = Keys {
    accepted: &["by", "quorum", "ttl"],
    not_enforced: &[],
};

/// Absent: the rule asks for none.
pub(super) fn read_approval(
    reader: &mut Reader<'_, '_>,
    rule: &Fields<'_>,
) -> Result<Option<ApprovalDef>, Unreadable> {
    let Some(value) = rule.get("approval") else {
        return Ok(None);
    };
    let fields = reader
        .table(value, &rule.what("approval"), &APPROVAL)
        .ok_or(Unreadable)?;
    let by = read_by(reader, &fields);
    let quorum = read_quorum(reader, &fields);
    let ttl = read_ttl(reader, &fields, MAX_APPROVAL_TTL);
    Ok(Some(ApprovalDef {
        at: fields.at,
        by: by.ok_or(Unreadable)?,
        quorum: quorum.ok_or(Unreadable)?,
        ttl: ttl.ok_or(Unreadable)?,
    }))
}

/// Names of operator groups, each once.
pub(super) fn read_by(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Option<Vec<Placed<String>>> {
    let value = fields.required(reader, "by")?;
    let what = fields.what("by");
    let mut names: Vec<Placed<String>> = Vec::new();
    for text in reader.strings(value, &what)? {
        let name = match text.value.split_once(':') {
            Some(("operator-group", name)) if !name.is_empty() => name.to_owned(),
            _ => {
                let message = format!("{what} is no group of operators: {:?}", text.value);
                reader.bad(text.at, message, "write \"operator-group:<name>\"");
                return None;
            }
        };
        if names.iter().any(|known| known.value == name) {
            let message = format!("{what} names twice: {:?}", text.value);
            reader.bad(text.at, message, "name it once");
            return None;
        }
        names.push(Placed {
            value: name,
            at: text.at,
        });
    }
    Some(names)
}

pub(super) fn read_quorum(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Option<Placed<u16>> {
    let value = fields.required(reader, "quorum")?;
    let what = fields.what("quorum");
    let at = reader.place(value.span().start);
    let number = whole_number(reader, value, &what)?;
    if (1..=MAX_LIST).contains(&usize::from(number)) {
        return Some(Placed { value: number, at });
    }
    reader.bad(
        at,
        format!("{what} is out of bounds: {number}"),
        format!("how many people it takes: 1 to {MAX_LIST}"),
    );
    None
}

pub(super) fn read_ttl(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    most: Seconds,
) -> Option<Placed<Seconds>> {
    fields.required(reader, "ttl")?;
    let ttl = fields.seconds(reader, "ttl").ok().flatten()?;
    if (MIN_TTL..=most).contains(&ttl.value) {
        return Some(ttl);
    }
    reader.bad(
        ttl.at,
        format!("{} is out of bounds: {}", fields.what("ttl"), ttl.value),
        format!("from {MIN_TTL} to {most}"),
    );
    None
}

fn whole_number(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<u16> {
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, what, "a number: 2");
        return None;
    };
    let number = u16::from_str_radix(integer.as_str(), integer.radix());
    if number.is_err() {
        let at = reader.place(value.span().start);
        let message = format!("{what} is out of bounds: {}", integer.as_str());
        reader.bad(at, message, "how many people it takes, at least 1");
    }
    number.ok()
}
