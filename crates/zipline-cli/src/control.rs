//! The engine's control socket.

use std::io;
use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use zipline_engine::{StateDir, StateError};
use zipline_protocol::{ErrorCode, Problem, header};
use zipline_runtime::Tasks;

use crate::environment::Environment;
use crate::exit::{Failure, message};
use crate::place::Place;
use crate::unix_http::{Connection, RequestBody, empty};

/// Longest answer that is read at once, in bytes; a list of 1,000 payloads of each of 256 instances fits.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
/// Longest line of an answer that comes line by line, in bytes.
const LINE_MAX: usize = 1024 * 1024;

/// The engine of a state directory.
#[derive(Debug)]
pub(crate) struct Control {
    tasks: Tasks,
    state_dir: PathBuf,
    connection: Connection,
}

/// No engine answers: which directory was looked at.
fn no_engine(path: &std::path::Path) -> Failure {
    Failure::unavailable(message(format!(
        "no engine runs with state directory {}: start one with `zipline up FILE`, or name another with --state-dir",
        path.display()
    )))
}

/// A state directory that cannot be used is a matter of configuration.
pub(crate) fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::Unsafe { .. } | StateError::TooLong { .. } => Failure::usage(error),
        StateError::Running { .. } => Failure::unavailable(error),
        _ => Failure::failed(error),
    }
}

impl Control {
    /// Connects, if an engine runs.
    pub(crate) async fn find(place: &Place, environment: &Environment) -> Result<Option<Self>, Failure> {
        let state_dir = place.state_dir(environment).path;
        let dir = match StateDir::existing(&state_dir) {
            Ok(dir) => dir,
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(state_failure(error)),
        };
        let (tasks, socket) = (Tasks::new(), dir.control_socket());
        match Connection::open(&tasks, &socket).await {
            Ok(connection) => Ok(Some(Self { tasks, state_dir: dir.path().to_path_buf(), connection })),
            // A socket that nobody listens on is left by an engine that was killed.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => {
                let context = format!("cannot connect to the engine's control socket {}", socket.display());
                Err(Failure::unavailable(anyhow::Error::new(error).context(context)))
            }
        }
    }

    /// Connects to the engine, which must run.
    pub(crate) async fn connect(place: &Place, environment: &Environment) -> Result<Self, Failure> {
        match Self::find(place, environment).await? {
            Some(control) => Ok(control),
            None => Err(no_engine(&place.state_dir(environment).path)),
        }
    }

    /// The engine's process id.
    pub(crate) fn engine_pid(&self) -> Option<i32> {
        self.connection.peer
    }

    /// The owner of what this starts.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answer = self.send(Method::GET, path, empty()).await?;
        self.json(path, answer).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: RequestBody,
    ) -> Result<T, Failure> {
        let answer = self.send(Method::POST, path, body).await?;
        self.json(path, answer).await
    }

    /// Sends a request; an error of the engine becomes a failure with its code's exit status.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder().method(method).uri(path).header("host", "localhost").body(body);
        let answer = self.connection.send(request.map_err(Failure::usage)?).await;
        let answer = answer.map_err(|error| self.broken(error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let code = answer
            .headers()
            .get(header::ERROR)
            .and_then(|code| code.to_str().ok())
            .and_then(ErrorCode::parse);
        let text = self.collect(answer).await?;
        let detail = serde_json::from_slice::<Problem>(&text).ok().map(|problem| problem.detail);
        let detail = detail.unwrap_or_else(|| format!("the engine answered {path} with {status}"));
        Err(match code {
            Some(code) => Failure::coded(code, detail),
            None => Failure::failed(message(detail)),
        })
    }

    async fn json<T: DeserializeOwned>(&self, path: &str, answer: Response<Incoming>) -> Result<T, Failure> {
        let text = self.collect(answer).await?;
        serde_json::from_slice(&text).map_err(|error| {
            let context =
                format!("the engine's answer to {path} is not understood; is it of the same version?");
            Failure::failed(anyhow::Error::new(error).context(context))
        })
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_MAX);
        let collected = body.collect().await.map_err(|error| self.broken(error.to_string()))?;
        Ok(collected.to_bytes())
    }

    pub(crate) fn broken(&self, error: impl std::fmt::Display) -> Failure {
        Failure::unavailable(message(format!(
            "the engine of {} broke off: {error}; see its output",
            self.state_dir.display()
        )))
    }
}

/// An answer that comes line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    pub(crate) fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), buffer: BytesMut::new() }
    }

    /// The next line without its line feed; none at the end.
    ///
    /// # Cancel safety
    /// Safe: what was read of a line stays.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(format!("a line is longer than {LINE_MAX} bytes"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(error.to_string()),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer).freeze())),
            }
        }
    }
}
