//! The faults there are, and the schedule a seed makes of them.

use std::time::Duration;

use fastrand::Rng;

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Api,
    Consumer,
    Redis,
    Kafka,
    Mysql,
    /// An embedded service of its own.
    Embedded,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    ApiKilled,
    ApiPaused,
    ApiPausedLong,
    ApiTerminated,
    ApiClockStepped,
    ConsumerKilled,
    /// Longer than its claims live, then resumed: another one owns its partitions by then.
    ConsumerPaused,
    ConsumerClockStepped,
    ConsumersAllKilled,
    RedisKilled,
    RedisPaused,
    RedisCut,
    RedisCutFromOne,
    RedisSlow,
    RedisHalfOpen,
    RedisFlushed,
    RedisRestartedEmpty,
    RedisRestoredOld,
    RedisFailedOver,
    RedisEvicting,
    BrokerKilled,
    BrokerPaused,
    BrokerCut,
    TwoBrokersKilled,
    TwoBrokersPaused,
    KafkaCut,
    KafkaSlow,
    KafkaHalfOpen,
    GarbageInTheLog,
    MysqlKilled,
    MysqlPaused,
    MysqlCut,
    MysqlCutFromOne,
    MysqlSlow,
    MysqlHalfOpen,
    DiskFull,
    EmbeddedKilled,
}

use Fault::*;

impl Fault {
    pub const ALL: [Self; 37] = [
        ApiKilled,
        ApiPaused,
        ApiPausedLong,
        ApiTerminated,
        ApiClockStepped,
        ConsumerKilled,
        ConsumerPaused,
        ConsumerClockStepped,
        ConsumersAllKilled,
        RedisKilled,
        RedisPaused,
        RedisCut,
        RedisCutFromOne,
        RedisSlow,
        RedisHalfOpen,
        RedisFlushed,
        RedisRestartedEmpty,
        RedisRestoredOld,
        RedisFailedOver,
        RedisEvicting,
        BrokerKilled,
        BrokerPaused,
        BrokerCut,
        TwoBrokersKilled,
        TwoBrokersPaused,
        KafkaCut,
        KafkaSlow,
        KafkaHalfOpen,
        GarbageInTheLog,
        MysqlKilled,
        MysqlPaused,
        MysqlCut,
        MysqlCutFromOne,
        MysqlSlow,
        MysqlHalfOpen,
        DiskFull,
        EmbeddedKilled,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            ApiKilled => "api killed",
            ApiPaused => "api paused",
            ApiPausedLong => "api paused for a minute",
            ApiTerminated => "api asked to stop",
            ApiClockStepped => "api's clock stepped",
            ConsumerKilled => "consumer killed",
            ConsumerPaused => "consumer paused beyond its claims",
            ConsumerClockStepped => "consumer's clock stepped",
            ConsumersAllKilled => "all consumers killed",
            RedisKilled => "redis killed",
            RedisPaused => "redis paused",
            RedisCut => "redis cut off",
            RedisCutFromOne => "redis cut off from one process",
            RedisSlow => "redis slow (300 ms)",
            RedisHalfOpen => "redis connections half open",
            RedisFlushed => "redis flushed",
            RedisRestartedEmpty => "redis restarted empty",
            RedisRestoredOld => "redis restarted from an old snapshot",
            RedisFailedOver => "redis failed over to a lagging replica",
            RedisEvicting => "redis evicting",
            BrokerKilled => "one broker killed",
            BrokerPaused => "one broker paused",
            BrokerCut => "one broker cut off",
            TwoBrokersKilled => "two brokers killed",
            TwoBrokersPaused => "two brokers paused",
            KafkaCut => "kafka cut off",
            KafkaSlow => "kafka slow (200 ms)",
            KafkaHalfOpen => "kafka connections half open",
            GarbageInTheLog => "unreadable records in the log",
            MysqlKilled => "mysql killed",
            MysqlPaused => "mysql paused",
            MysqlCut => "mysql cut off",
            MysqlCutFromOne => "mysql cut off from one process",
            MysqlSlow => "mysql slow (200 ms)",
            MysqlHalfOpen => "mysql connections half open",
            DiskFull => "embedded: disk full",
            EmbeddedKilled => "embedded: killed",
        }
    }

    pub const fn part(self) -> Part {
        match self {
            ApiKilled | ApiPaused | ApiPausedLong | ApiTerminated | ApiClockStepped => Part::Api,
            ConsumerKilled | ConsumerPaused | ConsumerClockStepped | ConsumersAllKilled => Part::Consumer,
            RedisKilled | RedisPaused | RedisCut | RedisCutFromOne | RedisSlow | RedisHalfOpen | RedisFlushed | RedisRestartedEmpty
            | RedisRestoredOld | RedisFailedOver | RedisEvicting => Part::Redis,
            BrokerKilled | BrokerPaused | BrokerCut | TwoBrokersKilled | TwoBrokersPaused | KafkaCut | KafkaSlow | KafkaHalfOpen
            | GarbageInTheLog => Part::Kafka,
            MysqlKilled | MysqlPaused | MysqlCut | MysqlCutFromOne | MysqlSlow | MysqlHalfOpen => Part::Mysql,
            DiskFull | EmbeddedKilled => Part::Embedded,
        }
    }

    /// How long it lasts, from and to, in seconds.
    const fn hold(self) -> (u64, u64) {
        match self {
            ApiPausedLong => (60, 60),
            // Claims live 5 s.
            ConsumerPaused => (8, 14),
            RedisFlushed | GarbageInTheLog => (1, 2),
            BrokerKilled | TwoBrokersKilled | BrokerPaused | TwoBrokersPaused => (6, 14),
            _ => (3, 12),
        }
    }
}

