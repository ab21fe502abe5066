//! Pushes OTLP messages to a collector: one connection for each push, as there is one every few seconds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use zipline_http::Resolver;
use zipline_runtime::Tasks;

use super::target::{Form, Target};

/// The most a collector may answer; it has little to say.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// Pauses before a push is tried again; after the last one its message is given up.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// gRPC statuses after which a push may be tried again, by the OTLP specification.
const GRPC_RETRYABLE: [u32; 7] = [1, 4, 8, 10, 11, 14, 15];
/// HTTP statuses after which it may.
const HTTP_RETRYABLE: [u16; 4] = [429, 502, 503, 504];

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PushError {
    /// No connection.
    #[error("the collector {authority} cannot be reached")]
    Connect { authority: String, source: io::Error },
    /// The connection broke.
    #[error("the exchange with the collector broke off")]
    Exchange(#[from] hyper::Error),
    /// No answer in time.
    #[error("the collector did not answer within {} ms", limit.as_millis())]
    Timeout { limit: Duration },
    /// An HTTP status other than 2xx.
    #[error("the collector answered {0}")]
    Status(u16),
    /// A gRPC status other than 0.
    #[error("the collector answered gRPC status {code}: {message}")]
    Grpc { code: u32, message: String },
    /// The answer was too long or broke off.
    #[error("the collector's answer could not be read")]
    Answer,
}

impl PushError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Exchange(_) | Self::Timeout { .. } => true,
            Self::Status(status) => HTTP_RETRYABLE.contains(status),
            Self::Grpc { code, .. } => GRPC_RETRYABLE.contains(code),
            Self::Answer => false,
        }
    }
}

/// Why no TLS can be spoken with the collector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PusherError {
    /// The file of certificates cannot be used.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE {path:?} holds no usable certificates")]
    Certificates {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host can stand in no certificate.
    #[error("the collector's host {host:?} is no name a certificate can have")]
    Host {
        /// Which.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// The cryptography refuses.
    #[error("no TLS for the collector")]
    Tls(#[from] rustls::Error),
}

/// A client of one collector for one signal.
#[derive(Debug)]
pub(crate) struct Pusher {
    target: Target,
    tls: Option<(Tls, ServerName<'static>)>,
    resolver: Resolver,
    /// Owns what hyper runs beside an exchange.
    tasks: Tasks,
}

struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Pusher {
    /// A client that pushes to `target`.
    ///
    /// # Errors
    /// [`PusherError`], for a target with TLS.
    pub(crate) fn new(target: Target, tasks: Tasks) -> Result<Self, PusherError> {
        let tls = target.tls.then(|| tls(&target)).transpose()?;
        Ok(Self { target, tls, resolver: Resolver::system(), tasks })
    }

    /// Pushes one message, and again if that may help.
    ///
    /// # Errors
    /// [`PushError`]: the message is lost.
    pub(crate) async fn push(&self, message: Vec<u8>) -> Result<(), PushError> {
        let message = Bytes::from(message);
        for pause in RETRIES {
            match self.push_once(message.clone()).await {
                Err(error) if error.is_retryable() => sleep(pause).await,
                other => return other,
            }
        }
        self.push_once(message).await
    }

    async fn push_once(&self, message: Bytes) -> Result<(), PushError> {
        let limit = self.target.timeout;
        timeout(limit, self.exchange(message)).await.map_err(|_| PushError::Timeout { limit })?
    }

    async fn exchange(&self, message: Bytes) -> Result<(), PushError> {
        let Target { authority, form, .. } = &self.target;
        let stream = self.connect().await;
        let stream = stream.map_err(|source| PushError::Connect { authority: authority.clone(), source })?;
        let stream = TokioIo::new(stream);
        match form {
            Form::Http => {
                let (mut sender, connection) = http1::handshake(stream).await?;
                // It ends with the exchange; what went wrong on it is told by the exchange.
                let running = self.tasks.spawn_owned("telemetry push", async move { drop(connection.await) });
                let response = sender.send_request(self.http_request(message)).await?;
                let (status, _) = answer(response).await?;
                drop(running);
                if (200..300).contains(&status) { Ok(()) } else { Err(PushError::Status(status)) }
            }
            Form::Grpc => {
                let executor = Executor(self.tasks.clone());
                let (mut sender, connection) = http2::handshake(executor, stream).await?;
                let running = self.tasks.spawn_owned("telemetry push", async move { drop(connection.await) });
                let response = sender.send_request(self.grpc_request(&message)).await?;
                let (status, headers) = answer(response).await?;
                drop(running);
                grpc_outcome(status, &headers)
            }
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let addresses = self.resolver.resolve(&self.target.host, self.target.port).await?;
        let stream = TcpStream::connect(&*addresses).await?;
        Ok(match &self.tls {
            Some((connector, name)) => Box::new(connector.0.connect(name.clone(), stream).await?),
            None => Box::new(stream),
        })
    }

    fn http_request(&self, message: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message));
        *request.uri_mut() = Uri::from(self.target.path.clone());
        let authority = HeaderValue::try_from(self.target.authority.as_str());
        request.headers_mut().insert(HOST, authority.expect("an authority is a header value"));
        self.head(&mut request, "application/x-protobuf");
        request
    }

    fn grpc_request(&self, message: &[u8]) -> Request<Full<Bytes>> {
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("batches are bounded far below 4 GiB"));
        framed.put_slice(message);
        let mut request = Request::new(Full::new(framed.freeze()));
        let scheme = if self.target.tls { "https" } else { "http" };
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(self.target.authority.as_str())
            .path_and_query(self.target.path.clone())
            .build()
            .expect("its parts were taken from URLs");
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        self.head(&mut request, "application/grpc");
        request
    }

    fn head(&self, request: &mut Request<Full<Bytes>>, media_type: &'static str) {
        *request.method_mut() = Method::POST;
        let agent = concat!("OTel-OTLP-Exporter-Zipline/", env!("CARGO_PKG_VERSION"));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.extend(self.target.headers.clone());
    }
}

/// Reads an answer to its end. Its headers are given together with its trailers, which win.
async fn answer(response: Response<Incoming>) -> Result<(u16, HeaderMap), PushError> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|_| PushError::Answer)?;
    let mut headers = parts.headers;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    Ok((parts.status.as_u16(), headers))
}

fn grpc_outcome(status: u16, headers: &HeaderMap) -> Result<(), PushError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default().to_owned();
            Err(PushError::Grpc { code, message })
        }
        None => Err(PushError::Status(status)),
    }
}

fn tls(target: &Target) -> Result<(Tls, ServerName<'static>), PusherError> {
    let mut roots = RootCertStore::empty();
    match &target.certificate {
        Some(path) => {
            let refused = |source| PusherError::Certificates { path: path.clone(), source };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.into()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| refused(error.into()))?;
                roots.add(certificate).map_err(|error| refused(error.into()))?;
            }
            if roots.is_empty() {
                return Err(refused("there is none in it".into()));
            }
        }
        // The image has no file system to find certificates on, so the public ones are built in.
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match target.form {
        Form::Grpc => vec![b"h2".to_vec()],
        Form::Http => vec![b"http/1.1".to_vec()],
    };
    let host = target.host.clone();
    let name = ServerName::try_from(host.clone()).map_err(|source| PusherError::Host { host, source })?;
    Ok((Tls(TlsConnector::from(Arc::new(config))), name))
}

/// Runs what hyper wants beside an exchange.
#[derive(Clone)]
struct Executor(Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("telemetry push", future));
    }
}
