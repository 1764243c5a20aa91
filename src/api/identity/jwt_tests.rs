use serde_json::json;

use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/identity/testdata").join(name)
}

fn options() -> JwtOptions {
    JwtOptions { leeway_seconds: 30, ..JwtOptions::default() }
}

fn with_secret() -> JwtOptions {
    JwtOptions { hs256_secret: Some(SECRET.into()), ..options() }
}

fn with_keys(names: &[&str]) -> JwtOptions {
    JwtOptions { public_keys: names.iter().map(|name| file(name)).collect(), ..options() }
}

fn with_jwks() -> JwtOptions {
    JwtOptions { jwks_file: Some(file("jwks.json")), ..options() }
}

fn verifier(options: JwtOptions) -> JwtVerifier {
    JwtVerifier::new(options).unwrap()
}

fn in_seconds(seconds: i64) -> i64 {
    now_millis() / 1_000 + seconds
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": in_seconds(60)})
}

fn signing_key(algorithm: Algorithm) -> EncodingKey {
    let pem = |name| std::fs::read(file(name)).unwrap();
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::RS256 => EncodingKey::from_rsa_pem(&pem("rs256.key.pem")).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(&pem("es256.key.pem")).unwrap(),
        _ => EncodingKey::from_ed_pem(&pem("eddsa.key.pem")).unwrap(),
    }
}

fn sign(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &signing_key(algorithm)).unwrap()
}

fn refused(verifier: &JwtVerifier, claims: &Value) -> &'static str {
    verifier.verify(&sign(Algorithm::HS256, None, claims)).unwrap_err()
}

/// A token with a header that no library would write, its signature taken from a good one.
fn unsigned(header: &str, signature: &str) -> String {
    // Base64url by hand: the crate is not a dependency.
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let encode = |text: &str| {
        text.as_bytes()
            .chunks(3)
            .flat_map(|chunk| {
                let bits = chunk.iter().enumerate().fold(0_usize, |bits, (index, byte)| bits | usize::from(*byte) << (16 - 8 * index));
                (0..=chunk.len()).map(move |digit| char::from(DIGITS[(bits >> (18 - 6 * digit)) & 63]))
            })
            .collect::<String>()
    };
    format!("{}.{}.{signature}", encode(header), encode(&claims().to_string()))
}

#[test]
fn a_minted_token_names_its_user() {
    let verifier = verifier(with_secret());
    for admin in [false, true] {
        let user = "alice@example".parse().unwrap();
        let token = mint_hs256(&SECRET.into(), &user, admin, Duration::from_secs(60), None, None).unwrap();
        assert_eq!(verifier.verify(&token), Ok(Caller { user, admin }));
    }
}

#[test]
fn every_public_key_kind_verifies_from_pem() {
    let verifier = verifier(with_keys(&["rs256.pub.pem", "other.pub.pem", "es256.pub.pem", "eddsa.pub.pem"]));
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        for kid in [None, Some("rotated")] {
            let token = sign(algorithm, kid, &claims());
            assert_eq!(verifier.verify(&token).unwrap().user.as_str(), "alice", "{algorithm:?} {kid:?}");
        }
    }
}

#[test]
fn a_file_may_hold_several_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.pem");
    let both = ["other.pub.pem", "eddsa.pub.pem", "rs256.pub.pem"].map(|name| std::fs::read_to_string(file(name)).unwrap()).concat();
    std::fs::write(&path, both).unwrap();
    let verifier = verifier(JwtOptions { public_keys: vec![path], ..options() });
    assert!(verifier.verify(&sign(Algorithm::EdDSA, None, &claims())).is_ok());
    assert!(verifier.verify(&sign(Algorithm::RS256, None, &claims())).is_ok());
}

