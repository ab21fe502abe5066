//! A held payload read as the body of a message by its own holder.

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use zipline_buffer::PayloadReader;
use zipline_http::{Body, BodyError, BodyErrorKind};

/// The payload's bytes and trailers. A payload that breaks off breaks the body off.
pub(crate) fn from_reader(reader: PayloadReader) -> Body {
    let length = reader.payload_length();
    body_of(length, frames(reader))
}

/// A body from a stream of frames, of exact size if the length is known.
pub(crate) fn body_of<S>(length: Option<u64>, frames: S) -> Body
where
    S: Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
{
    match length {
        Some(length) => Body::from_frames_sized(length, frames),
        None => Body::from_frames(frames),
    }
}

fn frames(reader: PayloadReader) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send {
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Some(reader))),
            Some(Err(error)) => Some((Err(BodyError::new(BodyErrorKind::PayloadLost, error)), None)),
            None => {
                let trailers = zipline_transfer::trailers::decode(&reader.final_record()?.trailers).ok()?;
                let trailers = Some(trailers).filter(|trailers| !trailers.is_empty())?;
                Some((Ok(Frame::trailers(trailers)), None))
            }
        }
    })
}
