//! The client for tokio. The futures are `Send`; dropping one gives its operation up.

use std::panic::Location;
use std::time::Duration;

use crate::{Buffer, Options, Payload, PutOptions, Reference, Result, blocking};

/// Puts, gets and releases payloads. Clones share its connection.
#[derive(Clone, Debug)]
pub struct Client {
    inner: blocking::Client,
}

impl Client {
    /// A client of the queue-proxy that the platform's variables name ([`Options::from_env`]).
    ///
    /// # Errors
    /// As of [`Options::from_env`] and [`Self::connect`].
    pub async fn from_env() -> Result<Self> {
        Self::connect(Options::from_env()?).await
    }

    /// A client of a queue-proxy.
    ///
    /// # Errors
    /// `upstream-failed` if it cannot be reached, `token-missing` if it does not take the token.
    pub async fn connect(options: Options) -> Result<Self> {
        blocking::Client::connect(options).map(|inner| Self { inner })
    }

    /// A client that needs no queue-proxy: it holds payloads in this process, by the same rules, for tests and examples.
    #[must_use]
    pub fn local() -> Self {
        Self { inner: blocking::Client::local() }
    }

    /// The same client with another longest wait of one operation.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { inner: self.inner.with_timeout(timeout) }
    }

    /// Puts a copy of `bytes`, which is made at once.
    ///
    /// # Errors
    /// `buffer-full`: no memory within the wait; `payload-too-large`: never; `draining`; `request-invalid`: the options.
    #[track_caller]
    pub fn put<'a>(
        &'a self,
        bytes: impl AsRef<[u8]> + Send + 'a,
        options: &'a PutOptions,
    ) -> impl Future<Output = Result<Reference>> + Send + 'a {
        let call_site = Location::caller();
        async move { self.inner.put_at(bytes, options, call_site) }
    }

    /// Memory of `len` bytes that becomes a payload without a copy, by [`Self::put_buffer`].
    ///
    /// # Errors
    /// As of [`Self::put`].
    pub async fn create(&self, len: usize) -> Result<Buffer> {
        self.inner.create(len)
    }

    /// Puts what was written into `buffer`.
    ///
    /// # Errors
    /// As of [`Self::put`]; `request-invalid` if another client made the buffer.
    #[track_caller]
    pub fn put_buffer<'a>(
        &'a self,
        buffer: Buffer,
        options: &'a PutOptions,
    ) -> impl Future<Output = Result<Reference>> + Send + 'a {
        let call_site = Location::caller();
        async move { self.inner.put_buffer_at(buffer, options, call_site) }
    }

    /// Gets a payload, which counts as one of its retrievals.
    ///
    /// # Errors
    /// `reference-invalid`, `reference-forbidden`, `reference-expired`, `retrievals-exhausted`, `payload-lost`;
    /// `buffer-full` if it cannot be received whole; `deadline-exceeded`.
    pub async fn get(&self, reference: &Reference) -> Result<Payload> {
        self.inner.get(reference)
    }

    /// Frees a payload before its retrievals or its time are used up.
    ///
    /// # Errors
    /// `payload-lost` or `reference-expired` if it is not held any more; `request-invalid` if another instance holds it.
    pub async fn release(&self, reference: &Reference) -> Result<()> {
        self.inner.release(reference)
    }

    /// Waits until every put with a pre-issued reference was taken.
    ///
    /// # Errors
    /// The first failure of one since this was asked last.
    pub async fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
}
