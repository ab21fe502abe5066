//! One request of a data port: proof first, then the operation.

use super::Shared;
use super::activity::Activity;
use super::payload_body::{PayloadBody, PortBody};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TRAILER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zipline_buffer::LeaseRequest;
use zipline_protocol::data::Operation;
use zipline_protocol::{ErrorCode, PROBLEM_MEDIA_TYPE, Problem, header};
use zipline_seal::ProvenRequest;

/// Answers one request. Dropped when the peer closes the connection meanwhile.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    peer: IpAddr,
    request: Request<Incoming>,
    activity: Arc<Activity>,
) -> Response<PortBody> {
    activity.working();
    let idle = IdleAtEnd(Some(Arc::clone(&activity)));
    let (operation, proven) = match prove(shared, &request).await {
        Ok(proven) => proven,
        Err(refusal) => {
            shared.counters.unproven_requests.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, status = refusal.status, detail = refusal.detail, "unproven data request");
            return refusal.response(None);
        }
    };
    shared.counters.proven_requests.fetch_add(1, Ordering::Relaxed);
    let asked = proven.request();
    if asked.boot != shared.config.boot {
        return refuse(&proven, 421, ErrorCode::PayloadLost, "the payload belongs to another process");
    }
    let done = match operation {
        Operation::Retrieve => {
            let lease = LeaseRequest {
                payload: asked.payload,
                lease: asked.lease,
                peer,
                from: asked.from,
                to: asked.to,
            };
            return match shared.store.lease(lease).await {
                Ok(reader) => {
                    // From here on the body says what the connection does.
                    idle.disarm();
                    let length = reader.payload_length();
                    let reply = proven.sign_reply(200, length);
                    let body = PayloadBody::new(reader, proven, Arc::clone(shared), activity);
                    granted(length, &reply, body)
                }
                Err(error) => refuse(&proven, error.data_status(), error.code(), &error.to_string()),
            };
        }
        Operation::Acknowledge => shared.store.acknowledge(&asked.payload, &asked.lease).map(|delivered| {
            if let (Some(delivered), Some(told)) = (delivered, shared.on_delivered.get()) {
                told.0(delivered);
            }
        }),
        Operation::Cancel => shared.store.cancel(&asked.payload, &asked.lease),
        Operation::Alive => shared.store.alive(&asked.payload, &asked.lease),
    };
    match done {
        Ok(()) => {
            let mut response = Response::new(PortBody::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            put(&mut response, header::AUTH_REPLY, &proven.sign_reply(204, Some(0)));
            response
        }
        Err(error) => refuse(&proven, error.data_status(), error.code(), &error.to_string()),
    }
}

/// Marks the connection idle again when an answer without payload is given or its future is dropped.
struct IdleAtEnd(Option<Arc<Activity>>);

impl IdleAtEnd {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for IdleAtEnd {
    fn drop(&mut self) {
        if let Some(activity) = &self.0 {
            activity.idle();
        }
    }
}

struct Refusal {
    status: u16,
    code: ErrorCode,
    detail: &'static str,
}

impl Refusal {
    const fn new(status: u16, code: ErrorCode, detail: &'static str) -> Self {
        Self { status, code, detail }
    }

    fn response(&self, proof: Option<&str>) -> Response<PortBody> {
        problem(self.status, self.code, self.detail, proof)
    }
}

async fn prove(shared: &Shared, request: &Request<Incoming>) -> Result<(Operation, ProvenRequest), Refusal> {
    let invalid = |status, detail| Refusal::new(status, ErrorCode::RequestInvalid, detail);
    let path = request.uri().path();
    let operation = Operation::ALL.into_iter().find(|operation| operation.path() == path);
    let operation = operation.ok_or(Refusal::new(404, ErrorCode::NotFound, "no such operation"))?;
    if request.method() != Method::POST {
        return Err(invalid(405, "operations are POST"));
    }
    if !request.body().is_end_stream() {
        return Err(invalid(400, "operations have no body"));
    }
    let forbidden = Refusal::new(403, ErrorCode::ReferenceForbidden, "no proof of the tenant's key");
    let malformed = Refusal::new(400, ErrorCode::ReferenceInvalid, "malformed proof");
    let mut proofs = request.headers().get_all(header::AUTH).iter();
    let (proof, more) = (proofs.next().ok_or(forbidden)?, proofs.next());
    let proof = proof.to_str().ok().filter(|_| more.is_none()).ok_or(malformed)?;
    match shared.keyring.verify_request_waiting(operation, proof).await {
        Ok(proven) => Ok((operation, proven)),
        Err(error) if error.code() == ErrorCode::ReferenceInvalid => {
            Err(Refusal::new(400, error.code(), "malformed proof"))
        }
        Err(error) => Err(Refusal::new(403, error.code(), "wrong proof of the tenant's key")),
    }
}

fn granted(length: Option<u64>, reply: &str, body: PayloadBody) -> Response<PortBody> {
    let mut response = Response::new(PortBody::Payload(body));
    put(&mut response, header::LENGTH, &length.map_or_else(|| "*".to_owned(), |length| length.to_string()));
    put(&mut response, header::AUTH_REPLY, reply);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(TRAILER, HeaderValue::from_static("zipline-final, zipline-trailers"));
    response
}

fn refuse(proven: &ProvenRequest, status: u16, code: ErrorCode, detail: &str) -> Response<PortBody> {
    problem(status, code, detail, Some(&proven.sign_reply(status, Some(0))))
}

fn problem(status: u16, code: ErrorCode, detail: &str, proof: Option<&str>) -> Response<PortBody> {
    let json = Problem::new(code, status, detail).to_json();
    let mut response = Response::new(PortBody::full(Bytes::from(json)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
    put(&mut response, header::ERROR, code.as_str());
    if let Some(proof) = proof {
        put(&mut response, header::AUTH_REPLY, proof);
    }
    response
}

fn put(response: &mut Response<PortBody>, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("codes, numbers and base64url are header values");
    response.headers_mut().insert(name, value);
}
