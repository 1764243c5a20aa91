//! JSON bodies, read by hand: bounded in size and time, and every bad field is named in one answer.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt;
use serde_json::{Map, Value};

use super::app;
use super::error::{Code, Problem};
use super::instant;
use crate::domain::{EpochMillis, FieldFault};

/// A body that is a JSON object.
#[derive(Debug)]
pub(super) struct Body(pub(super) Map<String, Value>);

impl FromRequest for Body {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let app = app(request);
        let payload = payload.take();
        Box::pin(async move {
            let app = app?;
            let bytes = tokio::time::timeout(app.body_timeout, read(payload, app.body_limit)).await.map_err(|_| Code::RequestTimeout)??;
            match serde_json::from_slice(&bytes) {
                Ok(Value::Object(object)) => Ok(Self(object)),
                Ok(_) => Err(Problem::invalid_field("", "must be a JSON object")),
                Err(error) => Err(Problem::invalid_field("", &format!("is not JSON: {error}"))),
            }
        })
    }
}

async fn read(mut payload: Payload, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid_field("", "cannot be read"))?;
        if bytes.len() + chunk.len() > limit {
            return Err(Code::TooLarge.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The fields of an object, taken one by one; what is wrong is collected.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Of the object in the body, with a dot at its end unless empty.
    path: &'static str,
    pub(super) faults: Vec<FieldFault>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, path: &'static str) -> Self {
        Self { object, path, faults: Vec::new() }
    }

    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(FieldFault::new(format!("{}{name}", self.path), message));
    }

    /// A fault for every field that is not one of `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        let object = self.object;
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            self.fault(name, "is not a known field");
        }
    }

    /// The field, if it is there; `parse` giving `None` is a fault.
    pub(super) fn optional<T>(&mut self, name: &str, message: &str, parse: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let parsed = parse(self.object.get(name)?);
        if parsed.is_none() {
            self.fault(name, message);
        }
        parsed
    }

    /// The field; its absence is a fault too.
    pub(super) fn required<T>(&mut self, name: &str, message: &str, parse: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        if self.object.contains_key(name) {
            return self.optional(name, message, parse);
        }
        self.fault(name, "is missing");
        None
    }

    /// `None`: absent (or a fault). `Some(None)`: null.
    pub(super) fn instant(&mut self, name: &str) -> Option<Option<EpochMillis>> {
        self.optional(name, "must be an RFC 3339 instant such as 2026-01-31T09:00:00Z, or null", |value| match value {
            Value::Null => Some(None),
            Value::String(text) => instant::parse(text).map(Some),
            _ => None,
        })
    }
}

/// `value` as text.
pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
