//! `[break-glass.x]`: what may be opened with the cloud gone, by whom, for how long.

use toml::Spanned;
use toml::de::DeValue;

use super::approvals::{read_by, read_quorum, read_ttl};
use super::fields::{Keys, Reader};
use crate::ast::BreakGlassDef;
use crate::diagnostic::Code;
use crate::seconds::Seconds;
use crate::source::Placed;

/// Longest time that anything stays open.
pub(crate) const MAX_BREAK_GLASS_TTL: Seconds = Seconds::from_hours(72);
/// Most rules that one opens, and most people who may open it, each: what fits an envelope.
pub(crate) const MAX_BREAK_GLASS_NAMES: usize = 64;

const BREAK_GLASS: Keys = Keys {
    accepted: &["grants", "by", "quorum", "ttl"],
    not_enforced: &[],
};

pub(super) fn read_break_glass(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<BreakGlassDef> {
    let what = format!("break-glass `{}`", name.value);
    let fields = reader.table(value, &what, &BREAK_GLASS)?;
    let grants = fields
        .required(reader, "grants")
        .and_then(|value| reader.strings(value, &fields.what("grants")));
    if let Some(grants) = &grants {
        for (index, grant) in grants.iter().enumerate() {
            if grants
                .iter()
                .take(index)
                .any(|known| known.value == grant.value)
            {
                let message = format!("{} names twice: {:?}", fields.what("grants"), grant.value);
                reader.bad(grant.at, message, "name it once");
                return None;
            }
        }
        if let Some(first_too_many) = grants.get(MAX_BREAK_GLASS_NAMES) {
            reader.found.error(
                first_too_many.at,
                Code::TooMuch,
                format!("{what} opens more rules than the limit: {MAX_BREAK_GLASS_NAMES}"),
            );
            return None;
        }
    }
    let by = read_by(reader, &fields);
    let quorum = read_quorum(reader, &fields);
    let ttl = read_ttl(reader, &fields, MAX_BREAK_GLASS_TTL);
    Some(BreakGlassDef {
        name,
        grants: grants?,
        by: by?,
        quorum: quorum?,
        ttl: ttl?,
    })
}
