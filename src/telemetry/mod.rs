//! What the service says of itself: logs, metrics, the ops listener.

mod metrics;

pub use metrics::Metrics;
