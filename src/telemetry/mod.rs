//! What the service says of itself: logs, metrics, health, the ops listener.

pub mod admin;
mod health;
pub mod logs;
mod metrics;
pub mod ops;

pub use health::{Check, Condition, Health, Report};
pub use metrics::Metrics;
