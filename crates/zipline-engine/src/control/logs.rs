//! `GET /v1/logs`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use zipline_http::{Body, BodyError, Frame, problem_response};
use zipline_protocol::{ErrorCode, FunctionName};

use crate::logs::LogLine;

use super::{Control, query};

pub(super) fn logs(control: &Control, request: &Request<Body>) -> Response<Body> {
    let function = match query(request, "service").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let (service, namespace) = text.split_once('.').unwrap_or((text, "default"));
            match FunctionName::new(service, namespace) {
                // Guests have logs, too, and are no functions.
                Ok(name) if service == "guest" || control.functions.contains_key(&name) => Some(name),
                Ok(name) => {
                    let detail = format!("there is no function {name}; `zipline status` lists them");
                    return problem_response(request.headers(), ErrorCode::NotFound, 404, detail);
                }
                Err(error) => {
                    let detail = error.to_string();
                    return problem_response(request.headers(), ErrorCode::RequestInvalid, 400, detail);
                }
            }
        }
    };
    let follow = query(request, "follow").is_some_and(|value| matches!(value, "true" | "1"));
    let (lines, live) = control.context.logs.read(function.as_ref());
    let mut text = Vec::new();
    for line in &lines {
        write_line(&mut text, line);
    }
    let body = if follow {
        let state = Following {
            first: Some(text),
            after: lines.last().map(|line| line.sequence),
            live,
            function: function.map(|name| name.to_string()),
        };
        let end = control.context.tasks.token();
        Body::from_frames(futures_util::stream::unfold(state, move |mut state| {
            let end = end.clone();
            async move {
                tokio::select! {
                    () = end.cancelled() => None,
                    text = state.next() => text.map(|text| (Ok::<_, BodyError>(Frame::data(Bytes::from(text))), state)),
                }
            }
        }))
    } else {
        Body::full(text)
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

struct Following {
    first: Option<Vec<u8>>,
    after: Option<u64>,
    live: broadcast::Receiver<Arc<LogLine>>,
    function: Option<String>,
}

impl Following {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Some(first);
        }
        loop {
            match self.live.recv().await {
                Ok(line) => {
                    let seen = self.after.is_some_and(|after| line.sequence <= after);
                    if !seen && self.function.as_ref().is_none_or(|name| *name == line.function) {
                        let mut text = Vec::new();
                        write_line(&mut text, &line);
                        return Some(text);
                    }
                }
                // A follower that is too slow loses lines, which stay in the files, and sees the gap in the sequence.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn write_line(text: &mut Vec<u8>, line: &LogLine) {
    text.extend_from_slice(&serde_json::to_vec(line).expect("log lines always serialise"));
    text.push(b'\n');
}
