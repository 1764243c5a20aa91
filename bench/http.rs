//! Single calls beside the load: admin changes and metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Status and body; `None` when nobody answers.
pub fn call(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    )
    .ok()?;
    write!(stream, "\r\nAuthorization: Bearer {}\r\n\r\n{body}", crate::crowd::admin_token()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    call(address, &format!("GET {path}"), "")
}

/// A call that must work.
pub fn admin(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let (status, text) = call(address, &format!("{method} {path}"), &body.to_string()).expect("the service answers");
    assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}
