//! Who is calling: tokens and gateways, through the front door.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{Deployment, Parts, Process};

const SECRET: &str = "tMvvZ3y0b1s9Qe7rXf2kLw8uJd5nHc4G";

/// The keys that the service's own tests sign with.
pub fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/identity/testdata").join(name)
}

async fn deployment(settings: &[(&str, &str)]) -> (Deployment, Process) {
    let mut deployment = Deployment::new(Parts::Embedded).await;
    deployment.env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let service = deployment.start("all").await;
    (deployment, service)
}

/// What `coupon-svc token` prints.
fn token(deployment: &Deployment, args: &[&str]) -> String {
    let output = deployment.command(&[&["token"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

pub fn signed(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    jsonwebtoken::encode(&Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }, claims, key).unwrap()
}

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Status, body, and the challenge of a refusal.
async fn post(deployment: &Deployment, url: String, headers: Headers<'_>, body: Option<Value>) -> (u16, Value, Option<String>) {
    let mut request = deployment.http.post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let challenge = answer.headers().get("WWW-Authenticate").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), answer.json().await.unwrap(), challenge)
}

async fn create(deployment: &Deployment, service: &Process, headers: Headers<'_>) -> (u16, Value, Option<String>) {
    let body = json!({"name": "launch", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 5000}, "total_quantity": 10});
    post(deployment, format!("{}/api/v1/coupons", service.api), headers, Some(body)).await
}

async fn issue(deployment: &Deployment, service: &Process, coupon: &str, headers: Headers<'_>) -> (u16, Value, Option<String>) {
    post(deployment, format!("{}/api/v1/coupons/{coupon}/issue", service.api), headers, None).await
}

/// The status and code of an issue call with this token.
pub async fn issue_with(deployment: &Deployment, service: &Process, coupon: &str, token: &str) -> (u16, String) {
    let (status, body, _) = issue(deployment, service, coupon, &[("Authorization", &format!("Bearer {token}"))]).await;
    (status, body["result"].as_str().or_else(|| body["code"].as_str()).unwrap_or("-").to_owned())
}

