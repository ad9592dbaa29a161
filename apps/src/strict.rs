//! JSON that says one thing: no key twice in one object, not deeper and not larger than a limit.
//!
//! Readers differ in which of two equal keys they take. Metadata that two verifiers read differently is an attack on
//! one of them, so such text is refused before anybody reads it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of objects and lists.
pub const MAX_DEPTH: u8 = 24;
/// Most values in one text, keys not counted.
pub const MAX_VALUES: u32 = 1_000_000;

/// The text does not say one thing, or too much.
#[derive(Debug, thiserror::Error)]
pub enum Ambiguous {
    #[error("{0} bytes exceed the limit in bytes: {1}")]
    TooLong(usize, u64),
    #[error("not plain json: {0}")]
    Json(#[source] serde_json::Error),
}

/// Refuses what is too long, is no JSON, names a key twice, nests too deep or goes on after its end.
pub fn check(text: &[u8], max_bytes: u64) -> Result<(), Ambiguous> {
    if text.len() as u64 > max_bytes {
        return Err(Ambiguous::TooLong(text.len(), max_bytes));
    }
    let mut left = MAX_VALUES;
    let mut reader = serde_json::Deserializer::from_slice(text);
    Value {
        depth: 0,
        left: &mut left,
    }
    .deserialize(&mut reader)
    .and_then(|()| reader.end())
    .map_err(Ambiguous::Json)
}

struct Value<'c> {
    depth: u8,
    left: &'c mut u32,
}

impl Value<'_> {
    fn inner(&mut self) -> Value<'_> {
        Value {
            depth: self.depth.saturating_add(1),
            left: self.left,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        use serde::de::Error as _;
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format_args!("deeper than {MAX_DEPTH}")));
        }
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => {
                return Err(D::Error::custom(format_args!(
                    "more values than {MAX_VALUES}"
                )));
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        // Numbers that are written in many ways are signed in many ways.
        Err(E::custom("a number that is not whole"))
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        use serde::de::Error as _;
        let mut seen = BTreeSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if let Some(twice) = seen.replace(key) {
                return Err(A::Error::custom(format_args!(
                    "a key stands there twice: {twice:?}"
                )));
            }
            object.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for wrong in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":{"b":1,"b":1}}]"#,
            r#"{"a":1.5}"#,
            r#"{"a":1e3}"#,
            r#"{"a":99999999999999999999}"#,
            r#"{"a":1} {"a":2}"#,
            r#"{"a":1"#,
            "",
        ] {
            assert!(
                matches!(check(wrong.as_bytes(), 1_000), Err(Ambiguous::Json(_))),
                "{wrong}"
            );
        }
        let deep = "[".repeat(30) + &"]".repeat(30);
        assert!(check(deep.as_bytes(), 1_000).is_err());
        assert!(matches!(
            check(b"{\"a\": 1}", 7),
            Err(Ambiguous::TooLong(8, 7))
        ));
        check(
            br#" {"a":[1,-2,"x",null,true,{"a":{}}],"b":{"a":1}} "#,
            1_000,
        )
        .unwrap();
    }
}
