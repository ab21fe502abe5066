//! The client for code without a runtime. Every call does its own socket I/O in the calling thread.

use std::panic::Location;
use std::time::Duration;

use bytes::Bytes;

use crate::local::Local;
use crate::{Buffer, Error, Options, Payload, PutOptions, Reference, Result};

/// Puts, gets and releases payloads. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    local: Local,
    #[expect(dead_code, reason = "calls that wait come with the socket")]
    timeout: Duration,
}

impl Client {
    /// A client of the queue-proxy that the platform's variables name ([`Options::from_env`]).
    ///
    /// # Errors
    /// As of [`Options::from_env`] and [`Self::connect`].
    pub fn from_env() -> Result<Self> {
        Self::connect(Options::from_env()?)
    }

    /// A client of a queue-proxy.
    ///
    /// # Errors
    /// `upstream-failed` if it cannot be reached, `token-missing` if it does not take the token.
    pub fn connect(options: Options) -> Result<Self> {
        Err(Error::invalid(format_args!("no queue-proxy can be reached with {options:?}")))
    }

    /// A client that needs no queue-proxy: it holds payloads in this process, by the same rules, for tests and examples.
    #[must_use]
    pub fn local() -> Self {
        Self { local: Local::new(), timeout: Options::new().timeout }
    }

    /// The same client with another longest wait of one operation.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Puts a copy of `bytes`.
    ///
    /// # Errors
    /// `buffer-full`: no memory within the wait; `payload-too-large`: never; `draining`; `request-invalid`: the options.
    #[track_caller]
    pub fn put(&self, bytes: impl AsRef<[u8]>, options: &PutOptions) -> Result<Reference> {
        self.put_at(bytes, options, Location::caller())
    }

    pub(crate) fn put_at(
        &self,
        bytes: impl AsRef<[u8]>,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        options.check().map_err(|error| error.put_at(Some(call_site)))?;
        self.local.put(Bytes::copy_from_slice(bytes.as_ref()), options, call_site)
    }

    /// Memory of `len` bytes that becomes a payload without a copy, by [`Self::put_buffer`].
    ///
    /// # Errors
    /// As of [`Self::put`].
    #[track_caller]
    pub fn create(&self, len: usize) -> Result<Buffer> {
        Ok(Buffer::of_process(len))
    }

    /// Puts what was written into `buffer`.
    ///
    /// # Errors
    /// As of [`Self::put`]; `request-invalid` if another client made the buffer.
    #[track_caller]
    pub fn put_buffer(&self, buffer: Buffer, options: &PutOptions) -> Result<Reference> {
        self.put_buffer_at(buffer, options, Location::caller())
    }

    pub(crate) fn put_buffer_at(
        &self,
        buffer: Buffer,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        options.check().map_err(|error| error.put_at(Some(call_site)))?;
        self.local.put(buffer.into_bytes(), options, call_site)
    }

    /// Gets a payload, which counts as one of its retrievals.
    ///
    /// # Errors
    /// `reference-invalid`, `reference-forbidden`, `reference-expired`, `retrievals-exhausted`, `payload-lost`;
    /// `buffer-full` if it cannot be received whole; `deadline-exceeded`.
    pub fn get(&self, reference: &Reference) -> Result<Payload> {
        self.local.get(reference)
    }

    /// Gets many payloads at once, in the order in which they come.
    pub fn get_many(
        &self,
        references: &[Reference],
    ) -> impl Iterator<Item = (usize, Result<Payload>)> + use<> {
        let gets: Vec<_> = references.iter().map(|reference| self.get(reference)).enumerate().collect();
        gets.into_iter()
    }

    /// Frees a payload before its retrievals or its time are used up.
    ///
    /// # Errors
    /// `payload-lost` or `reference-expired` if it is not held any more; `request-invalid` if another instance holds it.
    pub fn release(&self, reference: &Reference) -> Result<()> {
        self.local.release(reference)
    }

    /// Waits until every put with a pre-issued reference was taken.
    ///
    /// # Errors
    /// The first failure of one since this was asked last.
    pub fn settle(&self) -> Result<()> {
        Ok(())
    }
}
