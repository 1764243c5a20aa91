//! gate/redis
pub struct RedisGate;
pub struct RedisGateOptions;
