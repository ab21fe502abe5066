//! A server's own certificate.

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest file that is read.
const FILE_MAX: u64 = 256 * 1024;

/// A certificate chain with its key, from `tls.crt` and `tls.key` in one folder, as Secrets of type `kubernetes.io/tls`
/// are mounted. Clones share it.
#[derive(Clone)]
pub struct ServerIdentity {
    folder: PathBuf,
    current: Arc<Current>,
    pub(crate) config: Arc<ServerConfig>,
}

struct Current {
    /// SHA-256 over both files.
    digest: RwLock<[u8; 32]>,
    certified: RwLock<Arc<CertifiedKey>>,
}

/// A certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be. Keys are not quoted.
    #[error("{} is no {expected} in PEM of at most {FILE_MAX} bytes", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Certificate and key do not fit together, or the key is of a kind that is not supported.
    #[error("certificate and key in {} cannot be used together", folder.display())]
    Pair {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl ServerIdentity {
    /// Reads the files in `folder`.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let (digest, certified) = read(folder)?;
        let current =
            Arc::new(Current { digest: RwLock::new(digest), certified: RwLock::new(Arc::new(certified)) });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| IdentityError::Pair { folder: folder.to_owned(), source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { folder: folder.to_owned(), current, config: Arc::new(config) })
    }

    /// Reads the files again; `true` if they had changed. New connections get the new certificate.
    ///
    /// # Errors
    /// [`IdentityError`]; the certificate in use stays.
    pub fn reload(&self) -> Result<bool, IdentityError> {
        let (digest, certified) = read(&self.folder)?;
        if *self.current.digest.read() == digest {
            return Ok(false);
        }
        *self.current.certified.write() = Arc::new(certified);
        *self.current.digest.write() = digest;
        Ok(true)
    }

    /// Looks every `interval` whether the files have changed, for ever. What cannot be used is logged.
    pub async fn watch(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            match self.reload() {
                Ok(true) => tracing::info!(folder = %self.folder.display(), "the certificate has changed"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the certificate in use stays");
                }
            }
        }
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certified.read()))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

fn read(folder: &Path) -> Result<([u8; 32], CertifiedKey), IdentityError> {
    let (chain_path, key_path) = (folder.join("tls.crt"), folder.join("tls.key"));
    let (chain_pem, key_pem) = (read_file(&chain_path)?, read_file(&key_path)?);
    let digest =
        Sha256::new().chain_update(Sha256::digest(&chain_pem)).chain_update(Sha256::digest(&key_pem));
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() {
        return Err(IdentityError::Content { path: chain_path, expected: "certificate chain" });
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(&key_pem) else {
        return Err(IdentityError::Content { path: key_path, expected: "private key" });
    };
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|source| IdentityError::Pair { folder: folder.to_owned(), source })?;
    Ok((digest.finalize().into(), certified))
}

fn read_file(path: &Path) -> Result<Vec<u8>, IdentityError> {
    use std::io::Read as _;
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > FILE_MAX {
        return Err(IdentityError::Content { path: path.to_owned(), expected: "text" });
    }
    Ok(content)
}
