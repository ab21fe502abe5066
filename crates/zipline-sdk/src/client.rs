//! The client for tokio. Its futures are `Send`; dropping one gives its operation up.

mod invoke;
mod stream;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use zipline_protocol::limits::PUT_WAIT_DEFAULT;

use crate::blocking::{LOOK_EVERY, PATIENCE, not_issued, unexpected};
use crate::buffer::Written;
use crate::clock::now;
use crate::core::{Core, GRACE, Proxy, check_wait, longest};
use crate::http::{Call, Exchanging, Http, Running, Sending, ours};
use crate::local::Local;
use crate::options::PreIssued;
use crate::proxy::{Ahead, Came, Issued, Link, Many, Reply, Waiting};
use crate::{Buffer, Error, ErrorCode, Options, Payload, PutOptions, Reference, Result, Transport};

pub use invoke::{Invocation, Map};
pub use stream::{Incoming, StreamBody};

/// Puts, gets and releases payloads, and invokes functions. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    core: Core,
    namespace: Arc<str>,
    timeout: Duration,
}

impl Client {
    /// A client of the queue-proxy that the platform's variables name ([`Options::from_env`]).
    ///
    /// # Errors
    /// As of [`Options::from_env`] and [`Self::connect`].
    pub async fn from_env() -> Result<Self> {
        Self::connect(Options::from_env()?).await
    }

    /// A client of a queue-proxy. To be called in a tokio runtime, which then serves its connection.
    ///
    /// # Errors
    /// `upstream-failed` if it cannot be reached, `token-missing` if it does not take the token.
    pub async fn connect(options: Options) -> Result<Self> {
        let mut client = Self {
            core: Core::new(&options, true)?,
            namespace: Arc::clone(&options.namespace),
            timeout: options.timeout,
        };
        if let Core::Proxy(proxy) = &client.core {
            match client.link(proxy).await {
                Ok(_) => return Ok(client),
                Err(error) => client.core = Core::instead(&options, error)?,
            }
        }
        if let Core::Http(http) = &client.core {
            client.ask(http, ours::hello()).await?;
        }
        Ok(client)
    }

    /// A client that needs no queue-proxy: it holds payloads in this process, by the same rules, for tests and examples. A put
    /// that waits for room blocks its thread.
    #[must_use]
    pub fn local() -> Self {
        let Options { namespace, timeout, .. } = Options::new();
        Self { core: Core::Local(Local::new()), namespace, timeout }
    }

