//! Whom this process believes when it speaks TLS: certificate authorities, for every client that takes a rustls configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Where systems keep their certificate authorities.
const SYSTEM_AUTHORITIES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Nobody can be believed: the certificate authorities cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NoAuthorities(String);

/// The configuration of a client that believes the authorities in a PEM file, or the system's.
///
/// # Errors
/// The file cannot be read, or holds no certificate or one that is damaged; or no file is named and the system has none.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, NoAuthorities> {
    let file = match ca_file {
        Some(file) => file.to_owned(),
        None => SYSTEM_AUTHORITIES
            .iter()
            .map(PathBuf::from)
            .find(|file| file.exists())
            .ok_or_else(|| NoAuthorities("no certificate authorities found on this system: name a ca_file".to_owned()))?,
    };
    let unreadable =
        |why: &dyn std::fmt::Display| NoAuthorities(format!("cannot read certificate authorities from {}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        // A system's list may hold one this library does not understand; an own list may not.
        match roots.add(certificate) {
            Err(error) if ca_file.is_some() => return Err(unreadable(&error)),
            _ => {}
        }
    }
    if roots.is_empty() {
        return Err(unreadable(&"there is no certificate in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| NoAuthorities(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The authorities of the tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::PathBuf;
    use std::process::Command;

    /// The one that vouches for the local stack: in the folder `COUPON_TEST_TLS_DIR`, or where the stack's script says.
    pub fn authority() -> PathBuf {
        let folder = std::env::var("COUPON_TEST_TLS_DIR").unwrap_or_else(|_| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/stack.sh");
            String::from_utf8(Command::new(script).arg("tls-dir").output().unwrap().stdout).unwrap().trim().to_owned()
        });
        PathBuf::from(folder).join("ca.pem")
    }

    /// One that vouches for nobody: its key is gone.
    pub fn stranger() -> PathBuf {
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/testdata/stranger-ca.pem").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_come_from_the_named_file_or_an_error_names_it() {
        client_config(Some(&testing::stranger())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (path, why) in [
            (folder.path().join("missing.pem"), "No such file"),
            (file("empty.pem", ""), "no certificate"),
            (file("damaged.pem", damaged), "invalid peer certificate"),
        ] {
            let error = client_config(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains(why), "{error}");
        }
    }
}
