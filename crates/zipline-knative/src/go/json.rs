//! JSON as `encoding/json` decodes it into structs: names match whatever their case, unknown names are skipped, `null`
//! leaves what was there, and of a name that comes twice the later one is laid over the earlier.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON text, with members in the order they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A number without fraction and exponent that fits 64 bits.
    Int(i64),
    /// Any other number.
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// JSON of another kind stands where a field is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found} where {wanted} is expected")]
pub(crate) struct KindError {
    pub(crate) field: String,
    found: &'static str,
    wanted: &'static str,
}

impl Json {
    /// Reads one JSON text and nothing behind it.
    ///
    /// # Errors
    /// What serde_json found, with line and column.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number with fraction, exponent or more than 64 bits",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    fn mismatch(&self, field: &str, wanted: &'static str) -> KindError {
        KindError { field: field.to_owned(), found: self.kind(), wanted }
    }

    /// The members of an object; none for `null`.
    pub(crate) fn object(&self, field: &str) -> Result<&[(String, Json)], KindError> {
        match self {
            Self::Null => Ok(&[]),
            Self::Object(members) => Ok(members),
            other => Err(other.mismatch(field, "an object")),
        }
    }

    /// The items of an array; none for `null`.
    pub(crate) fn list(&self, field: &str) -> Result<&[Json], KindError> {
        match self {
            Self::Null => Ok(&[]),
            Self::List(items) => Ok(items),
            other => Err(other.mismatch(field, "an array")),
        }
    }

    /// Lays a string over `place`.
    pub(crate) fn text_into(&self, field: &str, place: &mut String) -> Result<(), KindError> {
        match self {
            Self::Null => {}
            Self::Text(text) => place.clone_from(text),
            other => return Err(other.mismatch(field, "a string")),
        }
        Ok(())
    }

    /// Lays a truth value over `place`.
    pub(crate) fn bool_into(&self, field: &str, place: &mut bool) -> Result<(), KindError> {
        match self {
            Self::Null => {}
            Self::Bool(value) => *place = *value,
            other => return Err(other.mismatch(field, "a bool")),
        }
        Ok(())
    }

    /// Lays a whole number over `place`.
    pub(crate) fn int_into(&self, field: &str, place: &mut i64) -> Result<(), KindError> {
        match self {
            Self::Null => {}
            Self::Int(value) => *place = *value,
            other => return Err(other.mismatch(field, "a whole number")),
        }
        Ok(())
    }

    /// Lays a number over `place`.
    pub(crate) fn float_into(&self, field: &str, place: &mut f64) -> Result<(), KindError> {
        match self {
            Self::Null => {}
            #[expect(clippy::cast_precision_loss, reason = "the nearest number, as Go takes it")]
            Self::Int(value) => *place = *value as f64,
            Self::Float(value) => *place = *value,
            other => return Err(other.mismatch(field, "a number")),
        }
        Ok(())
    }
}

/// Whether a member's name means the field `wanted`, which is lower case.
pub(crate) fn names(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
}

impl fmt::Display for Json {
    /// As JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{}", serde_json::Value::from(*value)),
            Self::Text(value) => f.write_str(&text(value)),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(","))
            }
            Self::Object(members) => {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
                write!(f, "{{{}}}", members.join(","))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "only what does not fit 64 bits with a sign becomes a float"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
