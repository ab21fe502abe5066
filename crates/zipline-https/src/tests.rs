//! Client and server against each other, over real sockets.

use crate::{Client, ClientConfig, RequestError, Roots, ServerIdentity, serve};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use zipline_http::{Body, HostPort, ServeLimits, handler_fn};
use zipline_runtime::Tasks;

/// One block of PEM.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join("tls.crt"), pem("CERTIFICATE", certificate.der())).unwrap();
        std::fs::write(folder.join("tls.key"), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(pem("CERTIFICATE", self.0.der()).as_bytes()).unwrap()
    }
}

async fn echo(request: Request<Body>) -> Response<Body> {
    let body = request.into_body().collect_up_to(1000).await.unwrap();
    Response::new(Body::full(body))
}

async fn ask(port: u16, roots: Roots, tasks: &Tasks) -> Result<Bytes, RequestError> {
    let server = HostPort::new("localhost", port);
    let client = Client::new(server, roots, ClientConfig::default(), tasks.clone());
    let mut last = Bytes::new();
    // Twice, so that the second one goes over the connection that was kept.
    for text in ["one", "two"] {
        let request = Request::post("/").body(Bytes::from(text)).unwrap();
        let answer = client.send(request, 1000, Duration::from_secs(10)).await?;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, text.as_bytes()));
        last = answer.body;
    }
    Ok(last)
}

#[tokio::test]
async fn only_the_named_server_of_the_given_roots_is_spoken_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    authority.issue(folder.path(), "localhost");
    let identity = ServerIdentity::load(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = Tasks::new();
    let limits = ServeLimits::default();
    drop(tasks.spawn("serve", serve(listener, identity.clone(), handler_fn(echo), limits, tasks.clone())));

    assert_eq!(ask(port, authority.roots(), &tasks).await.unwrap(), "two");
    let error = ask(port, stranger.roots(), &tasks).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect { .. }), "{error}");

    // A certificate for another name is refused, and it is shown from the reload on.
    assert!(!identity.reload().unwrap());
    authority.issue(folder.path(), "elsewhere");
    assert!(identity.reload().unwrap());
    let error = ask(port, authority.roots(), &tasks).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect { .. }), "{error}");

    // What cannot be used is not taken.
    std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
    assert!(identity.reload().is_err());
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn answers_are_bounded() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.issue(folder.path(), "localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = HostPort::new("localhost", listener.local_addr().unwrap().port());
    let tasks = Tasks::new();
    let identity = ServerIdentity::load(folder.path()).unwrap();
    drop(
        tasks.spawn(
            "serve",
            serve(listener, identity, handler_fn(echo), ServeLimits::default(), tasks.clone()),
        ),
    );
    let client = Client::new(server, authority.roots(), ClientConfig::default(), tasks.clone());
    let request = Request::post("/").body(Bytes::from_static(b"too long")).unwrap();
    let error = client.send(request, 3, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong { max: 3, .. }), "{error}");
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[test]
fn roots_are_certificates() {
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Roots::from_pem(text.as_bytes()).is_err());
    }
}
