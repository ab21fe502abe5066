//! TLS of the serving port: what it offers, and a certificate that is looked at again while it is in use.
//!
//! # Source
//! knative/serving `pkg/queue/certificate/watcher.go`, `knative.dev/pkg/network/tls/config.go`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_rustls::TlsAcceptor;
use zipline_knative::replies::CERTIFICATE_RELOADED;
use zipline_knative::tls::{Curve, TlsSettings, TlsVersion};

/// Largest certificate or key file, in bytes. Larger ones are refused before they are read.
const FILE_MAX: u64 = 1024 * 1024;

/// Where certificate and key stand, and how often they are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first, in PEM.
    pub certificate: PathBuf,
    /// The leaf's private key, in PEM.
    pub key: PathBuf,
    /// Between two looks.
    pub every: Duration,
}

/// The serving port cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{} has {length} bytes, the limit is {FILE_MAX}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// Certificate and key are not a pair, or none.
    #[error("the certificate in {} cannot be used: {detail}", path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// What is offered leaves nothing.
    #[error("TLS cannot be set up: {0}")]
    Settings(String),
}

impl CertificateFiles {
    /// Whether both files are there. Anything but their absence is an error, as for Knative.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub(super) fn exist(&self) -> Result<bool, TlsError> {
        for path in [&self.certificate, &self.key] {
            match std::fs::metadata(path) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(TlsError::Read { path: path.clone(), source }),
            }
        }
        Ok(true)
    }
}

/// A certificate that follows its files.
#[derive(Debug)]
pub(super) struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    present: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    digests: [[u8; 32]; 2],
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Every [`TlsError`] about files.
    pub(super) fn load(files: CertificateFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (digests, certificate, key) = read(&files)?;
        let present = Mutex::new(Loaded { digests, key: pair(&files, &provider, &certificate, &key)? });
        tracing::info!("{CERTIFICATE_RELOADED}");
        Ok(Arc::new(Self { files, provider, present }))
    }

    /// Looks at the files for ever. What cannot be used is told, and the pair in use stays.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut ticks = interval_at(Instant::now() + self.files.every, self.files.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Err(error) = self.look() {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the certificate in use stays");
            }
        }
    }

    fn look(&self) -> Result<(), TlsError> {
        let (digests, certificate, key) = read(&self.files)?;
        if self.present.lock().digests == digests {
            return Ok(());
        }
        let key = pair(&self.files, &self.provider, &certificate, &key)?;
        *self.present.lock() = Loaded { digests, key };
        tracing::info!("{CERTIFICATE_RELOADED}");
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.present.lock().key))
    }
}

type Files = ([[u8; 32]; 2], Vec<u8>, Vec<u8>);

fn read(files: &CertificateFiles) -> Result<Files, TlsError> {
    let certificate = read_bounded(&files.certificate)?;
    let key = read_bounded(&files.key)?;
    Ok(([Sha256::digest(&certificate).into(), Sha256::digest(&key).into()], certificate, key))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned(), length });
    }
    std::fs::read(path).map_err(failed)
}

fn pair(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let refused = |detail: String| TlsError::Certificate { path: files.certificate.clone(), detail };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(error.to_string()))?;
    if chain.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    // What is wrong with a key is not quoted.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| refused(format!("{} holds no private key", files.key.display())))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| refused(error.to_string()))?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|error| refused(error.to_string()))?;
    Ok(Arc::new(pair))
}

/// What the serving port offers with this certificate.
///
/// # Errors
/// [`TlsError::Settings`] if none of what was asked for can be offered.
pub(super) fn acceptor(
    settings: &TlsSettings,
    certificate: Arc<Certificate>,
) -> Result<TlsAcceptor, TlsError> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = &settings.curves {
        provider.kx_groups = wanted.iter().filter_map(|curve| group(*curve)).collect();
        let missing = wanted.len() - provider.kx_groups.len();
        if missing > 0 {
            tracing::warn!(missing, "key exchanges that this build does not have are left out");
        }
    }
    if let Some(wanted) = &settings.cipher_suites {
        provider.cipher_suites = suites(wanted);
    }
    let versions: Vec<_> =
        [(TlsVersion::V12, &rustls::version::TLS12), (TlsVersion::V13, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| (settings.min..=settings.max).contains(version))
            .map(|(_, version)| version)
            .collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .map_err(|error| TlsError::Settings(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn group(curve: Curve) -> Option<&'static dyn rustls::crypto::SupportedKxGroup> {
    match curve {
        Curve::X25519 => Some(ring::kx_group::X25519),
        Curve::P256 => Some(ring::kx_group::SECP256R1),
        Curve::P384 => Some(ring::kx_group::SECP384R1),
        // The provider of cryptography that this product uses for TLS has neither.
        Curve::P521 | Curve::X25519MlKem768 => None,
    }
}

/// Those of TLS 1.3 cannot be chosen, as in Go; those of 1.2 in the order given.
fn suites(wanted: &[&str]) -> Vec<rustls::SupportedCipherSuite> {
    let all = ring::ALL_CIPHER_SUITES;
    let newest = all.iter().filter(|suite| suite.tls13().is_some()).copied();
    let chosen = wanted.iter().filter_map(|name| {
        let named = |suite: &&rustls::SupportedCipherSuite| {
            suite.tls13().is_none() && suite.suite().as_str().is_some_and(|own| own == *name)
        };
        all.iter().find(named).copied()
    });
    newest.chain(chosen).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn write(folder: &Path) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(["data-plane.knative.dev".to_owned()]).unwrap();
        let files = CertificateFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            every: Duration::from_secs(60),
        };
        std::fs::write(&files.certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
        std::fs::write(&files.key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
        files
    }

    pub(in crate::knative) fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn leaf(certificate: &Certificate) -> Vec<u8> {
        certificate.present.lock().key.cert[0].to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_loaded_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path());
        assert!(files.exist().unwrap());
        let certificate = Certificate::load(files.clone()).unwrap();
        let tasks = zipline_runtime::Tasks::new();
        let _following = tasks.spawn_owned("certificate", Arc::clone(&certificate).follow());
        let first = leaf(&certificate);
        write(folder.path());
        tokio::time::sleep(Duration::from_secs(61)).await;
        let second = leaf(&certificate);
        assert_ne!(first, second);
        std::fs::write(&files.key, "no key").unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(leaf(&certificate), second);
        std::fs::remove_file(&files.key).unwrap();
        assert!(!files.exist().unwrap());
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path());
        let key = std::fs::read(&files.key).unwrap();
        write(folder.path());
        std::fs::write(&files.key, key).unwrap();
        assert!(Certificate::load(files).is_err());
    }

    #[test]
    fn suites_of_1_2_are_chosen_and_those_of_1_3_stay() {
        let chosen = suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]);
        let old: Vec<_> = chosen.iter().filter(|suite| suite.tls13().is_none()).collect();
        assert_eq!(old.len(), 1);
        assert_eq!(chosen.len(), 4);
    }
}
