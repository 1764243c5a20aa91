//! Identity by JWT. An algorithm belongs to a key, never to a token: a token only chooses among the keys of its algorithm.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::Caller;
use crate::domain::{UserId, now_millis};

/// RFC 7518 3.2: an HS256 secret has at least as many bits as the hash.
const MIN_SECRET_BYTES: usize = 32;
const MAX_TOKEN_BYTES: usize = 8_192;
/// How every P-256 public key in PEM begins: the DER header that names the curve.
const P256_PREFIX: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";

/// Which tokens are believed.
#[derive(Debug, Clone, Default)]
pub struct JwtOptions {
    pub hs256_secret: Option<SecretString>,
    /// PEM files, each with one or more RSA, P-256 or Ed25519 public keys.
    pub public_keys: Vec<PathBuf>,
    pub jwks_file: Option<PathBuf>,
    /// The `iss` a token must have.
    pub issuer: Option<String>,
    /// The `aud` a token must have.
    pub audience: Option<String>,
    pub leeway_seconds: u64,
}

/// Why no verifier (or token) can be made; names the file.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum JwtError {
    #[error("the HS256 secret must have at least {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
    #[error("there is no key: a secret, a public key or a JWKS file is needed")]
    NoKey,
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the token cannot be signed: {0}")]
    Sign(String),
}

/// Checks tokens against one or more keys.
pub struct JwtVerifier {
    keys: Vec<Key>,
    leeway_seconds: u64,
}

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (key.algorithm, key.kid.as_deref()))).finish()
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    admin: Option<bool>,
    #[serde(default)]
    nbf: Option<f64>,
}

impl JwtVerifier {
    /// Reads every key.
    ///
    /// # Errors
    /// The first file that cannot be used, or no key at all.
    pub fn new(options: JwtOptions) -> Result<Self, JwtError> {
        let mut found = Vec::new();
        if let Some(secret) = &options.hs256_secret {
            if secret.expose_secret().len() < MIN_SECRET_BYTES {
                return Err(JwtError::ShortSecret);
            }
            found.push((None, Algorithm::HS256, DecodingKey::from_secret(secret.expose_secret().as_bytes())));
        }
        for path in &options.public_keys {
            let keys = pem_keys(&read(path)?).map_err(|reason| JwtError::File { path: path.clone(), reason })?;
            found.extend(keys.into_iter().map(|(algorithm, key)| (None, algorithm, key)));
        }
        if let Some(path) = &options.jwks_file {
            found.extend(jwks_keys(&read(path)?).map_err(|reason| JwtError::File { path: path.clone(), reason })?);
        }
        if found.is_empty() {
            return Err(JwtError::NoKey);
        }
        let keys = found
            .into_iter()
            .map(|(kid, algorithm, key)| Key { kid, algorithm, key, validation: validation(algorithm, &options) })
            .collect();
        Ok(Self { keys, leeway_seconds: options.leeway_seconds })
    }

    /// The caller that the token names.
    ///
    /// # Errors
    /// Why not, for the caller to read.
    pub fn verify(&self, token: &str) -> Result<Caller, &'static str> {
        const BAD: &str = "the token is not valid";
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the token is too large");
        }
        // A token without a signature (`none`) has no `Algorithm`, so it fails here.
        let header = jsonwebtoken::decode_header(token).map_err(|_| BAD)?;
        let named = header.kid.as_deref().filter(|kid| self.keys.iter().any(|key| key.kid.as_deref() == Some(kid)));
        let fits = |key: &&Key| {
            key.algorithm == header.alg
                && match (named, &header.kid) {
                    (Some(kid), _) => key.kid.as_deref() == Some(kid),
                    // A kid that no key has: only keys without one may fit.
                    (None, Some(_)) => key.kid.is_none(),
                    (None, None) => true,
                }
        };
        for key in self.keys.iter().filter(fits) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation) {
                Ok(token) => return self.caller(token.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::ExpiredSignature => return Err("the token has expired"),
                    _ => return Err(BAD),
                },
            }
        }
        Err(BAD)
    }

    fn caller(&self, claims: Claims) -> Result<Caller, &'static str> {
        // Not left to the library, which passes over an nbf that is out of its range.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = now.as_secs_f64() + Duration::from_secs(self.leeway_seconds).as_secs_f64();
        if claims.nbf.is_some_and(|nbf| nbf > latest) {
            return Err("the token is not valid yet");
        }
        let user = claims.sub.parse::<UserId>().map_err(|_| "the token's sub must be 1-64 characters of A-Z a-z 0-9 . _ : @ -")?;
        Ok(Caller { user, admin: claims.admin.unwrap_or(false) })
    }
}