/// One fault at one time.
#[derive(Debug, Clone)]
pub struct Stroke {
    pub fault: Fault,
    /// Which of several processes or brokers; taken modulo their number.
    pub target: usize,
    pub hold: Duration,
    /// Another one at another part that begins meanwhile.
    pub with: Option<Box<Self>>,
}

impl Stroke {
    fn of(fault: Fault, rng: &mut Rng, short: bool) -> Self {
        let (least, most) = fault.hold();
        let most = if short { least.min(8) + 2 } else { most };
        let hold = Duration::from_millis(rng.u64(least.min(most) * 1_000..=most * 1_000));
        Self { fault, target: rng.usize(..60), hold, with: None }
    }
}

/// Faults without end, the same ones for the same seed: each kind once in every round, in an order of its own. In a short run they
/// are brief and come alone.
#[derive(Debug)]
pub struct Plan {
    rng: Rng,
    round: Vec<Fault>,
    short: bool,
}

impl Plan {
    pub fn new(seed: u64, short: bool) -> Self {
        Self { rng: Rng::with_seed(seed), round: Vec::new(), short }
    }
}

impl Iterator for Plan {
    type Item = Stroke;

    fn next(&mut self) -> Option<Stroke> {
        if self.round.is_empty() {
            self.round = Fault::ALL.into_iter().filter(|fault| !(self.short && *fault == ApiPausedLong)).collect();
            self.rng.shuffle(&mut self.round);
        }
        let fault = self.round.pop()?;
        let mut stroke = Stroke::of(fault, &mut self.rng, self.short);
        let meanwhile = self.rng.choice(Fault::ALL);
        let doubled = self.rng.u8(..4) == 0;
        let second = Stroke::of(meanwhile.unwrap_or(ApiKilled), &mut self.rng, true);
        let fits = second.fault.part() != fault.part() && ![Part::Embedded].contains(&second.fault.part()) && second.fault != ApiPausedLong;
        if doubled && fits && !self.short && fault.part() != Part::Embedded {
            stroke.with = Some(Box::new(second));
        }
        Some(stroke)
    }
}
