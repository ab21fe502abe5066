//! Connecting: TCP, then TLS by given roots.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zipline_http::{HostPort, Resolver};

/// Most certificates in one set of roots.
const ROOTS_MAX: usize = 256;

/// The certificates by which servers are verified; nothing else is trusted, the system's roots included.
#[derive(Clone)]
pub struct Roots {
    tls: Arc<ClientConfig>,
}

/// Text that names nobody to trust.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// It is not PEM.
    #[error("the root certificates are not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// One of them is no certificate that can be trusted.
    #[error("root certificate {number} cannot be used")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// There is none, so that every server would be refused.
    #[error("there is no certificate among the roots: give at least one, in PEM")]
    None,
    /// There are more than anybody needs.
    #[error("more than {max} root certificates: leave out what does not sign this server")]
    TooMany {
        /// The most there may be.
        max: usize,
    },
    /// The TLS library refused its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let number = index + 1;
            if number > ROOTS_MAX {
                return Err(RootsError::TooMany { max: ROOTS_MAX });
            }
            let certificate = certificate.map_err(RootsError::Pem)?;
            store.add(certificate).map_err(|source| RootsError::Certificate { number, source })?;
        }
        if store.is_empty() {
            return Err(RootsError::None);
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(RootsError::Tls)?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

/// Connects to `server` and verifies that it is who it should be. There is no time limit here.
pub(crate) async fn connect(
    resolver: &Resolver,
    roots: &Roots,
    server: &HostPort,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(server.host().to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let addresses = resolver.resolve(server.host(), server.port()).await?;
    let stream = TcpStream::connect(&*addresses).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::clone(&roots.tls)).connect(name, stream).await
}
