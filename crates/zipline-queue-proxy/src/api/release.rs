//! Releases a put before its retrievals or its time are used up.

use http::{Request, Response, StatusCode};
use zipline_http::Body;
use zipline_protocol::Record;

use super::Refusal;
use super::reference::{self, Named};
use crate::state::Shared;

pub(super) async fn release(shared: &Shared, request: &Request<Body>) -> Result<Response<Body>, Refusal> {
    let record = reference::open(shared, request.headers(), Named::Reference).await?;
    release_record(shared, &record).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Frees the payload that a record names, if it is held here or about to be.
pub(crate) async fn release_record(shared: &Shared, record: &Record) -> Result<(), Refusal> {
    if record.boot != shared.boot {
        return Err(Refusal::invalid(
            "another instance holds this payload: only the one that put it can release it, and it expires by itself",
        ));
    }
    shared.store.release_expected(record.payload).await.map_err(|error| {
        Refusal::new(
            error.code(),
            format_args!("payload {} cannot be released: {error}", record.payload.to_text()),
        )
    })
}
