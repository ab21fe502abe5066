//! The receiving function: reads a request to its end and answers with the number of its bytes.

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use zipline_http::{Body, ServeLimits, handler_fn, serve};
use zipline_runtime::Tasks;

/// Serves on `PORT` until it is ended.
pub(crate) fn run() -> anyhow::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place in which this function reads its environment"
    )]
    let port = std::env::var("PORT").context("PORT is not set: this function is started by zipline up")?;
    let port: u16 = port.parse().with_context(|| format!("PORT={port} is not a port"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen")?;
        let tasks = Tasks::new();
        serve(listener, handler_fn(count), ServeLimits::default(), tasks).await;
        Ok(())
    })
}

async fn count(request: Request<Body>) -> Response<Body> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.data().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return response;
            }
        }
    }
    Response::new(Body::full(bytes.to_string()))
}
