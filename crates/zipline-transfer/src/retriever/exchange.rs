//! One proven request to a holder and its proven answer.

use super::Shared;
use super::connect::connect;
use super::pool::Connection;
use super::wire::{Head, Wire, WireError};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, code_of_status};
use http::HeaderMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use zipline_protocol::data::{DataRequest, Operation};
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{BootId, KeyId, LeaseId, PayloadId, Record, ReferenceKind, header};
use zipline_seal::{SignedRequest, new_nonce};

/// Longest problem document that is read so that its connection can be used again.
const PROBLEM_MAX: usize = 4 * 1024;

/// Who holds a payload, and the lease it is asked for with.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) addresses: Vec<SocketAddr>,
    /// Digest of the certificate it shows; `None`: it speaks plain.
    pub(super) certificate: Option<[u8; 32]>,
    pub(super) boot: BootId,
    pub(super) payload: PayloadId,
    pub(super) lease: LeaseId,
    /// Whether there is no other way to have the payload than to wait for it.
    pub(super) may_wait: bool,
}

impl Holder {
    pub(super) fn of(record: &Record, lease: LeaseId) -> Self {
        Self {
            addresses: record.addresses.clone(),
            certificate: record.certificate,
            boot: record.boot,
            payload: record.payload,
            lease,
            may_wait: record.kind == ReferenceKind::Put,
        }
    }
}

/// A proven, positive answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The payload's length, if it is known.
    pub(super) length: Option<u64>,
    pub(super) signed: SignedRequest,
    /// The answer's body follows on it.
    pub(super) connection: Connection,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection broke; another one may do better.
    Broken(io::Error),
    /// The holder has granted the lease, and names a relay; `None`: which one cannot be believed.
    Relayed(Option<Box<CopyPlace>>),
    /// Another try would end the same way, or nothing could be connected.
    Final(RetrieveError),
}

impl From<Kind> for ExchangeError {
    fn from(kind: Kind) -> Self {
        Self::Final(kind.into())
    }
}

/// A connection to the holder: an idle one, or with `fresh` set a new one. Says whether it was used before.
pub(super) async fn checkout(
    shared: &Shared,
    holder: &Holder,
    fresh: bool,
) -> Result<(Connection, bool), ExchangeError> {
    if !fresh && let Some(connection) = shared.pool.take(&holder.addresses, holder.certificate) {
        return Ok((connection, true));
    }
    let certificate = holder.certificate;
    let connected = connect(&holder.addresses, certificate, &shared.config).await;
    let (stream, address) = connected.map_err(|error| {
        let kind = Kind::Connect { addresses: holder.addresses.clone() };
        ExchangeError::Final(RetrieveError::new(kind).with_source(error))
    })?;
    Ok((Connection { wire: Wire::new(stream, shared.pool.recycler()), address, certificate }, false))
}

/// Sends one request over `connection`. With `offer`, the asking side would serve a copy there, and may be named a relay. An answer that refuses becomes an error, if it is proven, and the connection goes
/// back to the pool. There is no time limit here.
pub(super) async fn send(
    shared: &Shared,
    holder: &Holder,
    operation: Operation,
    range: (u64, Option<u64>),
    offer: Option<&CopyPlace>,
    mut connection: Connection,
) -> Result<Answer, ExchangeError> {
    let mut asked = DataRequest {
        key: KeyId::from_bytes([0; KeyId::LEN]),
        nonce: new_nonce(),
        boot: holder.boot,
        payload: holder.payload,
        lease: holder.lease,
        from: range.0,
        to: range.1,
    };
    let signed = shared.keyring.sign_request(operation, &mut asked).map_err(|_| Kind::NoKey)?;
    let request = build(operation, connection.address, &signed, offer);
    let head = connection.wire.ask(&request).await.map_err(|error| match error {
        WireError::Broken(error) => ExchangeError::Broken(error),
        // Whoever answers does not speak HTTP: a port with TLS, to which this is no connection.
        error @ WireError::NotHttp(_) => {
            let kind = Kind::Connect { addresses: holder.addresses.clone() };
            ExchangeError::Final(RetrieveError::new(kind).with_source(error))
        }
    })?;
    let status = head.status.as_u16();
    let length = proven_length(&signed, &head)?;
    let expected = if matches!(operation, Operation::Retrieve | Operation::Part) { 200 } else { 204 };
    if status != expected {
        if read_off(&mut connection.wire).await {
            shared.pool.put(connection);
        }
        if status == 307 && offer.is_some() {
            let relay = single(&head.headers, header::RELAY).and_then(|value| signed.verify_relay(value));
            return Err(ExchangeError::Relayed(relay.map(Box::new)));
        }
        return Err(Kind::Refused { status, code: code_of_status(status) }.into());
    }
    Ok(Answer { length, signed, connection })
}

/// Acknowledges, cancels or shows life: one request over whatever connection there is. There is no time limit here beyond
/// connecting. `from` is how many bytes came from elsewhere.
pub(super) async fn tell(
    shared: &Shared,
    holder: &Holder,
    operation: Operation,
    from: u64,
) -> Result<(), ExchangeError> {
    let mut fresh = false;
    loop {
        let (connection, used) = checkout(shared, holder, fresh).await?;
        match send(shared, holder, operation, (from, None), None, connection).await {
            Ok(answer) => {
                shared.pool.put(answer.connection);
                return Ok(());
            }
            // A holder may close an idle connection just when it is used again.
            Err(ExchangeError::Broken(_)) if used => fresh = true,
            Err(error) => return Err(error),
        }
    }
}

/// Reads a short body to its end, which nobody wants, so that its connection can be used again.
async fn read_off(wire: &mut Wire) -> bool {
    let mut read = 0;
    loop {
        match poll_fn(|cx| wire.poll_frame(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, bytes::Bytes::len),
        }
        if read > PROBLEM_MAX {
            return false;
        }
    }
}

fn build(
    operation: Operation,
    address: SocketAddr,
    signed: &SignedRequest,
    offer: Option<&CopyPlace>,
) -> Vec<u8> {
    let offer =
        offer.map_or_else(String::new, |place| format!("{}: {}\r\n", header::COPY, signed.offer(place)));
    format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\nte: trailers\r\n{}: {}\r\n{offer}content-length: 0\r\n\r\n",
        operation.path(),
        header::AUTH,
        signed.header(),
    )
    .into_bytes()
}

/// The payload's length that an answer names, if the answer is proven.
fn proven_length(signed: &SignedRequest, head: &Head) -> Result<Option<u64>, Kind> {
    let status = head.status.as_u16();
    let unproven = Kind::Unauthenticated { status };
    let length = match (status, single(&head.headers, header::LENGTH)) {
        (200, Some("*")) => None,
        (200, Some(text)) => Some(text.parse().map_err(|_| Kind::Malformed { part: header::LENGTH })?),
        (200, None) => return Err(unproven),
        _ => Some(0),
    };
    let proof = single(&head.headers, header::AUTH_REPLY).ok_or(unproven.clone())?;
    if signed.verify_reply(status, length, proof) { Ok(length) } else { Err(unproven) }
}

/// The value of a field that is there exactly once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}