pub async fn created(deployment: &Deployment, service: &Process, token: &str) -> String {
    let (status, body, _) = create(deployment, service, &[("Authorization", &format!("Bearer {token}"))]).await;
    assert_eq!(status, 201, "{body}");
    body["coupon_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_command_line_names_the_user_and_the_admin() {
    let (deployment, service) = deployment(&[("COUPON__API__IDENTITY", "jwt"), ("COUPON__JWT__HS256_SECRET", SECRET)]).await;
    let admin = token(&deployment, &["--user", "root", "--admin"]);
    let alice = token(&deployment, &["--user", "alice"]);
    let coupon = created(&deployment, &service, &admin).await;
    assert_eq!(issue_with(&deployment, &service, &coupon, &alice).await, (202, "ACCEPTED".to_owned()));
    assert_eq!(
        issue_with(&deployment, &service, &coupon, &token(&deployment, &["--user", "alice"])).await.0,
        200,
        "another token, same user"
    );

    let (status, body, _) = create(&deployment, &service, &[("Authorization", &format!("Bearer {alice}"))]).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("FORBIDDEN")), "{body}");
    let disguised: Headers<'_> = &[("Authorization", &format!("Bearer {alice}")), ("X-User-Id", "root"), ("X-Admin", "true")];
    assert_eq!(create(&deployment, &service, disguised).await.0, 403, "headers say nothing here");
    let letters = |token: String| deployment.http.get(format!("{}/api/v1/admin/dead-letters", service.api)).bearer_auth(token).send();
    assert_eq!(letters(alice).await.unwrap().status(), 403);
    assert_eq!(letters(admin).await.unwrap().status(), 200);
    deployment.settles(&coupon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tampered_foreign_or_expired_token_is_nobody() {
    let settings = [("COUPON__API__IDENTITY", "jwt"), ("COUPON__JWT__HS256_SECRET", SECRET), ("COUPON__JWT__LEEWAY_SECONDS", "0")];
    let (deployment, service) = deployment(&settings).await;
    let admin = token(&deployment, &["--user", "root", "--admin"]);
    let alice = token(&deployment, &["--user", "alice"]);
    let coupon = created(&deployment, &service, &admin).await;

    for headers in [&[][..], &[("X-User-Id", "alice")], &[("Authorization", "Basic YWxpY2U6eA==")], &[("Authorization", "Bearer ")]] {
        let (status, body, challenge) = issue(&deployment, &service, &coupon, headers).await;
        assert_eq!(status, 401, "{headers:?}: {body}");
        assert!(challenge.is_some_and(|challenge| challenge.starts_with("Bearer")), "{headers:?}");
    }

    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (of_admin, of_alice) = (parts(&admin), parts(&alice));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let other = EncodingKey::from_secret(b"another secret of more than 32 bytes");
    let hs256 = |key: &EncodingKey, claims: Value| signed(Algorithm::HS256, key, None, &claims);
    let bad = [
        ("claims of another token", format!("{}.{}.{}", of_alice[0], of_admin[1], of_alice[2])),
        ("no signature", format!("{}.{}.", of_alice[0], of_alice[1])),
        // {"alg":"none"}
        ("no algorithm", format!("eyJhbGciOiJub25lIn0.{}.", of_admin[1])),
        ("another secret", hs256(&other, json!({"sub": "alice", "exp": in_seconds(60)}))),
        ("expired", hs256(&key, json!({"sub": "alice", "exp": in_seconds(-2)}))),
        ("for ever", hs256(&key, json!({"sub": "alice"}))),
        ("not yet", hs256(&key, json!({"sub": "alice", "exp": in_seconds(90), "nbf": in_seconds(60)}))),
        ("no user", hs256(&key, json!({"exp": in_seconds(60)}))),
        ("not a user id", hs256(&key, json!({"sub": "a/b", "exp": in_seconds(60)}))),
    ];
    for (what, token) in bad {
        assert_eq!(issue_with(&deployment, &service, &coupon, &token).await, (401, "UNAUTHENTICATED".to_owned()), "{what}");
    }
    let short = token(&deployment, &["--user", "alice", "--ttl", "1"]);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(issue_with(&deployment, &service, &coupon, &short).await.0, 401, "outlived");
    deployment.settles(&coupon, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_believed_and_their_bytes_are_no_secret() {
    let pem = key_file("rs256.pub.pem");
    let private = EncodingKey::from_rsa_pem(&std::fs::read(key_file("rs256.key.pem")).unwrap()).unwrap();
    let jwks = key_file("jwks.json");
    for (setting, file, kid) in [("COUPON__JWT__PUBLIC_KEYS", &pem, None), ("COUPON__JWT__JWKS_FILE", &jwks, Some("rsa-1"))] {
        let settings = [
            ("COUPON__API__IDENTITY", "jwt"),
            (setting, file.to_str().unwrap()),
            ("COUPON__JWT__ISSUER", "https://id.example"),
            ("COUPON__JWT__AUDIENCE", "coupons"),
        ];
        let (deployment, service) = deployment(&settings).await;
        let claims = |sub: &str, admin: bool| json!({"sub": sub, "admin": admin, "exp": in_seconds(60), "iss": "https://id.example", "aud": "coupons"});
        let rs256 = |claims: Value| signed(Algorithm::RS256, &private, kid, &claims);
        let coupon = created(&deployment, &service, &rs256(claims("root", true))).await;
        assert_eq!(
            issue_with(&deployment, &service, &coupon, &rs256(claims("alice", false))).await,
            (202, "ACCEPTED".to_owned()),
            "{setting}"
        );
        let (status, _, _) =
            create(&deployment, &service, &[("Authorization", &format!("Bearer {}", rs256(claims("alice", false))))]).await;
        assert_eq!(status, 403, "{setting}");

        // The key is public: whoever signs with its bytes is a stranger.
        let confused = signed(Algorithm::HS256, &EncodingKey::from_secret(&std::fs::read(&pem).unwrap()), kid, &claims("root", true));
        let mut foreign = claims("alice", false);
        foreign["iss"] = json!("https://elsewhere.example");
        let mut for_another = claims("alice", false);
        for_another["aud"] = json!("payments");
        for (what, token) in [("public bytes", confused), ("issuer", rs256(foreign)), ("audience", rs256(for_another))] {
            assert_eq!(issue_with(&deployment, &service, &coupon, &token).await.0, 401, "{setting}: {what}");
        }
        deployment.settles(&coupon, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_made_without_a_secret() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let output = deployment.command(&["token", "--user", "alice"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "signed with an empty secret: {out}");
    assert!(err.contains("hs256_secret"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_believed_only_from_its_address() {
    let named: Headers<'_> = &[("X-User-Id", "root"), ("X-Admin", "true")];
    let (stranger, service) =
        deployment(&[("COUPON__API__IDENTITY", "gateway"), ("COUPON__API__GATEWAY_PROXIES", "10.11.12.13,::1")]).await;
    let (status, body, _) = create(&stranger, &service, named).await;
    assert_eq!((status, body["code"].as_str()), (401, Some("UNAUTHENTICATED")), "{body}");
    let forwarded = [named, &[("X-Forwarded-For", "10.11.12.13"), ("Forwarded", "for=10.11.12.13"), ("X-Real-IP", "10.11.12.13")]].concat();
    assert_eq!(create(&stranger, &service, &forwarded).await.0, 401, "an address is what the connection comes from");

    let (listed, service) =
        deployment(&[("COUPON__API__IDENTITY", "gateway"), ("COUPON__API__GATEWAY_PROXIES", "10.11.12.13,127.0.0.1")]).await;
    let (status, body, _) = create(&listed, &service, named).await;
    assert_eq!(status, 201, "{body}");
    let coupon = body["coupon_id"].as_str().unwrap();
    assert_eq!(issue(&listed, &service, coupon, &[("X-User-Id", "alice")]).await.0, 202);
    assert_eq!(create(&listed, &service, &[("X-User-Id", "alice")]).await.0, 403);
    assert_eq!(issue(&listed, &service, coupon, &[]).await.0, 401);
    listed.settles(coupon, 1).await;
}
