//! `zipline invoke`: one request to a function, through a local API, so that a large payload travels by reference.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use zipline_protocol::{ErrorCode, FunctionName, header};

use crate::control::Control;
use crate::environment::Environment;
use crate::exit::{FAILED, Failure, Outcome, message};
use crate::guest::Guest;
use crate::output::{self, say};
use crate::place::Place;
use crate::quantity::{parse_duration, show_duration, show_measured};
use crate::unix_http::{Connection, RequestBody, empty, full};

/// Bytes read from a file or standard input at a time.
const CHUNK: usize = 256 * 1024;

/// `invoke`
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// The function: `SERVICE[.NAMESPACE][/PATH][?QUERY]`
    #[arg(value_name = "FUNCTION", value_parser = parse_target)]
    target: Target,
    /// The request's body: a text, @FILE, or - for standard input
    #[arg(long, short, value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
    /// A header, as NAME: VALUE; may be given more than once
    #[arg(long, short = 'H', value_name = "HEADER", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The method [default: POST with --data, else GET]
    #[arg(long, short = 'X', value_name = "METHOD")]
    method: Option<Method>,
    /// Longest time for everything
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// A function and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    function: FunctionName,
    /// Starts with a slash.
    path: String,
}

fn parse_target(text: &str) -> Result<Target, String> {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (service, namespace) = name.split_once('.').unwrap_or((name, "default"));
    let function = FunctionName::new(service, namespace).map_err(|error| error.to_string())?;
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{rest}");
    path.parse::<http::uri::PathAndQuery>().map_err(|error| format!("the path is not valid: {error}"))?;
    Ok(Target { function, path })
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write a header as NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("\"{name}\" is not a header's name"))?;
    let value =
        value.trim().parse().map_err(|_| "the value has characters that headers cannot have".to_owned())?;
    Ok((name, value))
}

pub(crate) async fn run(args: InvokeArgs, place: Place, environment: Environment) -> Outcome {
    match args.timeout {
        None => invoke(args, place, environment).await,
        Some(limit) => {
            tokio::time::timeout(limit, invoke(args, place, environment)).await.unwrap_or_else(|_| {
                Err(Failure::unavailable(message(format!("no whole answer within {}", show_duration(limit)))))
            })
        }
    }
}

async fn invoke(args: InvokeArgs, place: Place, environment: Environment) -> Outcome {
    // Opened before an engine is troubled, so that a missing file is a matter of usage.
    let body = match &args.data {
        Some(data) => Some(Data::open(data).await?),
        None => None,
    };
    let control = Control::connect(&place, &environment).await?;
    let guest = Guest::open(control, args.target.function.namespace()).await?;
    let request = request(&args, body, &guest)?;
    let mut connection =
        Connection::open(guest.tasks(), Path::new(&guest.access.socket)).await.map_err(|error| {
            Failure::unavailable(anyhow::Error::new(error).context("cannot connect to the local API"))
        })?;
    let started = Instant::now();
    let answer = connection.send(request).await.map_err(|error| {
        Failure::unavailable(
            anyhow::Error::new(error).context("the local API broke off before there was an answer"),
        )
    })?;
    let (status, code) = (answer.status(), error_code(&answer));
    let bytes = print(answer).await?;
    say(format!("{status}, {} in {:.3} s", show_measured(bytes), started.elapsed().as_secs_f64()));
    Ok(exit_status(status, code))
}

fn request(args: &InvokeArgs, body: Option<Data>, guest: &Guest) -> Result<Request<RequestBody>, Failure> {
    let default = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(args.method.clone().unwrap_or(default))
        .uri(format!("/v1/invoke/{}{}", args.target.function, args.target.path))
        .header("host", "localhost")
        .header(header::TOKEN, &guest.access.token);
    if let Some(length) = body.as_ref().and_then(|body| body.length) {
        request = request.header(CONTENT_LENGTH, length);
    }
    if body.is_some() && !args.header.iter().any(|(name, _)| *name == CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, "application/octet-stream");
    }
    for (name, value) in &args.header {
        request = request.header(name, value);
    }
    request.body(body.map_or_else(empty, |data| data.body)).map_err(Failure::usage)
}

/// What `--data` names.
struct Data {
    length: Option<u64>,
    body: RequestBody,
}

impl Data {
    async fn open(text: &str) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self { length: None, body: stream(tokio::io::stdin()) });
        }
        let Some(path) = text.strip_prefix('@').map(PathBuf::from) else {
            return Ok(Self { length: None, body: full(text.to_owned()) });
        };
        let open = async {
            let file = tokio::fs::File::open(&path).await?;
            let data = file.metadata().await?;
            Ok::<_, std::io::Error>((file, data))
        };
        let (file, data) =
            open.await.with_context(|| format!("cannot open {}", path.display())).map_err(Failure::usage)?;
        if data.is_dir() {
            return Err(Failure::usage(message(format!("{} is a folder", path.display()))));
        }
        // Pipes and devices say nothing about their length.
        Ok(Self { length: data.is_file().then_some(data.len()), body: stream(file) })
    }
}

fn stream(from: impl AsyncRead + Send + 'static) -> RequestBody {
    BodyExt::boxed_unsync(StreamBody::new(ReaderStream::with_capacity(from, CHUNK).map_ok(Frame::data)))
}

fn error_code(answer: &Response<Incoming>) -> Option<ErrorCode> {
    ErrorCode::parse(answer.headers().get(header::ERROR)?.to_str().ok()?)
}

/// Prints the body as it comes; gives its length.
async fn print(answer: Response<Incoming>) -> Result<u64, Failure> {
    let mut body = answer.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let context = format!("the answer broke off after {bytes} bytes");
            Failure::failed(anyhow::Error::new(error).context(context))
        })?;
        if let Some(data) = frame.data_ref() {
            output::data(data)?;
            bytes += data.len() as u64;
        }
    }
    Ok(bytes)
}

/// Zipline's own errors by their code, a function's by their status.
fn exit_status(status: StatusCode, code: Option<ErrorCode>) -> u8 {
    match code {
        _ if status.as_u16() < 400 => 0,
        Some(code) => code.exit_code(),
        None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parsed = |text| {
            let target = parse_target(text).unwrap();
            (target.function.to_string(), target.path)
        };
        assert_eq!(parsed("recog"), ("recog.default".into(), "/".into()));
        assert_eq!(parsed("recog.vision/a/b?c=d.e"), ("recog.vision".into(), "/a/b?c=d.e".into()));
        assert_eq!(parsed("recog?frames=6"), ("recog.default".into(), "/?frames=6".into()));
        for bad in ["", "/", "Recog", "a.b.c", "a b", "recog/ä b"] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers() {
        assert_eq!(
            parse_header("X-A:  b c ").unwrap(),
            ("x-a".parse().unwrap(), HeaderValue::from_static("b c"))
        );
        for bad in ["X-A", "X A: b", "X-A: b\nc"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exit_statuses() {
        assert_eq!(exit_status(StatusCode::OK, None), 0);
        assert_eq!(exit_status(StatusCode::NOT_FOUND, None), 1);
        assert_eq!(exit_status(StatusCode::BAD_GATEWAY, Some(ErrorCode::UpstreamFailed)), 1);
        assert_eq!(exit_status(StatusCode::GATEWAY_TIMEOUT, Some(ErrorCode::DeadlineExceeded)), 3);
        assert_eq!(exit_status(StatusCode::BAD_REQUEST, Some(ErrorCode::RequestInvalid)), 2);
    }
}
