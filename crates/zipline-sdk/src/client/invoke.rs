//! Invokes as futures.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use zipline_protocol::FunctionName;

use super::Client;
use crate::http::{Exchanging, Running};
use crate::invoke::{self, Body, CONCURRENCY, CONCURRENCY_MAX, Content, Progress};
use crate::{Error, Result};

type Invoking = Pin<Box<dyn Future<Output = Result<Response<Bytes>>> + Send>>;

impl Client {
    /// Sends a request to a function and waits for its response, whatever its status, within the client's timeout.
    ///
    /// `function` is `service` or `service.namespace`. Of the request's URI path and query count. Large bodies travel from memory to
    /// memory; the response's is taken whole, up to [`crate::Options::response_max`], without its trailers.
    /// [`Self::invoke_stream`] takes it as it comes.
    ///
    /// # Errors
    /// `request-invalid`: no such name; `upstream-failed`, `receiver-unproven`, `deadline-exceeded`: no response came, and the function may
    /// have run; `payload-too-large`: the response's body. For a body that is a reference also those of [`Self::get`].
    /// # Cancel safety
    /// Dropping the future gives the invoke up; the function may run all the same.
    pub fn invoke<B: Into<Body>>(
        &self,
        function: &str,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Bytes>>> + Send + use<B> {
        self.submit(function, request)
    }

    /// An invoke to be awaited, alone or with others ([`Self::wait_for`]). It starts when it is first waited for.
    pub fn submit<B: Into<Body>>(&self, function: &str, request: Request<B>) -> Invocation {
        match self.named(function) {
            Ok(function) => self.start(&function, request),
            Err(error) => Invocation { progress: Progress::Ended(Err(error)) },
        }
    }

    /// Invokes a function once for each request, [`Map::concurrency`] at a time; the responses come in the order of the requests, which
    /// are taken as they are needed.
    #[must_use]
    pub fn map<I, B>(&self, function: &str, requests: I) -> Map<I::IntoIter>
    where
        I: IntoIterator<Item = Request<B>>,
        B: Into<Body>,
    {
        Map {
            client: self.clone(),
            function: self.named(function).map_err(Some),
            requests: requests.into_iter(),
            running: VecDeque::new(),
            concurrency: CONCURRENCY,
        }
    }

    /// Waits until at least `count` of the invocations are done, or all are, or `timeout` is over; gives the number that is done.
    ///
    /// # Cancel safety
    /// Yes: what is done stays with its invocation.
    pub async fn wait_for(&self, invocations: &mut [Invocation], count: usize, timeout: Duration) -> usize {
        let count = count.min(invocations.len());
        let waiting = poll_fn(|cx| {
            let done = invocations.iter_mut().filter_map(|invocation| invocation.advance(cx)).count();
            if done >= count { Poll::Ready(()) } else { Poll::Pending }
        });
        // Whatever is done then is counted.
        let _ = tokio::time::timeout(timeout, waiting).await;
        invocations.iter().filter(|invocation| invocation.is_done()).count()
    }

    /// The function of this name.
    pub(crate) fn named(&self, function: &str) -> Result<FunctionName> {
        invoke::function(function, &self.namespace)
    }

    pub(crate) fn start<B: Into<Body>>(&self, function: &FunctionName, request: Request<B>) -> Invocation {
        let (client, function) = (self.clone(), function.clone());
        let (parts, body) = request.into_parts();
        let content = Content::Whole(body.into());
        let invoking = async move {
            let call = invoke::call(&function, parts, content)?;
            let running = invoke::reached(client.core.http())?.start(call, client.timeout)?;
            Exchanging::new(running, None).until(Running::advance).await
        };
        Invocation { progress: Progress::Runs(Box::pin(invoking)) }
    }
}

/// An invoke ([`Client::submit`]): a future of its response. Dropping it gives it up; the function may run all the same.
pub struct Invocation {
    progress: Progress<Invoking>,
}

impl Invocation {
    /// Whether it is done: awaiting it does not wait any more. It goes on only while it is waited for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.progress.is_running()
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Option<()> {
        if let Progress::Runs(invoking) = &mut self.progress
            && let Poll::Ready(ended) = invoking.as_mut().poll(cx)
        {
            self.progress = Progress::Ended(ended);
        }
        self.is_done().then_some(())
    }
}

impl Future for Invocation {
    type Output = Result<Response<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.advance(cx).is_none() {
            return Poll::Pending;
        }
        let taken = || Err(Error::invalid("the invocation's response was taken before"));
        Poll::Ready(self.progress.take().unwrap_or_else(taken))
    }
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("done", &self.is_done()).finish()
    }
}

/// Responses of [`Client::map`]. Dropping it gives up those that did not come yet.
#[derive(Debug)]
pub struct Map<I> {
    client: Client,
    /// Once its error was given, there is nothing.
    function: std::result::Result<FunctionName, Option<Error>>,
    requests: I,
    running: VecDeque<Invocation>,
    concurrency: usize,
}

impl<I> Map<I> {
    /// Has so many invokes run at the same time: 1 to 256; 8 unless set.
    #[must_use]
    pub fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = count.clamp(1, CONCURRENCY_MAX);
        self
    }
}

impl<I, B> Map<I>
where
    I: Iterator<Item = Request<B>>,
    B: Into<Body>,
{
    /// The next response; `None` after the last.
    ///
    /// # Cancel safety
    /// Yes: a response is taken only when the future is ready.
    pub async fn next(&mut self) -> Option<Result<Response<Bytes>>> {
        let function = match &mut self.function {
            Ok(function) => &*function,
            Err(error) => return error.take().map(Err),
        };
        while self.running.len() < self.concurrency
            && let Some(request) = self.requests.next()
        {
            self.running.push_back(self.client.start(function, request));
        }
        let running = &mut self.running;
        poll_fn(|cx| {
            // All of them go on, and the first one is waited for.
            let done = running.iter_mut().map(|invocation| invocation.advance(cx).is_some());
            if done.fold(None, |first, done| first.or(Some(done))).unwrap_or(true) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        self.running.pop_front()?.progress.take()
    }
}
