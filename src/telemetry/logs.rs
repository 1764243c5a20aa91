//! Log lines: human or JSON, on standard error, so that what a command prints stays clean.
//!
//! A thread of their own writes them, as many as wait in one call: a batch of the drain has a line for every row, and a system call for each
//! costs the consumer a third of its CPU. None is left out: who finds the queue full waits.

use std::io::{BufWriter, IsTerminal};

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// The levels when nothing else is said. `actix_http` calls every head that it cannot read an error: anybody could fill the disk.
pub const DEFAULT_FILTER: &str = "info,fred=warn,actix_server=warn,actix_http=off";

/// Logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("log filter: {0}")]
    Filter(String),
    #[error("logs are set up already")]
    Twice(#[from] tracing::dispatcher::SetGlobalDefaultError),
}

/// Lines that may wait to be written.
const WAITING_LINES: usize = 16_384;

/// Bytes that go out in one call at most.
const WRITE_BYTES: usize = 64 << 10;

/// Sets up logs for the whole process, once. An empty filter is [`DEFAULT_FILTER`]. What waits is written when the guard is dropped.
///
/// # Errors
/// The filter is wrong, or logs are set up already.
pub fn init(format: LogFormat, filter: &str) -> Result<WorkerGuard, LogsError> {
    let ansi = std::io::stderr().is_terminal();
    let sink = BufWriter::with_capacity(WRITE_BYTES, std::io::stderr());
    let queue = NonBlockingBuilder::default().lossy(false).buffered_lines_limit(WAITING_LINES).thread_name("logs");
    let (writer, guard) = queue.finish(sink);
    tracing::subscriber::set_global_default(subscriber(format, filter, ansi, writer)?)?;
    Ok(guard)
}

/// What [`init`] sets up, with the sink from outside.
///
/// # Errors
/// The filter is wrong.
pub fn subscriber<W>(format: LogFormat, filter: &str, ansi: bool, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(filter).map_err(LogsError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        LogFormat::Human => Box::new(builder.with_ansi(ansi).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish()),
    })
}

/// Whether a filter can be used.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    let filter = if filter.trim().is_empty() { DEFAULT_FILTER } else { filter };
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("request", trace_id = "t-1").in_scope(|| tracing::info!(coupon.id = "c-1", "issued"));
            tracing::info!(target: "fred::client", "chatter");
            tracing::debug!("detail");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_the_fields_and_the_span() {
        let text = logged(LogFormat::Json, "");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "issued");
        assert_eq!(line["coupon.id"], "c-1");
        assert_eq!(line["span"]["trace_id"], "t-1");
    }

    #[test]
    fn human_lines_obey_the_filter() {
        let text = logged(LogFormat::Human, "debug");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("trace_id=\"t-1\""), "{text}");
    }

    #[test]
    fn a_wrong_filter_is_refused() {
        assert!(check_filter("info,x=loud").is_err());
        assert!(check_filter("").is_ok());
    }

    #[test]
    fn the_default_is_the_documented_one() {
        assert!(crate::config::DEFAULTS.contains(&format!("filter = \"{DEFAULT_FILTER}\"")));
    }
}
