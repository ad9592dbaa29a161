//! Claims of a token as the API's `google.protobuf.Struct`.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Map;

/// JSON and `Struct` mean the same, but for whole numbers above 2^53, which lose their last digits.
pub(super) fn to_struct(claims: &Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: claims
            .iter()
            .map(|(name, value)| (name.clone(), to_value(value)))
            .collect(),
    }
}

/// As deep as the JSON parser went, which has a limit of its own.
fn to_value(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_claim_is_carried_over() {
        let json = serde_json::json!({ "a": [1, "b", true, null], "o": { "x": 1.5 } });
        let fields = to_struct(json.as_object().unwrap()).fields;
        let Some(Kind::ListValue(list)) = &fields["a"].kind else {
            panic!("{fields:?}");
        };
        let kinds: Vec<_> = list
            .values
            .iter()
            .map(|v| v.kind.clone().unwrap())
            .collect();
        assert_eq!(kinds[0], Kind::NumberValue(1.0));
        assert_eq!(kinds[1], Kind::StringValue("b".to_owned()));
        assert_eq!(kinds[2], Kind::BoolValue(true));
        assert_eq!(kinds[3], Kind::NullValue(0));
        let Some(Kind::StructValue(inner)) = &fields["o"].kind else {
            panic!("{fields:?}");
        };
        assert_eq!(inner.fields["x"].kind, Some(Kind::NumberValue(1.5)));
    }
}
