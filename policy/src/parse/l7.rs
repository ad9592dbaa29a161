//! `l7 = { proto, actions = { name = [patterns] } }` of an interface.

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Keys, Reader};
use crate::ast::Overlap;
use crate::diagnostic::Code;
use crate::l7::mqtt::{self, Operation};
use crate::l7::{BadPattern, Compare, L7, MAX_ACTIONS, MAX_PATTERNS, Patterns};
use crate::slice::CONNECT;
use crate::source::Placed;

const KEYS: Keys = Keys {
    accepted: &["proto", "actions"],
    not_enforced: &[],
};

#[derive(Clone, Copy)]
enum Protocol {
    Http,
    Mqtt,
    Modbus,
}

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("http", Protocol::Http),
    ("mqtt", Protocol::Mqtt),
    ("modbus", Protocol::Modbus),
];

pub(super) fn read_l7(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    interface: &str,
) -> Option<(L7, Vec<Overlap>)> {
    let what = format!("l7 of interface `{interface}`");
    let fields = reader.table(value, &what, &KEYS)?;
    let proto = fields.required_string(reader, "proto");
    let actions = fields.required(reader, "actions");
    let proto = proto.and_then(|word| reader.word(&word, "proto", &PROTOCOLS));
    let actions = read_actions(reader, actions?, &what)?;
    let mut overlaps = Vec::new();
    let all = &mut overlaps;
    let l7 = match proto? {
        Protocol::Http => L7::Http(patterns(reader, actions, |_, text| text.parse(), all)?),
        Protocol::Modbus => L7::Modbus(patterns(reader, actions, |_, text| text.parse(), all)?),
        Protocol::Mqtt => L7::Mqtt(patterns(reader, actions, mqtt_pattern, all)?),
    };
    Some((l7, overlaps))
}

type Actions = Vec<(Placed<String>, Vec<Placed<String>>)>;

fn read_actions(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Actions> {
    let named = reader.named(value, "action");
    let at = reader.place(value.span().start);
    if named.is_empty() || named.len() > MAX_ACTIONS {
        reader.bad(
            at,
            format!("{what} has {} actions", named.len()),
            format!("1 to {MAX_ACTIONS}: actions = {{ read = [\"…\"] }}"),
        );
        return None;
    }
    let mut actions = Vec::with_capacity(named.len());
    for (name, value) in named {
        if name.value == CONNECT {
            reader.bad(
                name.at,
                "action `connect` is there already: it opens a connection and nothing more",
                "give the action another name",
            );
            return None;
        }
        let texts = reader.strings(value, &format!("action `{}`", name.value))?;
        if texts.len() > MAX_PATTERNS {
            reader.bad(
                name.at,
                format!("action `{}` has more patterns than fit", name.value),
                format!("at most {MAX_PATTERNS}"),
            );
            return None;
        }
        actions.push((name, texts));
    }
    Some(actions)
}

fn patterns<P: Compare>(
    reader: &mut Reader<'_, '_>,
    actions: Actions,
    parse: impl Fn(&str, &str) -> Result<P, BadPattern>,
    overlaps: &mut Vec<Overlap>,
) -> Option<Vec<Patterns<P>>> {
    let mut all = Vec::with_capacity(actions.len());
    let mut sound = true;
    for (name, texts) in &actions {
        let mut any_of: Vec<P> = Vec::with_capacity(texts.len());
        for text in texts {
            match parse(&name.value, &text.value) {
                Ok(pattern) => any_of.push(pattern),
                Err(BadPattern { found, expected }) => {
                    reader.bad(text.at, found, expected);
                    sound = false;
                }
            }
        }
        all.push(Patterns {
            action: name.value.clone(),
            any_of,
        });
    }
    if !sound {
        return None;
    }
    for (patterns, (_, texts)) in all.iter().zip(&actions) {
        sound &= tells_apart(reader, &patterns.any_of, texts);
    }
    let placed: Vec<(&Patterns<P>, &[Placed<String>])> = all
        .iter()
        .zip(&actions)
        .map(|(patterns, (_, texts))| (patterns, texts.as_slice()))
        .collect();
    for (index, later) in placed.iter().enumerate() {
        let earlier = placed.iter().take(index);
        overlaps.extend(earlier.filter_map(|earlier| overlap(*earlier, *later)));
    }
    sound.then_some(all)
}

/// Every pattern of an action means something that the others of it do not.
fn tells_apart<P: Compare>(
    reader: &mut Reader<'_, '_>,
    patterns: &[P],
    texts: &[Placed<String>],
) -> bool {
    let mut sound = true;
    for (index, (pattern, text)) in patterns.iter().zip(texts).enumerate() {
        let mut others = patterns.iter().zip(texts).enumerate();
        let cover = others.find(|(other, (wider, _))| {
            // Of two that mean the same the later one goes.
            *other != index && wider.covers(pattern) && (!pattern.covers(wider) || *other < index)
        });
        if let Some((_, (_, wider))) = cover {
            reader.found.error_with_help(
                text.at,
                Code::Shadowed,
                format!("pattern {:?} changes nothing", text.value),
                format!("{:?} of the same action covers it", wider.value),
            );
            sound = false;
        }
    }
    sound
}

/// The first patterns of two actions that some request fits both.
fn overlap<P: Compare>(
    (earlier, earlier_texts): (&Patterns<P>, &[Placed<String>]),
    (later, later_texts): (&Patterns<P>, &[Placed<String>]),
) -> Option<Overlap> {
    let mut laters = later.any_of.iter().zip(later_texts);
    laters.find_map(|(pattern, text)| {
        let mut earliers = earlier.any_of.iter().zip(earlier_texts);
        let (_, other) = earliers.find(|(other, _)| other.meets(pattern))?;
        Some(Overlap {
            at: text.at,
            action: later.action.clone(),
            pattern: text.value.clone(),
            other_action: earlier.action.clone(),
            other_pattern: other.value.clone(),
        })
    })
}

/// In policy files the action's name says what is done: `publish = ["line3/+/temp"]`.
fn mqtt_pattern(action: &str, text: &str) -> Result<mqtt::Pattern, BadPattern> {
    let operation = match action {
        "publish" => Operation::Publish,
        "subscribe" => Operation::Subscribe,
        _ => {
            return Err(BadPattern {
                found: format!("not an action of MQTT: {action:?}"),
                expected: "MQTT has two: publish and subscribe",
            });
        }
    };
    mqtt::Pattern::new(operation, text)
}
