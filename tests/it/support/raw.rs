//! HTTP as bytes on a socket: what no client library would send.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Longest that any answer or end is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection, speaking HTTP by hand.
#[derive(Debug)]
pub struct Raw {
    reading: Reading,
    writing: Writing,
}

#[derive(Debug)]
pub struct Reading {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Writing(OwnedWriteHalf);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Lower case, with the blank line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Raw {
    /// `url` as [`super::Process`] has it.
    pub async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let (reading, writing) = stream.into_split();
        Self { reading: Reading { stream: reading, unread: Vec::new() }, writing: Writing(writing) }
    }

    pub fn split(self) -> (Reading, Writing) {
        (self.reading, self.writing)
    }

    /// See [`Writing::send`].
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writing.send(bytes).await
    }

    /// See [`Reading::answer`].
    pub async fn answer(&mut self) -> Option<Answer> {
        self.reading.answer().await
    }

    /// Waits for the peer's end; true when it sent nothing more before.
    pub async fn ends(&mut self) -> bool {
        while self.reading.read().await {}
        self.reading.unread.is_empty()
    }
}

impl Writing {
    /// Whether the peer took it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE, self.0.write_all(bytes)).await.is_ok_and(|sent| sent.is_ok())
    }
}

impl Reading {
    /// The next answer; `None`: the connection ended without one.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.read().await {
                assert!(self.unread.is_empty(), "half an answer: {}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {head}"));
        let mut answer = Answer { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.read().await, "half a body: {answer:?}");
        }
        answer.body = self.unread.drain(..length).collect();
        Some(answer)
    }

    async fn read(&mut self) -> bool {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await {
            Ok(read) => read.is_ok_and(|bytes| bytes > 0),
            Err(_) => panic!("neither an answer nor an end within {PATIENCE:?}"),
        }
    }
}
