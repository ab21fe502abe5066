//! One data connection: HTTP/1.1, one request at a time.
//!
//! | state | event | next |
//! |---|---|---|
//! | idle | a whole head | answering |
//! | idle | no whole head within the idle time, the peer closes, or the port stops and nothing was read | closed |
//! | idle | a head that is none | closed, after it was said |
//! | answering | the peer closes | closed; what was waited for is given up |
//! | answering | answered | sending |
//! | sending | everything taken, the connection may stay | idle |
//! | sending | the peer takes nothing for as long as a lease lives, the payload's end is lost | closed at once |

use super::Shared;
use super::answer::{Answer, Granted, answer, problem};
use super::head::{HEAD_MAX, HeadError, RequestHead, parse};
use super::link::{Link, LinkError};
use super::send::{SendError, send};
use bytes::{Buf as _, BytesMut};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zipline_protocol::ErrorCode;

/// Heads are read in pieces of this size: one takes a usual head.
const PIECE: usize = 1024;

/// Unread bytes that are taken off a connection before it is closed.
const READ_OFF_MAX: usize = 64 * 1024;

/// Serves requests until the peer closes, the connection is overdue, or `stop` is cancelled and nothing runs. With a
/// certificate, TLS comes first; a peer that does not speak it is closed before anything is read of what it wants.
pub(super) async fn serve(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>, stop: CancellationToken) {
    let link = match &shared.config.certificate {
        None => Link::plain(stream, &shared.config),
        Some(certificate) => {
            let handshake = timeout(shared.config.handshake_timeout, certificate.accept(stream));
            let secured = tokio::select! {
                secured = handshake => secured,
                () = stop.cancelled() => return,
            };
            match secured {
                Ok(Ok(stream)) => Link::tls(stream, &shared.config),
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "data connection without TLS"),
                Err(_elapsed) => {
                    return tracing::debug!(%peer, "data connection closed, its handshake took too long");
                }
            }
        }
    };
    Connection { link, inbox: BytesMut::new(), peer, shared, stop }.run().await;
}

/// What came of waiting for a request.
enum Next {
    Request(RequestHead),
    Malformed(HeadError),
    Closed,
}

struct Connection {
    link: Link,
    /// What was read and not used yet: at most a head.
    inbox: BytesMut,
    peer: IpAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let request = match self.next().await {
                Next::Request(request) => request,
                Next::Closed => return,
                Next::Malformed(error) => {
                    self.shared.counters.unproven_requests.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(peer = %self.peer, %error, "data connection closed");
                    let answer = problem(400, ErrorCode::RequestInvalid, &error.to_string(), None);
                    if self.give(answer, false).await.is_ok() {
                        self.link.finish(READ_OFF_MAX).await;
                    }
                    return;
                }
            };
            let answer = tokio::select! {
                biased;
                answer = answer(&self.shared, self.peer, &request) => answer,
                () = gone(&mut self.link, &mut self.inbox) => return,
            };
            let stays = request.keep_alive && !request.has_body && !self.stop.is_cancelled();
            match self.give(answer, stays).await {
                Ok(()) if stays => {}
                Ok(()) => return self.link.finish(READ_OFF_MAX).await,
                Err(SendError::Link(LinkError::Stuck)) => {
                    self.shared.counters.stuck_connections.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(peer = %self.peer, "data connection closed, it took no bytes for too long");
                    return;
                }
                // The connection is closed, so the receiver never takes the answer for complete.
                Err(error) => return tracing::debug!(peer = %self.peer, %error, "data connection broke"),
            }
        }
    }

    /// Waits for a request. Until its head is whole, the connection is idle.
    async fn next(&mut self) -> Next {
        let mut overdue = std::pin::pin!(sleep_until(Instant::now() + self.shared.config.idle_timeout));
        loop {
            match parse(&self.inbox) {
                Ok(Some(head)) => {
                    self.inbox.advance(head.bytes);
                    return Next::Request(head);
                }
                Ok(None) => {}
                Err(error) => return Next::Malformed(error),
            }
            let unasked = self.inbox.is_empty();
            tokio::select! {
                biased;
                read = self.link.read(&mut self.inbox, PIECE) => match read {
                    Ok(0) | Err(_) => return Next::Closed,
                    Ok(_) => {}
                },
                () = self.stop.cancelled(), if unasked => return Next::Closed,
                () = &mut overdue => return Next::Closed,
            }
        }
    }

    async fn give(&mut self, answer: Answer, stays: bool) -> Result<(), SendError> {
        let end = if stays { "\r\n" } else { "connection: close\r\n\r\n" };
        match answer {
            Answer::Short { mut head, body } => {
                head.push_str(end);
                head.push_str(&body);
                Ok(self.link.write_all(head.as_bytes()).await?)
            }
            Answer::Payload(granted) => {
                let Granted { mut head, reader, proven, span, slot } = *granted;
                head.push_str(end);
                self.link.set_slot(slot);
                let sending =
                    send(&mut self.link, &mut self.inbox, &self.shared, head, reader, &proven, span);
                let sent = sending.await;
                self.link.set_slot(None);
                sent
            }
        }
    }
}

/// Resolves when the peer has closed the connection. What it sends meanwhile is the beginning of its next request; a whole
/// head's worth is kept, and then no more is read.
pub(super) async fn gone(link: &mut Link, inbox: &mut BytesMut) {
    loop {
        let room = HEAD_MAX.saturating_sub(inbox.len()).min(PIECE);
        if room == 0 {
            return std::future::pending().await;
        }
        if matches!(link.read(inbox, room).await, Ok(0) | Err(_)) {
            return;
        }
    }
}
