//! consumer/limiter/redis
pub struct RedisLimiter;
pub struct RedisLimiterOptions;
