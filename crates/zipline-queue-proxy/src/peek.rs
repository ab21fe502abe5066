//! Looks at the start of a body whose length is not known, to decide whether it is deferred (protocol, section 5.5).

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};
use zipline_http::{Body, BodyError};
use zipline_protocol::limits::{ARRIVAL_PAUSE, GRPC_PREFIX_WAIT};

/// Bytes of a gRPC message prefix: a flag and the length.
const GRPC_PREFIX: usize = 5;

/// A body with its start looked at and put back.
#[derive(Debug)]
pub(crate) struct Peeked {
    /// All of the body.
    pub(crate) body: Body,
    /// Whether it is at or above the threshold, as far as can be told.
    pub(crate) large: bool,
}

/// Reads until `threshold` bytes have arrived, the body ends, or nothing came for [`ARRIVAL_PAUSE`].
///
/// Holds at most the threshold and one frame. Not cancel safe: what was read is dropped with the future.
pub(crate) async fn arrivals(body: Body, threshold: u64) -> Peeked {
    let mut start = Start::new(body);
    while start.bytes < threshold {
        match timeout(ARRIVAL_PAUSE, start.read()).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return start.put_back(false),
        }
    }
    start.put_back(true)
}

/// Reads the first gRPC message prefix, for [`GRPC_PREFIX_WAIT`] at most, and tells whether it announces `threshold` bytes.
///
/// Holds one frame, or the few frames that make five bytes. Not cancel safe.
pub(crate) async fn grpc_message(body: Body, threshold: u64) -> Peeked {
    let deadline = Instant::now() + GRPC_PREFIX_WAIT;
    let mut start = Start::new(body);
    while start.bytes < GRPC_PREFIX as u64 {
        match timeout_at(deadline, start.read()).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return start.put_back(false),
        }
    }
    let large = start.grpc_length() >= threshold;
    start.put_back(large)
}

/// Reads until `max` bytes or the end are there, and gives a copy of up to `max` of them with the whole body.
///
/// Not cancel safe.
pub(crate) async fn start(body: Body, max: usize) -> (Vec<u8>, Body) {
    let mut start = Start::new(body);
    while start.bytes < max as u64 && start.read().await {}
    let bytes = start.data().copied().take(max).collect();
    (bytes, start.put_back(false).body)
}

/// Takes the first line, without its line feed, off a body; `None` if there is none within `max` bytes.
///
/// Not cancel safe.
pub(crate) async fn line(mut body: Body, max: usize) -> Option<(Vec<u8>, Body)> {
    let mut line = Vec::new();
    loop {
        let mut data = body.data().await?.ok()?.into_data().ok()?;
        if let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&data.split_to(end + 1)[..end]);
            let mut rest = Start::new(body);
            if !data.is_empty() {
                rest.frames.push_back(Ok(Frame::data(data)));
            }
            return (line.len() <= max).then(|| (line, rest.put_back(false).body));
        }
        line.extend_from_slice(&data);
        if line.len() > max {
            return None;
        }
    }
}

struct Start {
    frames: VecDeque<Result<Frame<Bytes>, BodyError>>,
    bytes: u64,
    rest: Body,
}

impl Start {
    fn new(rest: Body) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, rest }
    }

    /// Reads one frame; false at the end, at trailers and at an error. Cancel safe: a frame is kept once it is there.
    async fn read(&mut self) -> bool {
        match self.rest.data().await {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map(Bytes::len);
                self.bytes += data.unwrap_or(0) as u64;
                self.frames.push_back(Ok(frame));
                data.is_some()
            }
            Some(Err(error)) => {
                self.frames.push_back(Err(error));
                false
            }
            None => false,
        }
    }

    fn data(&self) -> impl Iterator<Item = &u8> {
        self.frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref()).flatten()
    }

    fn grpc_length(&self) -> u64 {
        let mut prefix = [0; GRPC_PREFIX];
        for (place, byte) in prefix.iter_mut().zip(self.data()) {
            *place = *byte;
        }
        let [_, a, b, c, d] = prefix;
        GRPC_PREFIX as u64 + u64::from(u32::from_be_bytes([a, b, c, d]))
    }

    fn put_back(self, large: bool) -> Peeked {
        let body = if self.frames.is_empty() {
            self.rest
        } else {
            Body::wrap(PutBack { frames: self.frames, rest: self.rest })
        };
        Peeked { body, large }
    }
}

struct PutBack {
    frames: VecDeque<Result<Frame<Bytes>, BodyError>>,
    rest: Body,
}

impl http_body::Body for PutBack {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // An exact hint of the rest alone would announce a wrong length.
        if self.frames.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests;
