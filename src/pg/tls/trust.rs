//! By what a server proves who it is, and this program if the server wants to know: read from files, once.

use crate::limits;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// The files that a connection string names for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `sslrootcert`: the CAs that may have signed the server's certificate.
    pub roots: String,
    /// `sslcert` and `sslkey`: the certificate of this program, and its key.
    pub own: Option<(String, String)>,
}

/// What was in them.
#[derive(Clone)]
pub struct Trust {
    files: Files,
    config: Arc<ClientConfig>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Trust) -> bool {
        self.files == other.files
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Trust {
    /// Reads the files.
    ///
    /// # Errors
    /// The parameter of the connection string, its file, and what is wrong with it.
    pub fn load(files: &Files) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        let at = |name: &str, path: &str| format!("{name} {path}");
        for certificate in certificates(&at("sslrootcert", &files.roots), &files.roots)? {
            roots.add(certificate).map_err(|error| {
                format!(
                    "sslrootcert {} holds a certificate that cannot be used: {error}",
                    files.roots
                )
            })?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("no version of TLS can be used: {error}"))?
            .with_root_certificates(roots);
        let mut config = match &files.own {
            None => builder.with_no_client_auth(),
            Some((path, key)) => {
                let chain = certificates(&at("sslcert", path), path)?;
                let what = at("sslkey", key);
                let key = PrivateKeyDer::from_pem_slice(&read(&what, key)?).map_err(|error| {
                    format!("{what} holds no private key without a passphrase: {error}")
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{what} does not go with sslcert {path}: {error}"))?
            }
        };
        // PostgreSQL resumes no session.
        config.resumption = Resumption::disabled();
        // What is meant for PostgreSQL must not be taken to another service that has the same certificate.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Trust {
            files: files.clone(),
            config: Arc::new(config),
        })
    }

    /// The file of the CAs, for messages.
    pub(super) fn roots(&self) -> &str {
        &self.files.roots
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

fn certificates(what: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(what, path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{what} holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{what} is not PEM: {error}")),
    }
}

fn read(what: &str, path: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{what} cannot be read: {error}");
    // Opening a pipe that nobody writes to would wait for ever.
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        return Err(format!("{what} is not a file"));
    }
    let mut bytes = Vec::new();
    let bounded = File::open(path).map(|file| file.take(limits::PEM_MAX_BYTES + 1));
    bounded
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(failed)?;
    match bytes.len() as u64 > limits::PEM_MAX_BYTES {
        true => Err(format!("{what} has over {} bytes", limits::PEM_MAX_BYTES)),
        false => Ok(bytes),
    }
}
