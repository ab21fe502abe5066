//! Whose certificates an HTTPS probe believes: those the machine does, found where Go looks for them.
//!
//! Operators replace the files (`SSL_CERT_FILE`, `SSL_CERT_DIR`) and Knative's own queue-proxy follows them. Where there are
//! none, as in an image without a file system, the public authorities that are built in count. Files are read when the
//! first such probe runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bundles, of which the first that is there counts.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Folders of single certificates.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
/// Most bytes of one file.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Where certificates of authorities stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Bundles, of which the first that is there counts.
    pub bundles: Vec<PathBuf>,
    /// Folders, which all count.
    pub folders: Vec<PathBuf>,
}

impl TrustFiles {
    /// The machine's, unless `file` (`SSL_CERT_FILE`) or `folders` (`SSL_CERT_DIR`, separated by colons) name others.
    #[must_use]
    pub fn new(file: Option<&str>, folders: Option<&str>) -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(ToOwned::to_owned);
        Self {
            bundles: given(file).map_or_else(|| paths(&BUNDLES), |file| vec![file.into()]),
            folders: given(folders)
                .map_or_else(|| paths(&FOLDERS), |folders| folders.split(':').map(PathBuf::from).collect()),
        }
    }

    fn read(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        let _ = self.bundles.iter().find(|bundle| add(&mut store, bundle));
        for folder in &self.folders {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.flatten() {
                add(&mut store, &entry.path());
            }
        }
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        store
    }
}

/// Adds what a file holds; whether it could be read.
fn add(store: &mut RootCertStore, path: &Path) -> bool {
    let fits = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_MAX);
    let Some(pem) = fits.then(|| std::fs::read(path).ok()).flatten() else { return false };
    // What is no certificate is skipped, as everybody does.
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    true
}

/// Makes verified connections.
#[derive(Debug)]
pub(super) struct Trust {
    files: TrustFiles,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    pub(super) fn new(files: TrustFiles) -> Self {
        Self { files, config: OnceLock::new() }
    }

    /// Shakes hands with `host`, whose certificate must be valid for it.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let config = match self.config.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(self.files.read())
                    .with_no_client_auth();
                Arc::clone(self.config.get_or_init(|| Arc::new(config)))
            }
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
    }
}
