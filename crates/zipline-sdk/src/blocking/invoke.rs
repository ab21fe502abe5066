//! Invokes, in the thread that waits for them: several at a time need no other thread.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use zipline_protocol::FunctionName;

use super::Client;
use crate::clock::now;
use crate::http::{Running, wait_any};
use crate::invoke::{self, Body, CONCURRENCY, CONCURRENCY_MAX, Content, Progress};
use crate::proxy::TICK;
use crate::{Error, Result};

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
    pub fn invoke<B: Into<Body>>(&self, function: &str, request: Request<B>) -> Result<Response<Bytes>> {
        self.submit(function, request)?.response()
    }

    /// [`Self::invoke`] without waiting: what is sent at once is sent, the rest of a large body when it is waited for.
    ///
    /// # Errors
    /// As of [`Self::invoke`], as far as they show before the response.
    pub fn submit<B: Into<Body>>(&self, function: &str, request: Request<B>) -> Result<Invocation> {
        self.start(&self.named(function)?, request)
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
    /// # Errors
    /// The wait was interrupted ([`crate::Options::interrupted`]).
    pub fn wait_for(&self, invocations: &mut [Invocation], count: usize, timeout: Duration) -> Result<usize> {
        let done = |all: &[Invocation]| all.iter().filter(|one| !one.progress.is_running()).count();
        let count = count.min(invocations.len());
        drive(invocations, Some(now() + timeout), self.interrupted, |all| done(all) >= count)?;
        Ok(done(invocations))
    }

    /// The function of this name.
    pub(super) fn named(&self, function: &str) -> Result<FunctionName> {
        invoke::function(function, &self.namespace)
    }

    fn start<B: Into<Body>>(&self, function: &FunctionName, request: Request<B>) -> Result<Invocation> {
        let (parts, body) = request.into_parts();
        let call = invoke::call(function, parts, Content::Whole(body.into()))?;
        let running = invoke::reached(self.core.http())?.start(call, self.timeout)?;
        let mut invocation =
            Invocation { progress: Progress::Runs(Box::new(running)), interrupted: self.interrupted };
        invocation.advance();
        Ok(invocation)
    }
}

/// An invoke that was started ([`Client::submit`]). Dropping it gives it up; the function may run all the same.
#[derive(Debug)]
pub struct Invocation {
    progress: Progress<Box<Running>>,
    interrupted: Option<fn() -> bool>,
}

impl Invocation {
    /// Whether it is done. Does not wait, and sends and takes what can be.
    pub fn is_done(&mut self) -> bool {
        self.advance();
        !self.progress.is_running()
    }

    /// Waits for the response, within the timeout of the client that started it.
    ///
    /// # Errors
    /// As of [`Client::invoke`].
    pub fn response(mut self) -> Result<Response<Bytes>> {
        let interrupted = self.interrupted;
        drive(std::slice::from_mut(&mut self), None, interrupted, |all| !all[0].progress.is_running())?;
        self.progress
            .take()
            .unwrap_or_else(|| Err(Error::invalid("the invocation's response was taken before")))
    }

    fn advance(&mut self) {
        if let Progress::Runs(running) = &mut self.progress
            && let Some(ended) = running.advance().transpose()
        {
            self.progress = Progress::Ended(ended);
        }
    }
}

/// Goes on with all of them until `enough` is true, or the time is `until`.
fn drive(
    invocations: &mut [Invocation],
    until: Option<Duration>,
    interrupted: Option<fn() -> bool>,
    enough: impl Fn(&[Invocation]) -> bool,
) -> Result<()> {
    loop {
        invocations.iter_mut().for_each(Invocation::advance);
        let now = now();
        if enough(invocations) || until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        let running = || {
            invocations.iter().filter_map(|invocation| match &invocation.progress {
                Progress::Runs(running) => Some(&**running),
                Progress::Ended(_) | Progress::Taken => None,
            })
        };
        let next = running().map(Running::deadline).chain(until).fold(now + TICK, Duration::min);
        wait_any(running(), next.saturating_sub(now))?;
        if interrupted.is_some_and(|asked| asked()) {
            return Err(Error::interrupted("waiting for a function"));
        }
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

impl<I, B> Iterator for Map<I>
where
    I: Iterator<Item = Request<B>>,
    B: Into<Body>,
{
    type Item = Result<Response<Bytes>>;

    fn next(&mut self) -> Option<Self::Item> {
        let function = match &mut self.function {
            Ok(function) => &*function,
            Err(error) => return error.take().map(Err),
        };
        while self.running.len() < self.concurrency
            && let Some(request) = self.requests.next()
        {
            let started = self.client.start(function, request);
            self.running.push_back(started.unwrap_or_else(|error| Invocation {
                progress: Progress::Ended(Err(error)),
                interrupted: None,
            }));
        }
        let interrupted = self.client.interrupted;
        let driven = drive(self.running.make_contiguous(), None, interrupted, |all| {
            all.first().is_none_or(|first| !first.progress.is_running())
        });
        match driven {
            Ok(()) => self.running.pop_front()?.progress.take(),
            Err(error) => {
                self.running.clear();
                self.function = Err(None);
                Some(Err(error))
            }
        }
    }
}
