//! consumer
pub mod limiter;
