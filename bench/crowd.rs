//! Users with their tokens, and coupons.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use coupon_svc::api::mint_hs256;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::SECRET;
use crate::http::admin;

const TOKENS_LAST: Duration = Duration::from_secs(6 * 3_600);

fn token(user: &str, is_admin: bool) -> String {
    mint_hs256(&SECRET.into(), &user.parse().unwrap(), is_admin, TOKENS_LAST, None, None).unwrap()
}

pub fn admin_token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| token("bench-admin", true))
}

/// Tokens of so many users.
pub fn tokens(users: usize) -> Arc<Vec<String>> {
    let half = users / 2;
    let second = thread::spawn(move || (half..users).map(|number| token(&format!("user-{number}"), false)).collect::<Vec<_>>());
    let mut all: Vec<_> = (0..half).map(|number| token(&format!("user-{number}"), false)).collect();
    all.extend(second.join().unwrap());
    Arc::new(all)
}

/// A new coupon; `more` overrides fields.
pub fn coupon(address: &str, total: i64, more: &[(&str, Value)]) -> String {
    let id = Uuid::new_v4().to_string();
    let mut body = json!({
        "coupon_id": id, "name": "bench", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 1000}, "total_quantity": total
    });
    for (key, value) in more {
        body[*key] = value.clone();
    }
    admin(address, "POST", "/api/v1/coupons", &body);
    id
}

/// The head of an issue call for each coupon, up to the token.
pub fn issue_calls(coupons: &[String]) -> Arc<Vec<String>> {
    let head =
        |id: &String| format!("POST /api/v1/coupons/{id}/issue HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nAuthorization: Bearer ");
    Arc::new(coupons.iter().map(head).collect())
}
