//! The behaviours of the test function.

use std::collections::BTreeMap;

use base64::Engine as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRAILER, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::record::{BodyEnd, Run, RunRecord, Runs};
use crate::body::{self, AnyBody, BodyError};
use crate::forward::text;
use crate::owner::Spawner;
use crate::pattern;

const REFERENCE_MEDIA_TYPE: &str = "application/vnd.zipline.reference";

pub(super) async fn respond(request: Request<Incoming>, runs: Runs, spawner: Spawner) -> Response<AnyBody> {
    let query = Query::of(&request);
    match request.uri().path() {
        "/runs" => return json_response(&json!({ "runs": runs.all() })),
        "/healthz" => return text(StatusCode::OK, "ok\n"),
        "/open" => {
            runs.open(&query.text("gate"));
            return text(StatusCode::OK, "open\n");
        }
        _ => {}
    }
    let record = runs.begin(describe(&request));
    match request.uri().path().to_owned().as_str() {
        "/sha256" | "/" => sha256(request, &record).await,
        "/echo" if request.headers().contains_key(UPGRADE) => upgrade(request, &spawner),
        "/echo" => echo(request, record, &spawner),
        "/size" => size(request, &record, &query).await,
        "/early" => early(request, record, &spawner),
        "/status" => {
            drain(request.into_body(), &record).await;
            let code = query.number("code").and_then(|code| u16::try_from(code).ok()).unwrap_or(200);
            text(StatusCode::from_u16(code).unwrap_or(StatusCode::OK), format!("status {code}\n"))
        }
        "/headers" => json_response(&json!({ "headers": headers_json(request.headers()) })),
        "/hold" => {
            let seen = drain(request.into_body(), &record).await;
            runs.wait(&query.text("gate")).await;
            json_response(&json!({ "length": seen.length, "sha256": seen.sha256 }))
        }
        "/short" => {
            drain(request.into_body(), &record).await;
            short(query.number("bytes").unwrap_or(1 << 20), query.number("seed").unwrap_or(1), &spawner)
        }
        "/exit" =>
        {
            #[expect(clippy::exit, reason = "a function that crashes is what the test asks for")]
            std::process::exit(3)
        }
        path => {
            let message = format!("no behaviour {path}\n");
            drain(request.into_body(), &record).await;
            text(StatusCode::NOT_FOUND, message)
        }
    }
}

fn describe(request: &Request<Incoming>) -> Run {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    Run {
        id: header("x-request-id").unwrap_or_default().to_owned(),
        path: request.uri().path().to_owned(),
        protocol: format!("{:?}", request.version()),
        zipline_headers: (request.headers().keys())
            .map(http::HeaderName::as_str)
            .filter(|name| name.starts_with("zipline-"))
            .map(str::to_owned)
            .collect(),
        user_agent: header("user-agent").map(str::to_owned),
        content_type: header("content-type").map(str::to_owned),
        reference: header("content-type").is_some_and(|kind| kind.starts_with(REFERENCE_MEDIA_TYPE)),
        content_length: header("content-length").and_then(|length| length.parse().ok()),
        length: 0,
        end: BodyEnd::Unread,
        sha256: None,
        trailers: BTreeMap::new(),
    }
}

/// What came as a body.
struct Seen {
    length: u64,
    sha256: String,
    trailers: HeaderMap,
    clean: bool,
}

async fn drain(mut body: Incoming, record: &RunRecord) -> Seen {
    let (mut length, mut digest, mut trailers, mut clean) = (0, Sha256::new(), HeaderMap::new(), true);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => {
                record.read(piece.len());
                length += piece.len() as u64;
                digest.update(&piece);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
            Err(_) => {
                clean = false;
                break;
            }
        }
    }
    let sha256 = pattern::hex(&digest.finalize());
    if clean {
        record.clean(sha256.clone(), texts(&trailers));
    } else {
        record.aborted();
    }
    Seen { length, sha256, trailers, clean }
}

async fn sha256(request: Request<Incoming>, record: &RunRecord) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    let seen = drain(body, record).await;
    if !seen.clean {
        return text(StatusCode::BAD_REQUEST, "the body broke off\n");
    }
    let header = |name: http::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    json_response(&json!({
        "sha256": seen.sha256,
        "length": seen.length,
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(|path| path.as_str()),
        "host": head.uri.authority().map(|host| host.as_str()).or_else(|| header(HOST)),
        "protocol": format!("{:?}", head.version),
        "content_type": header(CONTENT_TYPE),
        "content_length": header(CONTENT_LENGTH),
        "user_agent": header(USER_AGENT),
        "run": header(http::HeaderName::from_static("x-request-id")),
        "headers": headers_json(&head.headers),
        "trailers": headers_json(&seen.trailers),
        "process": std::process::id(),
    }))
}