#[test]
fn a_kid_selects_in_a_jwks_file() {
    let verifier = verifier(with_jwks());
    for (algorithm, kid) in [(Algorithm::RS256, "rsa-1"), (Algorithm::ES256, "ec-1"), (Algorithm::EdDSA, "ed-1")] {
        assert!(verifier.verify(&sign(algorithm, Some(kid), &claims())).is_ok(), "{kid}");
        assert!(verifier.verify(&sign(algorithm, None, &claims())).is_ok(), "{kid}");
        assert!(verifier.verify(&sign(algorithm, Some("ed-0"), &claims())).is_err(), "{kid}");
        assert!(verifier.verify(&sign(algorithm, Some("unheard-of"), &claims())).is_err(), "{kid}");
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let good = sign(Algorithm::HS256, None, &claims());
    let signature = good.rsplit('.').next().unwrap();
    for verifier in [verifier(with_secret()), verifier(with_jwks())] {
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":""}"#, r#"{"typ":"JWT"}"#] {
            assert!(verifier.verify(&unsigned(header, "")).is_err(), "{header}");
            assert!(verifier.verify(&unsigned(header, signature)).is_err(), "{header}");
        }
        assert!(verifier.verify(&unsigned(r#"{"alg":"HS256"}"#, "")).is_err());
    }
    for junk in ["", ".", "..", "a.b.c", "not a token", &"x".repeat(10_000)] {
        assert!(verifier(with_secret()).verify(junk).is_err());
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // The old attack: HS256 with the text of the RSA public key as its secret.
    let verifier = verifier(with_keys(&["rs256.pub.pem"]));
    let public = std::fs::read(file("rs256.pub.pem")).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&public)).unwrap();
    assert!(verifier.verify(&token).is_err());
    // Another algorithm of the same family is not the key's algorithm either.
    let token = jsonwebtoken::encode(&Header::new(Algorithm::RS512), &claims(), &signing_key(Algorithm::RS256)).unwrap();
    assert!(verifier.verify(&token).is_err());
    let hs512 = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(), &signing_key(Algorithm::HS256)).unwrap();
    assert!(JwtVerifier::new(with_secret()).unwrap().verify(&hs512).is_err());
}

#[test]
fn another_key_is_refused() {
    let other = JwtOptions { hs256_secret: Some("another secret of at least thirty-two bytes".into()), ..options() };
    assert!(verifier(other).verify(&sign(Algorithm::HS256, None, &claims())).is_err());
    assert!(verifier(with_keys(&["other.pub.pem"])).verify(&sign(Algorithm::EdDSA, None, &claims())).is_err());
}

#[test]
fn times_are_judged_with_a_small_leeway() {
    let verifier = verifier(with_secret());
    let accepted = |claims: Value| verifier.verify(&sign(Algorithm::HS256, None, &claims)).is_ok();
    assert!(accepted(json!({"sub": "alice", "exp": in_seconds(-10)})));
    assert!(accepted(json!({"sub": "alice", "exp": in_seconds(60), "nbf": in_seconds(10)})));
    assert_eq!(refused(&verifier, &json!({"sub": "alice", "exp": in_seconds(-60)})), "the token has expired");
    assert_eq!(refused(&verifier, &json!({"sub": "alice", "exp": in_seconds(60), "nbf": in_seconds(60)})), "the token is not valid yet");
    assert_eq!(refused(&verifier, &json!({"sub": "alice", "exp": in_seconds(60), "nbf": 1e300})), "the token is not valid yet");
    for bad in [
        json!({"sub": "alice"}),
        json!({"sub": "alice", "exp": null}),
        json!({"sub": "alice", "exp": "tomorrow"}),
        json!({"sub": "alice", "exp": in_seconds(60), "nbf": "tomorrow"}),
    ] {
        assert_eq!(refused(&verifier, &bad), "the token is not valid", "{bad}");
    }
}

#[test]
fn a_large_token_is_not_even_read() {
    let token = |padding: usize| sign(Algorithm::HS256, None, &json!({"sub": "alice", "exp": in_seconds(60), "x": "x".repeat(padding)}));
    let (fits, large) = (token(5_900), token(6_200));
    assert!(fits.len() < MAX_TOKEN_BYTES && large.len() > MAX_TOKEN_BYTES);
    assert!(verifier(with_secret()).verify(&fits).is_ok());
    assert_eq!(verifier(with_secret()).verify(&large), Err("the token is too large"));
}

#[test]
fn claims_must_be_what_they_should() {
    let verifier = verifier(with_secret());
    for bad in [
        json!({"exp": in_seconds(60)}),
        json!({"sub": 7, "exp": in_seconds(60)}),
        json!({"sub": "", "exp": in_seconds(60)}),
        json!({"sub": "a b", "exp": in_seconds(60)}),
        json!({"sub": "alice", "exp": in_seconds(60), "admin": "true"}),
        json!({"sub": "alice", "exp": in_seconds(60), "admin": 1}),
    ] {
        refused(&verifier, &bad);
    }
    let named = json!({"sub": "alice", "exp": in_seconds(60), "admin": null, "aud": "anybody", "iss": "anybody"});
    assert!(!verifier.verify(&sign(Algorithm::HS256, None, &named)).unwrap().admin);
}

#[test]
fn issuer_and_audience_are_required_when_set() {
    let verifier = verifier(JwtOptions { issuer: Some("login".into()), audience: Some("coupons".into()), ..with_secret() });
    let token = |iss: Option<&str>, aud: Option<&str>| {
        mint_hs256(&SECRET.into(), &"alice".parse().unwrap(), false, Duration::from_secs(60), iss, aud).unwrap()
    };
    assert!(verifier.verify(&token(Some("login"), Some("coupons"))).is_ok());
    for (iss, aud) in
        [(None, None), (Some("login"), None), (None, Some("coupons")), (Some("x"), Some("coupons")), (Some("login"), Some("x"))]
    {
        assert!(verifier.verify(&token(iss, aud)).is_err(), "{iss:?} {aud:?}");
    }
    let several = json!({"sub": "alice", "exp": in_seconds(60), "iss": "login", "aud": ["x", "coupons"]});
    assert!(verifier.verify(&sign(Algorithm::HS256, None, &several)).is_ok());
}

#[test]
fn unusable_keys_are_refused_by_name() {
    let error = |options| JwtVerifier::new(options).unwrap_err().to_string();
    assert_eq!(JwtVerifier::new(options()).unwrap_err(), JwtError::NoKey);
    assert_eq!(JwtVerifier::new(JwtOptions { hs256_secret: Some("short".into()), ..options() }).unwrap_err(), JwtError::ShortSecret);
    assert!(error(with_keys(&["rs256.key.pem"])).ends_with("rs256.key.pem: holds a private key; only public keys belong here"));
    assert!(error(with_keys(&["p384.pub.pem"])).ends_with("p384.pub.pem: holds an EC key of another curve than P-256"));
    assert!(error(with_keys(&["jwks.json"])).ends_with("jwks.json: holds no PEM block"));
    assert!(error(with_keys(&["absent.pem"])).contains("absent.pem"));
    assert!(error(JwtOptions { jwks_file: Some(file("rs256.pub.pem")), ..options() }).contains("rs256.pub.pem: is not JSON"));
    let secret = jwks_keys(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).err().unwrap();
    assert_eq!(secret, "keys[0] is secret; only public keys belong here");
}

#[test]
fn a_subject_has_the_characters_and_the_length_of_a_user_id() {
    let verifier = verifier(with_secret());
    let accepted = |sub: &str| verifier.verify(&sign(Algorithm::HS256, None, &json!({"sub": sub, "exp": in_seconds(60)}))).is_ok();
    for byte in 0..=255_u8 {
        // Above 127 these are characters of two bytes.
        let good = byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
        assert_eq!(accepted(&format!("a{}z", char::from(byte))), good, "{byte}");
    }
    for (length, good) in [(0, false), (1, true), (64, true), (65, false), (5_000, false)] {
        assert_eq!(accepted(&"x".repeat(length)), good, "{length}");
    }
}

#[test]
fn claims_are_not_looked_for_elsewhere() {
    let verifier = verifier(with_secret());
    let exp = in_seconds(60);
    for bad in [
        json!({"claims": {"sub": "root", "admin": true}, "exp": exp}),
        json!({"sub": {"sub": "root"}, "exp": exp}),
        json!({"sub": ["root"], "exp": exp}),
        json!({"sub": "root", "exp": [exp]}),
        json!({"sub": "root", "exp": {"exp": exp}}),
        json!({"sub": "root", "exp": exp.to_string()}),
        json!({"sub": "root", "exp": -1}),
        json!({"sub": "root", "exp": exp, "admin": {"admin": true}}),
        json!({"sub": "root", "exp": exp, "admin": [true]}),
        json!([{"sub": "root", "exp": exp}]),
        json!("root"),
    ] {
        refused(&verifier, &bad);
    }
    let nested = json!({"sub": "alice", "exp": exp, "user": {"admin": true}, "Admin": true, "iat": in_seconds(9_000), "roles": ["admin"]});
    let caller = verifier.verify(&sign(Algorithm::HS256, None, &nested)).unwrap();
    assert_eq!((caller.user.as_str(), caller.admin), ("alice", false), "iat says when a token was made, not from when it holds");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_are_a_token(token in ".{0,200}", parts in "[A-Za-z0-9_=-]{0,60}\\.[A-Za-z0-9_=-]{0,60}\\.[A-Za-z0-9_=-]{0,60}") {
        let verifier = verifier(with_secret());
        proptest::prop_assert!(verifier.verify(&token).is_err() && verifier.verify(&parts).is_err());
    }

    /// The end of a base64 text may hold bits that mean nothing; every other change is noticed.
    #[test]
    fn a_changed_token_names_nobody_else(at in proptest::prelude::any::<proptest::sample::Index>(), byte in 33..127_u8) {
        let verifier = verifier(with_secret());
        let good = sign(Algorithm::HS256, None, &claims());
        let mut changed = good.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        match verifier.verify(&changed) {
            Ok(caller) => proptest::prop_assert!((changed == good || at + 1 == good.len()) && caller == verifier.verify(&good).unwrap()),
            Err(_) => proptest::prop_assert!(changed != good),
        }
    }
}
