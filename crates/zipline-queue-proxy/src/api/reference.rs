//! The reference a request names.

use http::HeaderMap;
use zipline_protocol::{ErrorCode, Record, ReferenceKind, ReferenceText, header};

use super::Refusal;
use crate::state::Shared;

/// Opens the reference in the header `name`; only those of puts are taken here.
pub(super) async fn open(shared: &Shared, headers: &HeaderMap, name: Named) -> Result<Record, Refusal> {
    let (name, word) = match name {
        Named::Reference => (header::REFERENCE, "Zipline-Reference"),
        Named::Body => (header::BODY, "Zipline-Body"),
    };
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::invalid(format_args!("the header {word} must be there, once")));
    };
    match value.to_str() {
        Ok(text) => open_text(shared, text).await,
        Err(_) => Err(invalid(&"it is not ASCII")),
    }
}

/// What a header names a payload for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    /// To be got or released.
    Reference,
    /// To be the body of an invoke.
    Body,
}

/// Opens a reference; only those of puts are taken here.
pub(crate) async fn open_text(shared: &Shared, text: &str) -> Result<Record, Refusal> {
    let text = ReferenceText::parse(text).map_err(|error| invalid(&error))?;
    shared.keyring.open_reference_waiting(&text, ReferenceKind::Put).await.map_err(|error| {
        match error.code() {
            ErrorCode::ReferenceInvalid => invalid(&error),
            code => Refusal::new(code, format_args!("the reference is {error}")),
        }
    })
}

fn invalid(what: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        ErrorCode::ReferenceInvalid,
        format_args!("the reference cannot be opened here: {what}; pass it on exactly as the put gave it"),
    )
}
