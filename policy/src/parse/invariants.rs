//! `[[invariant]]`: what must never be allowed.

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader};
use super::parties::TIERS;
use super::rules::{MAX_TEST_NAME_BYTES, STATES, peek_string, read_source, read_target};
use crate::ast::InvariantDef;
use crate::source::Placed;

const INVARIANT: Keys = Keys {
    accepted: &["name", "never"],
    not_enforced: &[],
};
const NEVER: Keys = Keys {
    accepted: &["from", "to", "do", "outside", "state", "tier"],
    not_enforced: &[],
};

pub(super) fn read_invariant(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<InvariantDef> {
    let name = peek_string(value, "name");
    let what = name.map_or_else(
        || "an invariant".to_owned(),
        |name| format!("invariant `{name}`"),
    );
    let fields = reader.table(value, &what, &INVARIANT)?;
    let name = fields.required_string(reader, "name").filter(|name| {
        let fits = !name.value.trim().is_empty() && name.value.len() <= MAX_TEST_NAME_BYTES;
        if !fits {
            let help = format!("1 to {MAX_TEST_NAME_BYTES} bytes");
            reader.bad(name.at, "name of the invariant does not fit", help);
        }
        fits
    });
    let never = fields.required(reader, "never");
    let never =
        never.and_then(|value| reader.table(value, &format!("`never` of {what}"), &NEVER))?;
    let from = required(reader, &never, "from", read_source);
    let to = required(reader, &never, "to", read_target);
    let actions = match never.get("do") {
        None => Some(None),
        Some(value) => one_or_more(reader, value, &never.what("do")).map(Some),
    };
    let outside = never.optional_string(reader, "outside");
    let state = never.words(reader, "state", &STATES);
    let tier = never.words(reader, "tier", &TIERS);
    Some(InvariantDef {
        name: name?,
        from: from?,
        to: to?,
        actions: actions?,
        outside: outside.ok()?,
        state: state.ok()?,
        tier: tier.ok()?,
    })
}

fn required<T>(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    read: impl Fn(&mut Reader<'_, '_>, &Placed<String>) -> Option<T>,
) -> Option<Vec<Placed<T>>> {
    let value = fields.required(reader, key)?;
    let texts = one_or_more(reader, value, &fields.what(key))?;
    let items: Vec<_> = texts
        .iter()
        .filter_map(|text| {
            let value = read(reader, text)?;
            Some(Placed { value, at: text.at })
        })
        .collect();
    (items.len() == texts.len()).then_some(items)
}

fn one_or_more(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Vec<Placed<String>>> {
    match value.get_ref() {
        DeValue::String(_) => reader.string(value, what).map(|text| vec![text]),
        _ => reader.strings(value, what),
    }
}
