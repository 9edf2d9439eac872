//! Whether the server is the right one: rustls's own verification, with a message that says who issued the server's
//! certificate and which roots are trusted.

use std::fmt;
use std::sync::Arc;

use firstboot_formats::x509::{Certificate, certificates};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
};

use super::server::Server;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Verifies the server against root certificates.
#[derive(Debug)]
pub struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    roots: Vec<String>,
}

/// The server's certificate leads to no trusted root.
#[derive(Debug)]
pub struct UnknownRoot {
    /// The issuer that it leads up to.
    pub theirs: String,
    /// The trusted roots.
    pub ours: Vec<String>,
}

impl fmt::Display for UnknownRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "issued by {}, not by {}",
            self.theirs,
            self.ours.join("; ")
        )
    }
}

impl std::error::Error for UnknownRoot {}

impl Verifier {
    /// With this server's roots. Roots that TLS cannot use, such as one from before X.509 version 3, are skipped.
    pub fn new(server: &Server<'_>, provider: Arc<CryptoProvider>) -> Result<Self> {
        let found = certificates(server.roots).map_err(Error::settings)?;
        let mut store = RootCertStore::empty();
        let ders = found.iter().map(|c| CertificateDer::from(c.der()));
        let (usable, _) = store.add_parsable_certificates(ders);
        if usable == 0 {
            return Err(Error::settings(format!(
                "none of the root certificates can be used for TLS: is {} a bundle of CA certificates?",
                server.roots_file
            )));
        }
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        Ok(Self {
            usual: usual.context(ErrorKind::Other, || "cannot set up TLS".into())?,
            roots: found.iter().map(Certificate::subject).collect(),
        })
    }
}

/// The issuer that a certificate leads up to, by the names in it and in those sent with it.
fn top(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<String> {
    let read = |der: &CertificateDer<'_>| Certificate::parse(der.to_vec());
    let others: Vec<Certificate> = others.iter().filter_map(read).collect();
    let mut issuer = read(end_entity)?.issuer();
    // Each is at most one step, whatever names a hostile server puts into them.
    for _ in &others {
        let above = others.iter().find(|c| c.subject() == issuer);
        issuer = above.map_or(issuer, Certificate::issuer);
    }
    Some(issuer)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let verified = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|e| match e {
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                let unknown = UnknownRoot {
                    theirs: top(end_entity, intermediates).unwrap_or_else(|| "nobody".into()),
                    ours: self.roots.clone(),
                };
                TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unknown))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.usual
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.usual
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