fn validation(algorithm: Algorithm, options: &JwtOptions) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = options.leeway_seconds;
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &options.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    match &options.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn read(path: &Path) -> Result<String, JwtError> {
    std::fs::read_to_string(path).map_err(|error| JwtError::File { path: path.to_owned(), reason: error.to_string() })
}

fn pem_keys(text: &str) -> Result<Vec<(Algorithm, DecodingKey)>, String> {
    let blocks: Vec<_> = text.split_inclusive("-----BEGIN ").skip(1).map(|block| block.trim_end_matches("-----BEGIN ")).collect();
    if blocks.is_empty() {
        return Err("holds no PEM block".to_owned());
    }
    blocks.into_iter().map(pem_key).collect()
}

/// One key of `LABEL-----...`.
fn pem_key(block: &str) -> Result<(Algorithm, DecodingKey), String> {
    let label = block.split("-----").next().unwrap_or_default();
    if label.contains("PRIVATE") {
        return Err("holds a private key; only public keys belong here".to_owned());
    }
    if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
        return Err(format!("holds a {label}; expected a PUBLIC KEY"));
    }
    let pem = format!("-----BEGIN {block}");
    let pem = pem.as_bytes();
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDSA, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let content: String = block.lines().skip(1).take(1).collect();
        return if content.starts_with(P256_PREFIX) {
            Ok((Algorithm::ES256, key))
        } else {
            Err("holds an EC key of another curve than P-256".to_owned())
        };
    }
    match DecodingKey::from_rsa_pem(pem) {
        Ok(key) => Ok((Algorithm::RS256, key)),
        Err(_) => Err("holds a key that is not RSA, P-256 or Ed25519".to_owned()),
    }
}

type NamedKey = (Option<String>, Algorithm, DecodingKey);

fn jwks_keys(text: &str) -> Result<Vec<NamedKey>, String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let entries = set.get("keys").and_then(Value::as_array).ok_or("has no array `keys`")?;
    let mut keys = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if entry.get("kty").and_then(Value::as_str) == Some("oct") || entry.get("d").is_some() {
            return Err(format!("keys[{index}] is secret; only public keys belong here"));
        }
        // RFC 7517 5: keys that are not understood are passed over.
        match serde_json::from_value::<Jwk>(entry.clone()).ok().and_then(|jwk| algorithm_of(&jwk).map(|algorithm| (jwk, algorithm))) {
            Some((jwk, algorithm)) => {
                let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("keys[{index}] cannot be read: {error}"))?;
                keys.push((jwk.common.key_id, algorithm, key));
            }
            None => tracing::warn!(index, "a key of the jwks file is not RS256, ES256 or EdDSA and is passed over"),
        }
    }
    if keys.is_empty() { Err("holds no RS256, ES256 or EdDSA key".to_owned()) } else { Ok(keys) }
}

fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => (Algorithm::ES256, KeyAlgorithm::ES256),
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => (Algorithm::EdDSA, KeyAlgorithm::EdDSA),
        _ => return None,
    };
    let for_signatures = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    let allowed = jwk.common.key_algorithm.is_none_or(|wanted| wanted == name);
    (for_signatures && allowed).then_some(algorithm)
}

/// A token for `user`, as this service's own HS256 secret signs it.
///
/// # Errors
/// The token cannot be signed.
pub fn mint_hs256(
    secret: &SecretString,
    user: &UserId,
    admin: bool,
    ttl: Duration,
    issuer: Option<&str>,
    audience: Option<&str>,
) -> Result<String, JwtError> {
    #[derive(Serialize)]
    struct Minted<'a> {
        sub: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        admin: bool,
        iat: i64,
        exp: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        iss: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        aud: Option<&'a str>,
    }
    let iat = now_millis() / 1_000;
    let exp = iat.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    let claims = Minted { sub: user.as_str(), admin, iat, exp, iss: issuer, aud: audience };
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|error| JwtError::Sign(error.to_string()))
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
