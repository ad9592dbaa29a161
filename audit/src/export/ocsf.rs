//! Open Cybersecurity Schema Framework, 1.8.0: one JSON object on a line.

use serde_json::{Map, Value, json};

use super::{Exported, PRODUCT, VERSION};
use crate::event::{Actor, Verdict};

mod class;

pub use class::{Activity, Class};

/// The version of the schema that objects follow.
pub const SCHEMA: &str = "1.8.0";

/// The object, without a line's end.
pub fn line(exported: &Exported<'_>) -> String {
    let event = exported.event;
    let (class, activity) = class::of(event.kind);
    let severity = exported.severity().ocsf();
    // Fields of a profile may be used by who names it: actor and device, and what was decided.
    let profiles: &[&str] = match event.verdict {
        Verdict::Allow | Verdict::Deny => &["host", "security_control"],
        Verdict::None => &["host"],
    };
    let mut object = json!({
        "class_uid": class.uid(),
        "class_name": class.name(),
        "category_uid": class.category(),
        "activity_id": activity.id,
        "activity_name": activity.name,
        "type_uid": class.uid() * 100 + u32::from(activity.id),
        "time": event.time.millis(),
        "severity_id": severity.0,
        "severity": severity.1,
        "message": exported.sentence(),
        "metadata": {
            "version": SCHEMA,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": VERSION},
            "uid": exported.hash.to_string(),
            "original_event_uid": exported.uid(),
            "event_code": event.kind.name(),
            "log_name": "audit",
            "sequence": exported.index,
            "logged_time": exported.received.millis(),
            "profiles": profiles,
        },
        "actor": actor(&event.actor),
        "unmapped": unmapped(exported),
    });
    let map = object.as_object_mut().expect("an object was written above");
    status(map, class, exported);
    if exported.keeper_is_node() {
        map.insert(
            "device".to_owned(),
            json!({"type_id": 99, "type": "Edgeward node", "uid": exported.node.to_string(),
                "name": exported.node.name(), "hostname": exported.host()}),
        );
    }
    required(map, class, exported);
    object.to_string()
}

fn status(map: &mut Map<String, Value>, class: Class, exported: &Exported<'_>) {
    let event = exported.event;
    // A finding's status says how far somebody has come with it.
    let (id, name) = match (class, event.verdict) {
        (Class::DetectionFinding, _) => (1, "New"),
        (_, Verdict::Deny) => (2, "Failure"),
        (_, Verdict::Allow | Verdict::None) => (1, "Success"),
    };
    map.insert("status_id".to_owned(), json!(id));
    map.insert("status".to_owned(), json!(name));
    if let Some(code) = &event.code {
        map.insert("status_code".to_owned(), json!(code.as_str()));
    }
    let action = match event.verdict {
        Verdict::Allow => (1, "Allowed"),
        Verdict::Deny => (2, "Denied"),
        Verdict::None => return,
    };
    map.insert("action_id".to_owned(), json!(action.0));
    map.insert("action".to_owned(), json!(action.1));
    if let Some(rule) = &event.rule {
        map.insert(
            "policy".to_owned(),
            json!({"uid": rule.as_str(), "type": "rule"}),
        );
    }
}

/// What a class asks for beyond what every event has.
fn required(map: &mut Map<String, Value>, class: Class, exported: &Exported<'_>) {
    let event = exported.event;
    let subject = event.subject.as_ref().map(ToString::to_string);
    let named = subject.clone().unwrap_or_else(|| event.actor.to_string());
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    match class {
        Class::Base => {}
        Class::AccountChange => {
            put("user", json!({"uid": named, "name": named}));
        }
        Class::Authentication => {
            put("user", json!({"uid": named, "name": named}));
            put("service", json!({"name": "edgeward"}));
            put("src_endpoint", endpoint(&event.actor));
        }
        Class::EntityManagement => {
            put(
                "entity",
                json!({"uid": named, "name": named, "type": event.kind.family()}),
            );
        }
        Class::NetworkActivity => {
            put("src_endpoint", endpoint(&event.actor));
            if let Some(subject) = subject {
                put("dst_endpoint", json!({"uid": subject, "name": subject}));
            }
        }
        Class::ApiActivity => {
            put("api", json!({"operation": event.kind.name()}));
            put("src_endpoint", endpoint(&event.actor));
        }
        Class::ApplicationLifecycle => {
            let name = match event.kind.family() {
                "cloud" => "edgeward cloud".to_owned(),
                "agent" => "edgeward agent".to_owned(),
                _ => named,
            };
            put("app", json!({"name": name}));
        }
        Class::DetectionFinding => {
            put(
                "finding_info",
                json!({"uid": exported.uid(), "title": event.kind.meaning(), "types": [event.kind.name()],
                    "created_time": event.time.millis()}),
            );
        }
    }
}

fn actor(actor: &Actor) -> Value {
    let name = actor.to_string();
    match actor {
        Actor::Identity(id) => {
            json!({"user": {"uid": name, "name": id.name(), "domain": id.trust_domain().to_string()}})
        }
        Actor::ApiKey(key) => json!({"user": {"uid": name, "name": key.as_str()}}),
        Actor::Cloud => json!({"app_name": "edgeward cloud"}),
        Actor::Anonymous(_) => json!({"user": {"uid": name, "name": "anonymous"}}),
    }
}

fn endpoint(actor: &Actor) -> Value {
    match actor {
        Actor::Anonymous(Some(address)) => json!({"ip": address.to_string()}),
        other => json!({"uid": other.to_string(), "name": other.to_string()}),
    }
}

/// What the schema has no place for.
fn unmapped(exported: &Exported<'_>) -> Value {
    let event = exported.event;
    let mut map = Map::new();
    map.insert("index".to_owned(), json!(exported.index));
    map.insert("node".to_owned(), json!(exported.node.to_string()));
    map.insert("boot".to_owned(), json!(exported.boot.to_string()));
    map.insert("seq".to_owned(), json!(exported.seq));
    map.insert("verdict".to_owned(), json!(event.verdict.as_str()));
    if exported.claimed {
        map.insert("claimed".to_owned(), json!(true));
    }
    if let Some(rule) = &event.rule {
        map.insert("rule".to_owned(), json!(rule.as_str()));
    }
    if !event.detail.is_empty() {
        let detail: Map<String, Value> = event
            .detail
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        map.insert("detail".to_owned(), Value::Object(detail));
    }
    Value::Object(map)
}
