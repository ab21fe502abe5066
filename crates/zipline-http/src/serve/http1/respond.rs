//! Writing a response. Its body is taken frame by frame, each written before the next is asked for: what the client does not
//! take stays with its producer.

use super::core::Shared;
use super::encode::{self, Asked, Encoded, Framing};
use crate::body::Body;
use crate::http1::pieces::COPY_BYTES;
use crate::http1::{chunked, pieces, spare};
use crate::serve::service::drop_body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// What became of a response.
pub(super) enum Responded {
    /// It was written to its end.
    Whole { keep_alive: bool, tunnel: bool },
    /// It broke off; `reset`: and its end would pass for one.
    Aborted { reset: bool },
    /// The client is gone.
    Gone,
}

/// Writes `response`.
pub(super) async fn respond<I>(
    shared: &Shared<I>,
    mut response: Response<Body>,
    asked: Asked,
    half_close: bool,
) -> Responded
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    drop_body(&mut response, asked.head);
    let encoded = match encode::head(&mut response, asked) {
        Ok(encoded) => encoded,
        Err(why) => {
            tracing::warn!(why, "a response cannot be sent");
            return Responded::Aborted { reset: false };
        }
    };
    let (parts, mut body) = response.into_parts();
    spare::give(parts.headers);
    shared.core.lock().responding = true;
    let Encoded { mut bytes, framing, keep_alive, tunnel } = encoded;
    let whole = Responded::Whole { keep_alive, tunnel };
    let one = match framing {
        Framing::Bodiless | Framing::Length(0) => Some(Bytes::new()),
        Framing::Length(length) => body.take_whole(length),
        Framing::Chunked | Framing::Close => None,
    };
    if let Some(mut one) = one {
        if one.len() <= COPY_BYTES {
            bytes.extend_from_slice(&one);
            one = Bytes::new();
        }
        let written = write(shared, &bytes, &one, b"").await;
        // Whoever waits for the end of the body learns it now.
        drop(body);
        return if written.is_ok() { whole } else { Responded::Gone };
    }
    let mut writer = Writer { shared, pending: bytes, framing, asked, half_close };
    match writer.stream(&mut body).await {
        Ok(()) => whole,
        Err(aborted) => aborted,
    }
}

struct Writer<'a, I> {
    shared: &'a Shared<I>,
    /// What goes in front of the next frame, at the latest when there is none.
    pending: Vec<u8>,
    framing: Framing,
    asked: Asked,
    half_close: bool,
}

enum Step {
    Frame(Frame<Bytes>),
    End,
    Failed,
    Gone,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Writer<'_, I> {
    async fn stream(&mut self, body: &mut Body) -> Result<(), Responded> {
        let aborted = Responded::Aborted { reset: self.framing == Framing::Close };
        loop {
            match self.next(body).await {
                Step::Gone => return Err(Responded::Gone),
                Step::Failed => {
                    self.write(&Bytes::new(), b"").await?;
                    return Err(aborted);
                }
                Step::End => return self.end(None).await,
                Step::Frame(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        if self.data(data, body.is_end()).await? {
                            return Ok(());
                        }
                    }
                    Err(frame) => return self.end(frame.into_trailers().ok()).await,
                },
            }
        }
    }

    /// The next frame of the body. While it does not come, what is pending goes out, and the client is watched.
    async fn next(&mut self, body: &mut Body) -> Step {
        let (shared, half_close, pending) = (self.shared, self.half_close, &mut self.pending);
        poll_fn(|cx| {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Step::Frame(frame)),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Step::Failed),
                Poll::Ready(None) => return Poll::Ready(Step::End),
                Poll::Pending => {}
            }
            let mut core = shared.core.lock();
            if core.out.is_empty() {
                // No copy: the core writes it from there.
                core.out = std::mem::take(pending);
            } else {
                core.out.append(pending);
            }
            core.poll_meanwhile(half_close, cx).map(|_gone| Step::Gone)
        })
        .await
    }

    /// Writes data; whether it was the last.
    async fn data(&mut self, mut data: Bytes, last: bool) -> Result<bool, Responded> {
        let mut tail: &[u8] = b"";
        match &mut self.framing {
            Framing::Length(left) => {
                if data.len() as u64 > *left {
                    tracing::warn!("a response's body is longer than it announced");
                    data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                }
                *left -= data.len() as u64;
                let (over, short) = (*left == 0, *left > 0 && last);
                self.write(&data, b"").await?;
                return if short { Err(Responded::Aborted { reset: false }) } else { Ok(over) };
            }
            Framing::Chunked => {
                chunked::chunk(&mut self.pending, data.len());
                tail = if last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            }
            Framing::Close | Framing::Bodiless => {}
        }
        self.write(&data, tail).await?;
        Ok(last)
    }

    async fn end(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), Responded> {
        match self.framing {
            Framing::Length(1..) => {
                // Shorter than announced: the connection ends without the rest.
                self.write(&Bytes::new(), b"").await?;
                return Err(Responded::Aborted { reset: false });
            }
            Framing::Chunked => {
                chunked::last_chunk(&mut self.pending, trailers.as_ref(), self.asked.title_case);
            }
            Framing::Length(0) | Framing::Close | Framing::Bodiless => {}
        }
        self.write(&Bytes::new(), b"").await
    }

    async fn write(&mut self, data: &Bytes, tail: &[u8]) -> Result<(), Responded> {
        let pending = std::mem::take(&mut self.pending);
        write(self.shared, &pending, data, tail).await.map_err(|_| Responded::Gone)
    }
}

/// Writes three pieces, after what the core has to say.
async fn write<I>(shared: &Shared<I>, first: &[u8], second: &[u8], third: &[u8]) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut written = 0;
    poll_fn(|cx| {
        let mut core = shared.core.lock();
        ready!(core.poll_out(cx))?;
        let Some(io) = &mut core.io else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        ready!(pieces::poll_write(Pin::new(&mut *io), [first, second, third], &mut written, cx))?;
        Pin::new(io).poll_flush(cx)
    })
    .await
}
