//! consumer/limiter/local
pub struct LocalLimiter;
