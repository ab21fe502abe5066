//! Bodies on their way through the gateway: counted to the byte, and lent to a connection that may not come about.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use zipline_http::{Body, BodyError};

/// A body whose bytes are counted as they pass.
#[derive(Debug)]
pub(super) struct Counted {
    body: Body,
    bytes: Counter,
}

impl Counted {
    pub(super) fn new(body: Body, bytes: Counter) -> Self {
        Self { body, bytes }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.inc_by(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that can be taken back as long as nobody has read from it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    body: Arc<Mutex<Option<Body>>>,
}

impl Kept {
    pub(super) fn new(body: Body) -> Self {
        Self { body: Arc::new(Mutex::new(Some(body))) }
    }

    /// The body, for one try to send it.
    pub(super) fn lend(&self) -> Body {
        match &*self.body.lock() {
            // Nothing to take back, and it stays recognisable as no body at all.
            Some(body) if body.is_end() => return Body::empty(),
            _ => {}
        }
        Body::wrap(Lent { kept: self.body.clone(), taken: None })
    }

    /// Whether nobody has read from it.
    pub(super) fn is_whole(&self) -> bool {
        self.body.lock().is_some()
    }
}

struct Lent {
    kept: Arc<Mutex<Option<Body>>>,
    taken: Option<Body>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.taken.is_none() {
            let body = self.kept.lock().take();
            self.taken = body;
        }
        match &mut self.taken {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(Some(Err(BodyError::aborted("this body was sent before")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.taken {
            Some(body) => body.is_end_stream(),
            None => self.kept.lock().as_ref().is_some_and(HttpBody::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.taken {
            Some(body) => body.size_hint(),
            None => self.kept.lock().as_ref().map(HttpBody::size_hint).unwrap_or_default(),
        }
    }
}
