//! HTTP/1.1: one request at a time per connection.
//!
//! The caller's own task writes the request and reads the response; a connection has none. Only two things run beside it: the
//! rest of a request whose response has begun ([`upload`]), and one watch over all idle connections ([`pool`]).
//!
//! | state of a connection | who has it |
//! |---|---|
//! | exchanging ([`exchange`]) | the caller of [`send`]; dropping it closes the connection |
//! | responding ([`response`]) | the response's body, and its upload if the request is not sent yet |
//! | idle | the pool |
//! | no longer HTTP | the response's upgrade |

mod connection;
mod encode;
mod exchange;
mod head;
mod outgoing;
mod pool;
mod response;
mod upload;

use super::Inner;
use super::error::SendError;
use super::request::{for_http1, is_replayable};
use super::target::HostPort;
use crate::body::Body;
use crate::hop;
use crate::serve::Informational;
use http::header::EXPECT;
use http::{Method, Request, Response};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use exchange::Exchange;
use head::Asked;
use outgoing::Outgoing;

pub(super) use pool::{IDLE_CHECKS, Pool};
pub(crate) use response::ResponseBody;

pub(super) async fn send(
    inner: &Arc<Inner>,
    addr: &HostPort,
    mut request: Request<Body>,
) -> Result<Response<Body>, SendError> {
    for_http1(&mut request, addr)?;
    let config = &inner.config;
    let replayable = is_replayable(&request);
    let asked =
        Asked { head: request.method() == Method::HEAD, connect: request.method() == Method::CONNECT };
    let informational = Informational::of(&request);
    let expects = hop::has_token(request.headers(), &EXPECT, "100-continue") && !request.body().is_end();
    let hold_back = expects.then_some(config.continue_timeout);
    let outgoing = Outgoing::new(request, config.title_case_headers, hold_back)?;
    let mut exchange = Exchange { inner, addr, asked, informational, outgoing };
    let mut may_reuse = true;
    loop {
        let idle = if may_reuse { inner.http1.take(addr, replayable, config.idle_timeout) } else { None };
        let reused = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => connection::open(inner, addr).await?,
        };
        match exchange.run(connection).await {
            Ok(response) => {
                if reused {
                    inner.reused.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(response);
            }
            Err(failure) => {
                // A reused connection that said nothing may have been closed before the request came.
                let untouched = exchange.outgoing.is_untouched();
                if !reused || failure.heard || !exchange.outgoing.rewind(replayable) {
                    return Err(failure.error);
                }
                may_reuse = untouched;
            }
        }
        inner.resent.fetch_add(1, Ordering::Relaxed);
    }
}
