//! The bytes of one lease as a response body, with the final record as its trailers.

use super::Shared;
use super::activity::{Activity, noting};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio_util::sync::ReusableBoxFuture;
use zipline_buffer::{PayloadReader, ReadError};
use zipline_protocol::data::FinalRecord;
use zipline_protocol::header;
use zipline_seal::ProvenRequest;

/// Any answer of a data port.
pub(super) enum PortBody {
    Full(Option<Bytes>),
    Payload(PayloadBody),
}

impl PortBody {
    pub(super) fn empty() -> Self {
        Self::Full(None)
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

impl Body for PortBody {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Payload(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            // Unknown on purpose: only a chunked body has room for the final record.
            Self::Payload(_) => SizeHint::default(),
        }
    }
}

type Item = (PayloadReader, Result<Next, ReadError>);

enum Next {
    Bytes(Bytes),
    End(FinalRecord),
}

pub(super) struct PayloadBody {
    next: Option<ReusableBoxFuture<'static, Item>>,
    proven: ProvenRequest,
    shared: Arc<Shared>,
    activity: Arc<Activity>,
}

async fn read(mut reader: PayloadReader) -> Item {
    let next = match reader.next().await {
        Some(bytes) => bytes.map(Next::Bytes),
        // The final record speaks of the whole payload: a range of one that still fills waits for it.
        None => reader.completed().await.map(Next::End),
    };
    (reader, next)
}

impl PayloadBody {
    pub(super) fn new(
        reader: PayloadReader,
        proven: ProvenRequest,
        shared: Arc<Shared>,
        activity: Arc<Activity>,
    ) -> Self {
        Self { next: Some(ReusableBoxFuture::new(read(reader))), proven, shared, activity }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        self.activity.working();
        let waker = noting(&self.activity, cx.waker());
        let (reader, item) = ready!(next.poll(&mut Context::from_waker(&waker)));
        self.activity.sending();
        let frame = match item {
            Ok(Next::Bytes(bytes)) => {
                next.set(read(reader));
                self.shared.counters.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Ok(Next::End(record)) => Ok(Frame::trailers(self.trailers(&record))),
            // The connection is closed, so the receiver never takes the answer for complete.
            Err(error) => Err(error),
        };
        self.next = None;
        Poll::Ready(Some(frame))
    }

    fn trailers(&self, record: &FinalRecord) -> HeaderMap {
        let text = "base64url and numbers are header values";
        let (proof, trailers) = self.proven.sign_final(record);
        let mut map = HeaderMap::new();
        map.insert(header::FINAL, HeaderValue::from_str(&proof).expect(text));
        if let Some(trailers) = trailers {
            map.insert(header::TRAILERS, HeaderValue::from_str(&trailers).expect(text));
        }
        map
    }
}

impl Drop for PayloadBody {
    fn drop(&mut self) {
        self.activity.idle();
    }
}
