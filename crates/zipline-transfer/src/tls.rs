//! TLS of data connections: a certificate per boot, pinned by the reference instead of signed by an authority.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, ServerConfig, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What certificates are made out to. Nobody checks it, and it is never sent as a server name.
const NAME: &str = "zipline";

/// A certificate with its key, made for one life of a data port. Clones share it.
#[derive(Clone)]
pub struct DataCertificate {
    digest: [u8; 32],
    config: Arc<ServerConfig>,
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for the data port")]
pub struct CertificateMakingError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl DataCertificate {
    /// Makes a key and a certificate that it signs itself.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, CertificateMakingError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(because)?;
        let certificate = made.cert.der().clone();
        let digest = Sha256::digest(&certificate).into();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(because)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .map_err(because)?;
        // Receivers never resume: each connection shows the certificate.
        config.send_tls13_tickets = 0;
        Ok(Self { digest, config: Arc::new(config) })
    }

    /// SHA-256 of the certificate, as references name it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The holder's side of the handshake. There is no time limit here.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await
    }
}

impl fmt::Debug for DataCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataCertificate").finish_non_exhaustive()
    }
}

fn because(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CertificateMakingError {
    CertificateMakingError(error.into())
}

/// The receiver's side of the handshake: goes on only with the certificate of this digest. There is no time limit here.
pub(crate) async fn connect(stream: TcpStream, digest: [u8; 32]) -> io::Result<client::TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Pinned { digest, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Accepts one certificate, whatever it says about itself, from whoever has its key.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        if bool::from(shown.ct_eq(&self.digest)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copied_certificate_without_its_key_is_refused() {
        let (real, thief) = (DataCertificate::generate().unwrap(), DataCertificate::generate().unwrap());
        assert_ne!(real.digest(), thief.digest());
        // Shows the real certificate, as anybody can who has seen it, and signs with another key.
        let provider = ring::default_provider();
        let key = rcgen::KeyPair::generate().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let signer = provider.key_provider.load_private_key(key.into()).unwrap();
        let shown = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap().cert.der().clone();
        let digest = Sha256::digest(&shown).into();
        let stolen = rustls::sign::CertifiedKey::new(vec![shown], signer);
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
        let thief = DataCertificate { digest, config: Arc::new(config) };

        for (holder, good) in [(thief, false), (real, true)] {
            let listener = crate::sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let stream = crate::sockets::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (connected, served) = tokio::join!(connect(stream, holder.digest()), holder.accept(accepted));
            assert_eq!((connected.is_ok(), served.is_ok()), (good, good));
        }
    }
}
