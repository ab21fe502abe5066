//! A queue-proxy reached over its own socket, payloads in memory that both map.

use std::time::Duration;

use pyo3::prelude::*;
use zipline_sdk::blocking::Client;
use zipline_sdk::{BoundedBy, Options, PutOptions, Reference, Retrievals};

use crate::call;
use crate::copy::Bytes;
use crate::errors::raised;
use crate::many::Many;
use crate::memory::Payload;
use crate::segment::Segment;

/// Longer copies go straight into memory that the queue-proxy maps; shorter ones travel in the message.
const INLINE_MOST: usize = 64 * 1024;

/// How long a queue-proxy may take to say that it speaks the SDK's protocol.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call without a timeout may wait: longer than any wait of the platform.
const NO_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The way to a queue-proxy. Every method takes the Python call that it belongs to, and how long it may still take.
#[pyclass(frozen, module = "zipline_sdk._native")]
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
}

/// A put's options, as `zipline_sdk._connection.PutOptions` has them.
#[derive(FromPyObject)]
struct Wanted {
    content_type: Option<String>,
    retrievals: Option<u32>,
    ttl: f64,
    linger: f64,
    wait: f64,
    confirm: bool,
}

impl From<Wanted> for PutOptions {
    fn from(options: Wanted) -> Self {
        let retrievals = options.retrievals.map_or(Retrievals::Unlimited, Retrievals::Limited);
        let made = Self::new()
            .retrievals(retrievals)
            .ttl(seconds(options.ttl))
            .linger(seconds(options.linger))
            .wait(seconds(options.wait));
        match options.content_type {
            Some(content_type) => made.content_type(&content_type),
            None => made,
        }
    }
}

#[pymethods]
impl Link {
    /// Connects to a Unix socket, or to "@" and an abstract name.
    #[staticmethod]
    fn connect(py: Python<'_>, socket: &str, token: &str) -> PyResult<Self> {
        let options =
            Options::new().socket(socket).token(token).timeout(CONNECT_TIMEOUT).interrupted(call::given_up);
        let client = call::run(py, None, || Client::connect(options))?;
        Ok(Self { client })
    }

    /// What has no queue-proxy and keeps payloads in this process. For tests of this module.
    #[staticmethod]
    fn local() -> Self {
        Self { client: Client::local() }
    }

    /// Puts a copy of `source`.
    fn put(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        source: &Bound<'_, PyAny>,
        options: Wanted,
    ) -> PyResult<Held> {
        let source = Bytes::of(source)?;
        let (wait, confirm) = (seconds(options.wait), options.confirm);
        let options = PutOptions::from(options);
        let reference = self.run(call, remaining, |client| {
            if source.len() <= INLINE_MOST {
                let options = if confirm { options } else { options.pre_issued_if_ready() };
                return client.put(source.to_vec(), &options);
            }
            let mut buffer = client.create_within(source.len(), wait)?;
            source.copy_into(&mut buffer);
            client.put_buffer(buffer, &options)
        })?;
        Ok(held(&reference))
    }

    /// Memory that becomes a payload by `put_segment`; waits for it at most `wait` seconds.
    fn create(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        size: usize,
        wait: f64,
    ) -> PyResult<Segment> {
        self.run(call, remaining, |client| client.create_within(size, seconds(wait))).map(Segment::new)
    }

    /// Puts what was written into `segment`.
    fn put_segment(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        segment: &Segment,
        options: Wanted,
    ) -> PyResult<Held> {
        let buffer = segment.take()?;
        let options = PutOptions::from(options);
        let reference = self.run(call, remaining, |client| client.put_buffer(buffer, &options))?;
        Ok(held(&reference))
    }

    fn get(&self, call: &Bound<'_, PyAny>, remaining: Option<f64>, reference: &str) -> PyResult<Payload> {
        let reference = parsed(call.py(), reference)?;
        self.run(call, remaining, |client| client.get(&reference)).map(Payload::got)
    }

    /// Gets many payloads, `in_flight` at a time, each within `timeout` seconds.
    fn get_many(
        &self,
        py: Python<'_>,
        references: Vec<String>,
        in_flight: usize,
        timeout: Option<f64>,
    ) -> PyResult<Many> {
        let references =
            references.iter().map(|text| parsed(py, text)).collect::<PyResult<Vec<Reference>>>()?;
        let client = self.client.with_timeout(timeout.map_or(NO_TIMEOUT, seconds));
        Ok(Many::new(client.get_many(&references).in_flight(in_flight)))
    }

    /// Waits until every put that was not waited for was taken; raises the first failure.
    fn settle(&self, call: &Bound<'_, PyAny>, remaining: Option<f64>) -> PyResult<()> {
        self.run(call, remaining, Client::settle)
    }

    fn release(&self, call: &Bound<'_, PyAny>, remaining: Option<f64>, reference: &str) -> PyResult<()> {
        let reference = parsed(call.py(), reference)?;
        self.run(call, remaining, |client| client.release(&reference))
    }
}

impl Link {
    /// Runs one call without the GIL.
    fn run<T: Send>(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        work: impl FnOnce(&Client) -> zipline_sdk::Result<T> + Send,
    ) -> PyResult<T> {
        let client = self.client.with_timeout(remaining.map_or(NO_TIMEOUT, seconds));
        call::run(call.py(), Some(call), || work(&client))
    }
}

/// A put's answer: the reference's text, and how many seconds it lives and what bounds them, where that is known.
type Held = (String, Option<f64>, Option<&'static str>);

fn held(reference: &Reference) -> Held {
    let ttl = reference.ttl().map(|ttl| ttl.as_secs_f64());
    (reference.to_string(), ttl, reference.bounded_by().map(BoundedBy::as_str))
}

fn parsed(py: Python<'_>, text: &str) -> PyResult<Reference> {
    text.parse().map_err(|error| raised(py, &error))
}

/// Python checked that it is a number above 0; what no duration can hold is as good as for ever.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(NO_TIMEOUT)
}