fn echo(request: Request<Incoming>, record: RunRecord, spawner: &Spawner) -> Response<AnyBody> {
    let (head, mut incoming) = request.into_parts();
    let (sender, outgoing) = body::channel();
    spawner.spawn(async move {
        let (mut digest, mut trailers) = (Sha256::new(), BTreeMap::new());
        while let Some(frame) = incoming.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    record.aborted();
                    drop(sender.send(Err(BodyError::new(error))).await);
                    return;
                }
            };
            if let Some(piece) = frame.data_ref() {
                record.read(piece.len());
                digest.update(piece);
            }
            trailers = frame.trailers_ref().map(texts).unwrap_or(trailers);
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        record.clean(pattern::hex(&digest.finalize()), trailers);
    });
    let mut response = Response::new(outgoing);
    for name in [CONTENT_TYPE, TRAILER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

async fn size(request: Request<Incoming>, record: &RunRecord, query: &Query) -> Response<AnyBody> {
    let head = request.method() == Method::HEAD;
    let seen = drain(request.into_body(), record).await;
    if !seen.clean {
        return text(StatusCode::BAD_REQUEST, "the body broke off\n");
    }
    let (length, seed) = (query.number("bytes").unwrap_or(0), query.number("seed").unwrap_or(1));
    let with_trailers = query.number("trailers").is_some();
    let known = query.number("chunked").is_none() && !with_trailers;
    let trailers = with_trailers.then(|| {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("x-answer-trailer"),
            HeaderValue::from_static("answer trailer"),
        )])
    });
    // On HTTP/2 hyper would send the body of an answer to HEAD.
    let body = if head { body::empty() } else { body::generated(seed, length, known, trailers) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if head && known {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pattern; charset=none"));
    headers
        .insert("x-body-sha256", HeaderValue::from_str(&seen.sha256).expect("hexadecimal is a valid value"));
    headers.insert("x-body-length", HeaderValue::from(seen.length));
    headers.insert("cache-control", HeaderValue::from_static("max-age=60"));
    if with_trailers {
        headers.insert(TRAILER, HeaderValue::from_static("x-answer-trailer"));
    }
    response
}

/// Goes on reading what nobody wants, as HTTP servers do: closing at once would reset the connection under the answer.
fn early(request: Request<Incoming>, record: RunRecord, spawner: &Spawner) -> Response<AnyBody> {
    spawner.spawn(async move { drop(drain(request.into_body(), &record).await) });
    text(StatusCode::OK, "early\n")
}

fn short(length: u64, seed: u64, spawner: &Spawner) -> Response<AnyBody> {
    let (sender, outgoing) = body::channel();
    spawner.spawn(async move {
        let mut offset = 0;
        while offset < length / 2 {
            let step = pattern::CHUNK_BYTES.min(length / 2 - offset);
            let piece = pattern::bytes(seed, offset, usize::try_from(step).expect("a chunk fits"));
            if sender.send(Ok(Frame::data(piece))).await.is_err() {
                return;
            }
            offset += step;
        }
        drop(sender.send(Err(BodyError::new("broken off on purpose"))).await);
    });
    let mut response = Response::new(outgoing);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn upgrade(mut request: Request<Incoming>, spawner: &Spawner) -> Response<AnyBody> {
    let protocol = request.headers().get(UPGRADE).cloned().unwrap_or(HeaderValue::from_static("echo"));
    let accept = request.headers().get("sec-websocket-key").is_some();
    let upgraded = hyper::upgrade::on(&mut request);
    spawner.spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            drop(tokio::io::copy(&mut from, &mut to).await);
            drop(tokio::io::AsyncWriteExt::shutdown(&mut to).await);
        }
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if accept {
        // The answer to the sample key of RFC 6455, the only one that tests send.
        let value = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        response.headers_mut().insert("sec-websocket-accept", value);
    }
    response
}

fn json_response(value: &Value) -> Response<AnyBody> {
    let mut response = Response::new(body::full(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn headers_json(headers: &HeaderMap) -> Value {
    json!(texts(headers))
}

/// Names with their values joined by `, `; values that are no text in base64.
fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = value.to_str().map_or_else(
            |_| base64::engine::general_purpose::STANDARD.encode(value.as_bytes()),
            str::to_owned,
        );
        all.entry(name.as_str().to_owned())
            .and_modify(|have| {
                have.push_str(", ");
                have.push_str(&value);
            })
            .or_insert(value);
    }
    all
}

/// The query of a request, without any unescaping.
struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let pairs = request.uri().query().unwrap_or_default().split('&');
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> String {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}
