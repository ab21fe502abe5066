//! `eq`, `lt` and their kin: values of one kind only, as in Go.

use std::cmp::Ordering;

use super::eval::Fault;
use super::value::Value;

/// Whether two values are the same; a fault if Go would not compare them.
pub(super) fn equal(one: &Value<'_>, other: &Value<'_>) -> Result<bool, Fault> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
        (Value::Url(one), Value::Url(other)) => Ok(one == other),
        (Value::Tls(one), Value::Tls(other)) => Ok(one.is_some() == other.is_some()),
        (Value::Tls(tls), Value::Nil) | (Value::Nil, Value::Tls(tls)) => Ok(tls.is_none()),
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        _ => order(one, other).map(|order| order == Some(Ordering::Equal)),
    }
}

/// How two values stand to each other; `None` if one is no number at all.
pub(super) fn order(one: &Value<'_>, other: &Value<'_>) -> Result<Option<Ordering>, Fault> {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => Ok(Some(one.cmp(other))),
        (Value::Int(one), Value::Int(other)) => Ok(Some(one.cmp(other))),
        (Value::Float(one), Value::Float(other)) => Ok(one.partial_cmp(other)),
        _ => Err(Fault),
    }
}
