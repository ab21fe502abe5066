//! One proven request to a holder and its proven answer.

use super::Shared;
use super::connect::{Stream, connect};
use super::pool::Connection;
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, code_of_status};
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, TE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use zipline_protocol::data::{DataRequest, Operation};
use zipline_protocol::{BootId, KeyId, LeaseId, PayloadId, Record, header};
use zipline_seal::{SignedRequest, new_nonce};

/// Longest trailer section, in bytes: the longest trailers in base64url and the final record's own line.
const SECTION_MAX: usize = 64 * 1024;
/// Most header fields of an answer.
const FIELDS_MAX: usize = 64;
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
}

impl Holder {
    pub(super) fn of(record: &Record, lease: LeaseId) -> Self {
        Self {
            addresses: record.addresses.clone(),
            certificate: record.certificate,
            boot: record.boot,
            payload: record.payload,
            lease,
        }
    }
}

/// A proven, positive answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The payload's length, if it is known.
    pub(super) length: Option<u64>,
    pub(super) body: Incoming,
    pub(super) signed: SignedRequest,
    pub(super) connection: Connection,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection broke; another one may do better.
    Broken(hyper::Error),
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
    if !fresh {
        while let Some(mut connection) = shared.pool.take(&holder.addresses, holder.certificate) {
            if connection.sender.ready().await.is_ok() {
                return Ok((connection, true));
            }
        }
    }
    let certificate = holder.certificate;
    let connected = connect(&holder.addresses, certificate, &shared.config).await;
    let (stream, address) = connected.map_err(|error| {
        let kind = Kind::Connect { addresses: holder.addresses.clone() };
        ExchangeError::Final(RetrieveError::new(kind).with_source(error))
    })?;
    let sender = match stream {
        Stream::Plain(stream) => drive(shared, stream).await,
        Stream::Tls(stream) => drive(shared, stream).await,
    };
    let sender = sender.map_err(ExchangeError::Broken)?;
    Ok((Connection { sender, address, certificate }, false))
}

/// Speaks HTTP over `stream`, as a task.
async fn drive<T>(shared: &Shared, stream: T) -> hyper::Result<http1::SendRequest<Empty<Bytes>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new()
        .max_header_size(SECTION_MAX)
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(stream));
    let (sender, driver) = handshake.await?;
    let (stop, pool) = (shared.tasks.token(), Arc::clone(&shared.pool));
    drop(shared.tasks.spawn("retrieval connection", async move {
        let mut driver = pin!(driver);
        let ended = tokio::select! {
            ended = &mut driver => ended,
            () = stop.cancelled() => {
                // Connections in use go on to their end, idle ones have none to wait for.
                pool.close();
                driver.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "retrieval connection broke");
        }
    }));
    Ok(sender)
}

/// Sends one request over `connection`. An answer that refuses becomes an error, if it is proven, and the connection goes
/// back to the pool. There is no time limit here.
pub(super) async fn send(
    shared: &Shared,
    holder: &Holder,
    operation: Operation,
    range: (u64, Option<u64>),
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
    let request = build(operation, connection.address, &signed);
    let response = connection.sender.send_request(request).await.map_err(|error| {
        if error.is_parse() {
            // Whoever answers does not speak HTTP: a port with TLS, to which this is no connection.
            let kind = Kind::Connect { addresses: holder.addresses.clone() };
            return ExchangeError::Final(RetrieveError::new(kind).with_source(error));
        }
        ExchangeError::Broken(error)
    })?;
    let status = response.status().as_u16();
    let length = match proven_length(&signed, &response) {
        Ok(length) => length,
        Err(kind) => return Err(kind.into()),
    };
    let expected = if operation == Operation::Retrieve { 200 } else { 204 };
    let body = response.into_body();
    if status != expected {
        if Limited::new(body, PROBLEM_MAX).collect().await.is_ok() {
            shared.pool.put(connection);
        }
        return Err(Kind::Refused { status, code: code_of_status(status) }.into());
    }
    Ok(Answer { length, body, signed, connection })
}

/// Acknowledges or cancels: one request over whatever connection there is. There is no time limit here beyond connecting.
pub(super) async fn tell(
    shared: &Shared,
    holder: &Holder,
    operation: Operation,
) -> Result<(), ExchangeError> {
    let mut fresh = false;
    loop {
        let (connection, used) = checkout(shared, holder, fresh).await?;
        match send(shared, holder, operation, (0, None), connection).await {
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

fn build(operation: Operation, address: SocketAddr, signed: &SignedRequest) -> Request<Empty<Bytes>> {
    let text = |value: &str| HeaderValue::from_str(value).expect("addresses and proofs are header values");
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = operation.path().parse().expect("the paths of operations are paths");
    let headers = request.headers_mut();
    headers.insert(HOST, text(&address.to_string()));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(header::AUTH, text(signed.header()));
    request
}

/// The payload's length that an answer names, if the answer is proven.
fn proven_length(signed: &SignedRequest, response: &Response<Incoming>) -> Result<Option<u64>, Kind> {
    let status = response.status().as_u16();
    let unproven = Kind::Unauthenticated { status };
    let length = match (status, single(response.headers(), header::LENGTH)) {
        (200, Some("*")) => None,
        (200, Some(text)) => Some(text.parse().map_err(|_| Kind::Malformed { part: header::LENGTH })?),
        (200, None) => return Err(unproven),
        _ => Some(0),
    };
    let proof = single(response.headers(), header::AUTH_REPLY).ok_or(unproven.clone())?;
    if signed.verify_reply(status, length, proof) { Ok(length) } else { Err(unproven) }
}

/// The value of a field that is there exactly once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}
