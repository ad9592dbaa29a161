//! The JSON Schema of policy files, for editors and other tools. It describes form only: names, scopes, rules that do
//! nothing and tests are for [`crate::check()`].

/// The schema (JSON Schema, draft 2020-12) of one policy file, its tables read as objects and its offset date-times as
/// strings: `docs/policy.schema.json`.
pub const JSON_SCHEMA: &str = include_str!("../../docs/policy.schema.json");