    /// How it reaches what holds its payloads.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.core.transport()
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
    pub fn put<'a>(
        &'a self,
        bytes: impl AsRef<[u8]> + Send + Sync + 'a,
        options: &'a PutOptions,
    ) -> impl Future<Output = Result<Reference>> + Send + 'a {
        let call_site = Location::caller();
        async move {
            let put = self.put_at(bytes.as_ref(), options, call_site).await;
            put.map_err(|error| error.put_at(Some(call_site)))
        }
    }

    async fn put_at(
        &self,
        bytes: &[u8],
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        options.check()?;
        let proxy = match &self.core {
            Core::Local(local) => return local.put(Bytes::copy_from_slice(bytes), options, call_site),
            Core::Http(http) => {
                return self.put_over(http, Bytes::copy_from_slice(bytes), options, call_site).await;
            }
            Core::Proxy(proxy) => proxy,
        };
        let link = self.link(proxy).await?;
        if bytes.len() > link.inline_max() {
            let mut buffer = self.buffer(&link, bytes.len(), options.wait).await?;
            buffer.copy_in(bytes);
            return self.put_written(buffer, options, call_site).await;
        }
        let issued = match options.pre_issued {
            PreIssued::Never => None,
            PreIssued::Ready => link.take_ready(options)?,
            PreIssued::Always => Some(self.issued(&link, options).await?),
        };
        if let Some((id, text)) = issued {
            link.put_ahead(id, Ahead::Inline(bytes), call_site)?;
            return Ok(Reference::made(text, call_site, None));
        }
        let waiting = link.put_inline(bytes, options)?;
        self.put_done(&waiting, options, call_site).await
    }

    /// Memory of `len` bytes that becomes a payload without a copy, by [`Self::put_buffer`].
    ///
    /// # Errors
    /// As of [`Self::put`].
    #[track_caller]
    pub fn create(&self, len: usize) -> impl Future<Output = Result<Buffer>> + Send + '_ {
        self.create_within(len, PUT_WAIT_DEFAULT)
    }

    /// [`Self::create`], waiting at most `wait` (60 s) for memory in place of 5 s.
    ///
    /// # Errors
    /// As of [`Self::put`].
    #[track_caller]
    pub fn create_within(
        &self,
        len: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Buffer>> + Send + '_ {
        let call_site = Location::caller();
        async move { self.created(len, wait).await.map_err(|error| error.put_at(Some(call_site))) }
    }

    async fn created(&self, len: usize, wait: Duration) -> Result<Buffer> {
        check_wait(wait)?;
        let proxy = match &self.core {
            Core::Local(_) | Core::Http(_) => return Ok(Buffer::of_process(len)),
            Core::Proxy(proxy) => proxy,
        };
        let link = self.link(proxy).await?;
        let buffer = self.buffer(&link, len, wait).await?;
        buffer.populate();
        Ok(buffer)
    }

    /// Puts what was written into `buffer`.
    ///
    /// # Errors
    /// As of [`Self::put`]; `request-invalid` if a client of another kind made the buffer.
    #[track_caller]
    pub fn put_buffer<'a>(
        &'a self,
        buffer: Buffer,
        options: &'a PutOptions,
    ) -> impl Future<Output = Result<Reference>> + Send + 'a {
        let call_site = Location::caller();
        async move {
            let put = match options.check() {
                Ok(()) => self.put_written(buffer, options, call_site).await,
                Err(error) => Err(error),
            };
            put.map_err(|error| error.put_at(Some(call_site)))
        }
    }

    async fn put_written(
        &self,
        buffer: Buffer,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        match (&self.core, buffer.written()) {
            (Core::Local(local), Some(Written::Process(bytes))) => local.put(bytes, options, call_site),
            (Core::Http(http), Some(Written::Process(bytes))) => {
                self.put_over(http, bytes, options, call_site).await
            }
            // It goes the way of its segment, whichever connection is used by now.
            (Core::Proxy(_), Some(Written::Segment { link, id, bytes })) => {
                if options.pre_issued == PreIssued::Always {
                    let (payload, text) = self.issued(&link, options).await?;
                    link.put_ahead(payload, Ahead::Segment(id, bytes), call_site)?;
                    return Ok(Reference::made(text, call_site, None));
                }
                let waiting = link.put_segment(id, bytes, options)?;
                self.put_done(&waiting, options, call_site).await
            }
            _ => Err(Error::invalid("the buffer is another client's: put it with the one that created it")),
        }
    }

    async fn put_over(
        &self,
        http: &Http,
        bytes: Bytes,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        let (text, life) = ours::held(&self.ask(http, ours::put(Sending::Whole(bytes), options)?).await?)?;
        Ok(Reference::made(text.into(), call_site, Some(life)))
    }

    async fn put_done(
        &self,
        waiting: &Waiting,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        match self.wait(waiting, longest(options.wait, self.timeout)).await? {
            Reply::Put(text, life) => Ok(Reference::made(text.into(), call_site, Some(life))),
            other => Err(unexpected(other)),
        }
    }

    async fn buffer(&self, link: &Arc<Link>, len: usize, wait: Duration) -> Result<Buffer> {
        let waiting = match link.segment(len, wait)? {
            Ok(free) => return Ok(Buffer::of_segment(Arc::clone(link), free, len)),
            Err(waiting) => waiting,
        };
        let (give_way, deadline) = (now() + PATIENCE, now() + longest(wait, self.timeout));
        loop {
            match waiting.answer(LOOK_EVERY).await {
                Ok(Reply::Segment(outgoing)) => {
                    return Ok(Buffer::of_segment(Arc::clone(link), outgoing, len));
                }
                Ok(other) => return Err(unexpected(other)),
                Err(error) if error.code() != ErrorCode::DeadlineExceeded || error.is_interrupted() => {
                    return Err(error);
                }
                Err(error) if now() >= deadline => return Err(error),
                Err(_) => {}
            }
            // What has come free meanwhile serves as well; what does not fit makes room.
            if let Some(free) = link.free_segment(len) {
                return Ok(Buffer::of_segment(Arc::clone(link), free, len));
            }
            if now() >= give_way {
                link.give_way();
            }
        }
    }

    async fn issued(&self, link: &Arc<Link>, options: &PutOptions) -> Result<Issued> {
        if let Some(issued) = link.take_issued(options)? {
            return Ok(issued);
        }
        let deadline = now() + self.timeout;
        loop {
            // The issue that is on its way comes before the answer to this.
            let settled = link.settle()?;
            self.wait(&settled, self.timeout + GRACE).await?;
            let refused = link.is_refused(options);
            if let Some(issued) = link.take_issued(options)? {
                return Ok(issued);
            }
            // Otherwise others were faster, and more are on their way.
            if refused || now() >= deadline {
                return Err(not_issued());
            }
        }
    }

    /// Gets a payload, which counts as one of its retrievals.
    ///
    /// # Errors
    /// `reference-invalid`, `reference-forbidden`, `reference-expired`, `retrievals-exhausted`, `payload-lost`;
    /// `buffer-full` if it cannot be received whole; `deadline-exceeded`.
    pub async fn get(&self, reference: &Reference) -> Result<Payload> {
        let got = async {
            let proxy = match &self.core {
                Core::Local(local) => return local.get(reference),
                Core::Http(http) => return self.ask(http, ours::get(reference)?).await.map(ours::got),
                Core::Proxy(proxy) => proxy,
            };
            let link = self.link(proxy).await?;
            let waiting = link.get(std::slice::from_ref(reference), self.timeout)?;
            match self.wait(&waiting, self.timeout + GRACE).await? {
                Reply::Got(_, payload) => Ok(payload),
                other => Err(unexpected(other)),
            }
        };
        got.await.map_err(|error| error.put_at(reference.call_site()))
    }

    /// Gets many payloads; they come in the order in which they arrive, each with its place in `references`. Some are on their way at
    /// the same time ([`GetMany::in_flight`]), and nothing is asked for while nobody takes what came.
    ///
    /// Dropping what it gives gives up those that did not come yet.
    #[must_use]
    pub fn get_many(&self, references: &[Reference]) -> GetMany {
        GetMany { client: self.clone(), many: Many::new(references) }
    }

    /// Frees a payload before its retrievals or its time are used up.
    ///
    /// # Errors
    /// `payload-lost` or `reference-expired` if it is not held any more; `request-invalid` if another instance holds it.
    pub async fn release(&self, reference: &Reference) -> Result<()> {
        let released = async {
            let proxy = match &self.core {
                Core::Local(local) => return local.release(reference),
                Core::Http(http) => return self.ask(http, ours::release(reference)?).await.map(drop),
                Core::Proxy(proxy) => proxy,
            };
            let link = self.link(proxy).await?;
            let waiting = link.release(reference)?;
            match self.wait(&waiting, self.timeout + GRACE).await? {
                Reply::Ok => Ok(()),
                other => Err(unexpected(other)),
            }
        };
        released.await.map_err(|error| error.put_at(reference.call_site()))
    }

    /// Waits until every put with a pre-issued reference was taken.
    ///
    /// # Errors
    /// The first failure of one since this was asked last.
    pub async fn settle(&self) -> Result<()> {
        let Core::Proxy(proxy) = &self.core else { return Ok(()) };
        let link = self.link(proxy).await?;
        let waiting = link.settle()?;
        self.wait(&waiting, self.timeout + GRACE).await?;
        link.take_failure().map_or(Ok(()), Err)
    }

    async fn ask(&self, http: &Http, call: Call) -> Result<Response<Bytes>> {
        Exchanging::new(http.start(call, self.timeout)?, None).until(Running::advance).await
    }

    async fn link(&self, proxy: &Proxy) -> Result<Arc<Link>> {
        if let Some(link) = proxy.present() {
            link.sendable().await;
            return Ok(link);
        }
        let (link, waiting) = proxy.open()?;
        match self.wait(&waiting, self.timeout + GRACE).await? {
            Reply::Welcome => {}
            other => return Err(unexpected(other)),
        }
        proxy.welcomed(&link);
        Ok(link)
    }

    async fn wait(&self, waiting: &Waiting, longest: Duration) -> Result<Reply> {
        waiting.answer(longest).await
    }
}

