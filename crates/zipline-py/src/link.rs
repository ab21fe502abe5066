//! A queue-proxy reached over its own socket, payloads in memory that both map.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyList;
use zipline_sdk::blocking::Client;
use zipline_sdk::{Options, PutOptions, Reference, Retrievals};

use crate::call;
use crate::copy::Bytes;
use crate::errors::raised;
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

    /// Puts a copy of `source`; the reference's text.
    fn put(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        source: &Bound<'_, PyAny>,
        options: Wanted,
    ) -> PyResult<String> {
        let source = Bytes::of(source)?;
        let options = PutOptions::from(options);
        let reference = self.run(call, remaining, |client| {
            if source.len() <= INLINE_MOST {
                return client.put(source.to_vec(), &options);
            }
            let mut buffer = client.create(source.len())?;
            source.copy_into(&mut buffer);
            client.put_buffer(buffer, &options)
        })?;
        Ok(reference.to_string())
    }

    /// Memory that becomes a payload by `put_segment`.
    fn create(&self, call: &Bound<'_, PyAny>, remaining: Option<f64>, size: usize) -> PyResult<Segment> {
        self.run(call, remaining, |client| client.create(size)).map(Segment::new)
    }

    /// Puts what was written into `segment`; the reference's text.
    fn put_segment(
        &self,
        call: &Bound<'_, PyAny>,
        remaining: Option<f64>,
        segment: &Segment,
        options: Wanted,
    ) -> PyResult<String> {
        let buffer = segment.take()?;
        let options = PutOptions::from(options);
        let reference = self.run(call, remaining, |client| client.put_buffer(buffer, &options))?;
        Ok(reference.to_string())
    }

    fn get(&self, call: &Bound<'_, PyAny>, remaining: Option<f64>, reference: &str) -> PyResult<Payload> {
        let reference = parsed(call.py(), reference)?;
        self.run(call, remaining, |client| client.get(&reference)).map(Payload::got)
    }

    /// Gets several payloads in one exchange: for each, in the order in which they came, its index, and the payload or what was
    /// raised for it.
    fn get_many<'py>(
        &self,
        call: &Bound<'py, PyAny>,
        remaining: Option<f64>,
        references: Vec<String>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = call.py();
        let references =
            references.iter().map(|text| parsed(py, text)).collect::<PyResult<Vec<Reference>>>()?;
        let got = self.run(call, remaining, |client| {
            Ok(client.get_many(&references).collect::<Vec<(usize, zipline_sdk::Result<_>)>>())
        })?;
        let list = PyList::empty(py);
        for (index, result) in got {
            match result {
                Ok(payload) => list.append((index, Payload::got(payload)))?,
                Err(error) if error.is_interrupted() => return Err(call::why(py, &error)),
                Err(error) => list.append((index, raised(py, &error).into_value(py)))?,
            }
        }
        Ok(list)
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

fn parsed(py: Python<'_>, text: &str) -> PyResult<Reference> {
    text.parse().map_err(|error| raised(py, &error))
}

/// Python checked that it is a number above 0; what no duration can hold is as good as for ever.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(NO_TIMEOUT)
}
