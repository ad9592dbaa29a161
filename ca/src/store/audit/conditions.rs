//! Filters as SQL.

use edgeward_audit::query::{ActorFilter, Filter};
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe};

use crate::store::to_column;

/// All who proved nothing, as the index `events_anonymous` has it.
pub(super) const ANONYMOUS: &str = "substr(actor, 1, 9) = 'anonymous'";

/// What is bound to a parameter.
pub(super) enum Value {
    Number(i64),
    Text(String),
}

/// A `WHERE` made of fixed texts; whatever came from outside is bound.
pub(super) struct Conditions {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

impl Conditions {
    pub(super) fn of(filter: &Filter) -> Self {
        let mut all = Self {
            text: String::new(),
            values: Vec::new(),
        };
        if let Some(from) = filter.from {
            all.add("time >= ?", [Value::Number(to_column(from))]);
        }
        if let Some(to) = filter.to {
            all.add("time < ?", [Value::Number(to_column(to))]);
        }
        if let Some(node) = &filter.node {
            let node = || Value::Text(node.to_string());
            all.add("(node = ? OR subject = ?)", [node(), node()]);
        }
        match &filter.actor {
            Some(ActorFilter::Exactly(actor)) => {
                all.add("actor = ?", [Value::Text(actor.to_string())]);
            }
            Some(ActorFilter::AnyAnonymous) => {
                all.add(ANONYMOUS, []);
            }
            None => {}
        }
        if let Some(kind) = filter.kind {
            let kinds: Vec<Value> = kind
                .kinds()
                .map(|kind| Value::Text(kind.name().to_owned()))
                .collect();
            let list = vec!["?"; kinds.len()].join(", ");
            all.add(&format!("type IN ({list})"), kinds);
        }
        if let Some(verdict) = filter.verdict {
            all.add("verdict = ?", [Value::Text(verdict.as_str().to_owned())]);
        }
        if let Some(rule) = &filter.rule {
            all.add("rule = ?", [Value::Text(rule.to_string())]);
        }
        if let Some(serial) = &filter.serial {
            all.add(
                "leaf IN (SELECT leaf FROM event_serials WHERE serial = ?)",
                [Value::Text(serial.clone())],
            );
        }
        all
    }

    /// Adds a condition; each `?` in it becomes the next `$N`.
    pub(super) fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push_str(if self.text.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
        let mut number = self.values.len();
        for character in condition.chars() {
            match character {
                '?' => {
                    number += 1;
                    self.text.push_str(&format!("${number}"));
                }
                other => self.text.push(other),
            }
        }
        self.values.extend(values);
    }
}

/// A statement made of fixed texts, with its values bound.
pub(super) fn bound(text: String, values: Vec<Value>) -> Query<'static, Any, AnyArguments> {
    let mut query = sqlx::query(AssertSqlSafe(text));
    for value in values {
        query = match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
        };
    }
    query
}