/// Payloads of [`Client::get_many`].
#[derive(Debug)]
pub struct GetMany {
    client: Client,
    many: Many,
}

impl GetMany {
    /// Has at most so many payloads on their way at the same time; 64 unless set, one at least. Each takes its bytes of the
    /// queue-proxy's budget in flight.
    #[must_use]
    pub fn in_flight(mut self, most: usize) -> Self {
        self.many.limit(most);
        self
    }

    /// The next payload and its place in the references; `None` when all have come. Waits at most the client's timeout.
    ///
    /// # Cancel safety
    /// Yes: a payload is taken only when the future is ready.
    pub async fn next(&mut self) -> Option<(usize, Result<Payload>)> {
        let came = self.came().await?;
        Some(self.many.named(came))
    }

    async fn came(&mut self) -> Option<Came> {
        let proxy = match &self.client.core {
            Core::Local(local) => {
                return self.many.following().map(|(place, reference)| (place, local.get(reference)));
            }
            Core::Http(_) => {
                let (place, reference) = self.many.following()?;
                return Some((place, self.client.get(reference).await));
            }
            Core::Proxy(proxy) => Arc::clone(proxy),
        };
        loop {
            if let Some(failed) = self.many.next_failed() {
                return Some(failed);
            }
            if let Some(due) = self.many.due() {
                let link = match self.many.link() {
                    Some(link) => Ok(link),
                    None => self.client.link(&proxy).await,
                };
                match link {
                    Ok(link) => self.many.ask(&link, due, self.client.timeout, GRACE),
                    Err(error) => self.many.ends(error),
                }
                continue;
            }
            let link = self.many.link()?;
            match link.answer_for_many(&self.many).await {
                Ok(answer) => {
                    if let Some(came) = self.many.came(answer) {
                        return Some(came);
                    }
                }
                Err(error) if link.is_broken() => self.many.breaks(error),
                Err(error) => self.many.ends(error),
            }
        }
    }
}
