//! GET, as kubelet does it: redirects are followed, and every status from 200 to 399 passes.

use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use zipline_http::{Body, Client, ClientConfig, HostPort, Target};
use zipline_knative::contract::OWN_PROBE_AGENT;
use zipline_knative::probe::{Check, Scheme};

use super::attempt::{Means, connect};

/// Requests of one probe; Go's client gives up after as many.
const REQUESTS_MAX: usize = 10;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Get<'a> {
    scheme: Scheme,
    host: &'a str,
    port: u16,
    path: &'a Uri,
    /// More headers.
    headers: &'a [(HeaderName, HeaderValue)],
}

impl<'a> Get<'a> {
    /// # Panics
    /// For a check that is not HTTP.
    pub(super) fn of(check: &'a Check) -> Self {
        match check {
            Check::Http { scheme, host, port, path, headers } => {
                Self { scheme: *scheme, host, port: *port, path, headers }
            }
            Check::Tcp { .. } | Check::Grpc { .. } => unreachable!("the caller has matched the check"),
        }
    }

    /// The same without more headers.
    pub(super) fn bare(self) -> Self {
        Self { headers: &[], ..self }
    }
}

/// Where the next request goes.
#[derive(Debug, Clone)]
struct Place {
    scheme: Scheme,
    host: String,
    port: u16,
    path: Uri,
}

impl Place {
    fn host_header(&self) -> String {
        HostPort::new(&self.host, self.port).to_string()
    }

    /// Where `location` leads from here.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => {
                let (scheme, port) = match scheme {
                    "http" => (Scheme::Http, 80),
                    "https" => (Scheme::Https, 443),
                    _ => return None,
                };
                let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
                let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse().ok()?;
                Some(Self { scheme, host, port: authority.port_u16().unwrap_or(port), path })
            }
            _ if location.starts_with('/') => Some(Self { path: uri, ..self.clone() }),
            _ => {
                let folder = self.path.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                Some(Self { path: format!("{folder}/{location}").parse().ok()?, ..self.clone() })
            }
        }
    }
}

/// Whether it passes; else why not.
pub(super) async fn get(means: &Means, get: Get<'_>, http2: bool) -> Result<(), String> {
    let mut place =
        Place { scheme: get.scheme, host: get.host.to_owned(), port: get.port, path: get.path.clone() };
    for _ in 0..REQUESTS_MAX {
        let response = ask(means, &place, get.headers, http2).await?;
        let status = response.status();
        if !is_redirect(status) {
            let passes = (200..400).contains(&status.as_u16());
            return if passes { Ok(()) } else { Err(format!("status {status}")) };
        }
        // Without a place to go to, a redirect is an answer like any other.
        let Some(location) = response.headers().get(LOCATION) else { return Ok(()) };
        let next = location.to_str().ok().and_then(|location| place.redirected(location));
        place = next.ok_or_else(|| "redirected to what is no URL".to_owned())?;
    }
    Err(format!("stopped after {REQUESTS_MAX} redirects"))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

async fn ask(
    means: &Means,
    place: &Place,
    headers: &[(HeaderName, HeaderValue)],
    http2: bool,
) -> Result<Response<()>, String> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = place.path.clone();
    let host = HeaderValue::try_from(place.host_header()).map_err(|_| "the host is not valid")?;
    request.headers_mut().insert(HOST, host);
    for (name, value) in headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(OWN_PROBE_AGENT));
    if http2 {
        let client = Client::new(ClientConfig::default(), means.tasks.clone());
        let target = Target::http2(HostPort::new(&place.host, place.port));
        let sent = client.send(&target, request).await;
        return sent.map(|response| response.map(drop)).map_err(|error| error.to_string());
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let stream = connect(&place.host, place.port).await?;
    match place.scheme {
        Scheme::Http => over(stream, request).await,
        Scheme::Https => over(means.trust.connect(&place.host, stream).await?, request).await,
    }
}

/// One request on a connection of its own, which ends with this future.
async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Response<()>, String> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut asked = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut asked => response,
        // Its end fails the request, or has already answered it.
        _ = connection => asked.await,
    };
    response.map(|response| response.map(drop)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_go_goes() {
        let place = Place {
            scheme: Scheme::Http,
            host: "127.0.0.1".into(),
            port: 80,
            path: "/a/b?c".parse().unwrap(),
        };
        let at = |location| {
            let place = place.redirected(location).unwrap();
            (place.scheme, place.host_header(), place.path.to_string())
        };
        assert_eq!(at("/x?y"), (Scheme::Http, "127.0.0.1:80".into(), "/x?y".into()));
        assert_eq!(at("x"), (Scheme::Http, "127.0.0.1:80".into(), "/a/x".into()));
        assert_eq!(at("https://[::1]/z"), (Scheme::Https, "[::1]:443".into(), "/z".into()));
        assert_eq!(at("http://other:81"), (Scheme::Http, "other:81".into(), "/".into()));
        assert!(place.redirected("ftp://x/").is_none());
    }
}
