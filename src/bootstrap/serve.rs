//! Serving: the tasks of a role, put together; started, watched and stopped in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use super::parts::{Parts, Purpose};
use crate::api::{self, ApiOptions, ApiState, Identity, JwtOptions, JwtVerifier, Network};
use crate::audit;
use crate::config::{self, Config};
use crate::consumer::{self, Consumer};
use crate::domain::Partition;
use crate::follower::{self, Follower};
use crate::issuer::{self, Issuer};
use crate::roles::service::{Abandoner, close_ended, unload_over, until_ready};
use crate::roles::{Outcome, Supervisor, Systemd};
use crate::telemetry::{Health, Metrics, ops};

/// How long a start waits for servers that are away before the process gives up (and its supervisor tries again).
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the configured role until a signal.
///
/// # Errors
/// The start failed.
pub async fn serve(config: Config) -> anyhow::Result<Outcome> {
    let metrics = Arc::new(Metrics::new().context("failed to register the metrics")?);
    let health = Health::new();
    // Not ready before everything below is in place.
    let start = health.condition("start");
    start.set(false, "opening the parts");
    let ops_listener =
        api::bind(config.ops.listen).await.with_context(|| format!("failed to listen on ops.listen {}", config.ops.listen))?;
    tracing::info!(
        role = %config.role, parts = %config.parts, ops.listen = %ops_listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "starting"
    );
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let observers: Observers = Arc::default();
    let ops_server = {
        let observers = Arc::clone(&observers);
        let on_scrape = move || observers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().for_each(|observe| observe());
        ops::serve(ops_listener, Arc::clone(&metrics), Arc::clone(&health), Arc::new(on_scrape)).context("failed to serve ops.listen")?
    };
    let ops_handle = ops_server.handle();
    // Alive and telling why it is not ready while it starts.
    let ops_task = tokio::spawn(ops_server);
    let parts = patiently("open the parts", || Parts::open(&config, &metrics, Purpose::Service)).await?;
    let parts = Arc::new(parts);

    let stopping = Arc::clone(&health);
    let mut supervisor = Supervisor::new(config.api.shutdown_timeout())
        .systemd(Systemd::from_env())
        .required("ops", |_| async move { Ok(ops_task.await.context("the ops listener ended")??) })
        .on_shutdown("not ready", Duration::from_secs(1), async move { stopping.stop() });
    let mut follower = None;
    if config.role.serves_api() {
        let (with_api, started) = add_api(supervisor, &config, &parts, &metrics, &health, &observers).await?;
        supervisor = with_api;
        follower = Some(started);
    }
    if config.role.consumes() {
        supervisor = add_consumer(supervisor, &config, &parts, &metrics, &health, &observers);
    }
    let (ledger, gate, gauges) = (Arc::clone(&parts.ledger), Arc::clone(&parts.gate), Arc::clone(&metrics));
    observe(&observers, move || {
        let (in_use, open) = ledger.pool();
        gauges.pool_connections.with_label_values(&["in_use"]).set(i64::from(in_use));
        gauges.pool_connections.with_label_values(&["open"]).set(i64::from(open));
        gauges.gate_reachable.set(i64::from(gate.reachable()));
    });
    let supervisor = supervisor.on_shutdown("ops", Duration::from_secs(1), async move { ops_handle.stop(false).await });
    let ready = async {
        if follower.is_some() {
            parts.journal.warm().await;
        }
        until_ready(follower.as_deref(), &start, &health).await;
        if follower.is_some() {
            say_what_next(&config);
        }
        Ok(())
    };
    let outcome = supervisor.run(ready).await;
    drop(parts);
    Ok(outcome)
}

type Observe = Box<dyn Fn() + Send + Sync>;
type Observers = Arc<std::sync::Mutex<Vec<Observe>>>;

fn observe(observers: &Observers, observer: impl Fn() + Send + Sync + 'static) {
    observers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Box::new(observer));
}

/// Tries until it works, for as long as servers may take to come up.
async fn patiently<T, Fut: Future<Output = anyhow::Result<T>>>(what: &str, mut attempt: impl FnMut() -> Fut) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > START_PATIENCE || is_final(&error) => return Err(error),
            Err(error) => tracing::warn!(what, error = format!("{error:#}"), "start waits"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What waiting does not mend.
fn is_final(error: &anyhow::Error) -> bool {
    use crate::ledger::LedgerError;
    let away = error.chain().any(|cause| {
        matches!(cause.downcast_ref::<LedgerError>(), Some(LedgerError::Down(_) | LedgerError::Retry(_)))
            || cause.downcast_ref::<crate::journal::JournalError>().is_some()
            || matches!(
                cause.downcast_ref::<follower::StartError>(),
                Some(follower::StartError::Journal(_) | follower::StartError::Ledger(LedgerError::Down(_) | LedgerError::Retry(_)))
            )
    });
    !away
}

async fn add_api(
    supervisor: Supervisor,
    config: &Config,
    parts: &Arc<Parts>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    observers: &Observers,
) -> anyhow::Result<(Supervisor, Arc<Follower>)> {
    let identity = identity(config)?;
    let options = follower::Options {
        fresh: config.follower.fresh(),
        fetch_wait: config.follower.fetch_wait(),
        fetch_bytes: config.follower.max_bytes,
        ..follower::Options::default()
    };
    let follower = patiently("read the ledger's snapshot", || async {
        Ok(Follower::start(Arc::clone(&parts.journal), parts.ledger.as_ref(), options.clone(), Arc::clone(metrics)).await?)
    })
    .await?;
    let issuer = Arc::new(Issuer::new(
        Arc::clone(&follower),
        Arc::clone(&parts.journal),
        Arc::clone(&parts.gate),
        Arc::clone(&parts.ledger),
        issuer::Options { deadline: config.api.request_timeout(), ..issuer::Options::default() },
        Arc::clone(metrics),
    ));
    let state = ApiState {
        issuer: Arc::clone(&issuer),
        ledger: Arc::clone(&parts.ledger),
        metrics: Arc::clone(metrics),
        identity,
        abandon: Arc::new(Abandoner { issuer: Arc::clone(&issuer), ledger: Arc::clone(&parts.ledger) }),
    };
    let options = ApiOptions {
        body_limit: config.api.body_limit_bytes,
        max_in_flight: config.api.max_in_flight,
        max_connections: config.api.max_connections,
        workers: if config.api.workers == 0 { ApiOptions::default().workers } else { config.api.workers },
        keep_alive: config.api.keep_alive(),
        answer_timeout: config.api.request_timeout(),
        client_request_timeout: config.api.header_timeout(),
        exchange_timeout: config.api.exchange_timeout(),
        shutdown_timeout: config.api.request_timeout() + Duration::from_secs(1),
        ..ApiOptions::default()
    };
    let drain_bound = options.shutdown_timeout + Duration::from_secs(2);
    let listener = api::bind(config.api.listen).await.with_context(|| format!("failed to listen on api.listen {}", config.api.listen))?;
    tracing::info!(api.listen = %listener.local_addr()?, "listening");
    let server = api::serve(listener, state, options).context("failed to serve api.listen")?;
    let handle = server.handle();
    let observed = Arc::clone(&follower);
    observe(observers, move || observed.observe());

    let (tails, partitions) = (Arc::clone(&follower), parts.journal.partitions());
    let (unloading, ledger, forgetting) = (Arc::clone(&follower), Arc::clone(&parts.ledger), Arc::clone(&issuer));
    let watched = Arc::clone(&follower);
    let condition = health.condition("follower");
    let readers = health.advisory("follower partitions");
    let gate_condition = health.advisory("gate");
    let watched_gate = Arc::clone(&parts.gate);
    let fresh = config.follower.fresh();
    let supervisor = supervisor
        .required(
            "follower",
            move |cancel| async move { run_all((0..partitions).map(|p| Arc::clone(&tails).tail(p, cancel.clone()))).await },
        )
        .required("api", |_| async move { Ok(server.await?) })
        .best_effort("unload", move |cancel| async move {
            unload_over(unloading, ledger, forgetting, cancel).await;
            Ok(())
        })
        .best_effort("close", {
            let issuer = Arc::clone(&issuer);
            move |cancel| async move {
                close_ended(issuer, cancel).await;
                Ok(())
            }
        })
        .required("readiness", move |cancel| async move {
            while !cancel.is_cancelled() {
                // A partition that does not answer costs its own coupons a 503, not the others their API.
                let hears = watched.hears();
                condition.set(hears, if hears { "reads the journal" } else { "the journal does not answer in time" });
                let (ok, reason) = partitions_condition(watched.stopped(), watched.freshness().is_some_and(|age| age <= fresh));
                readers.set(ok, &reason);
                let reachable = watched_gate.reachable();
                gate_condition.set(reachable, if reachable { "answers" } else { "away: the local gate stands in" });
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .on_shutdown("api", drain_bound, async move { handle.stop(true).await })
        .stop_task("close", Duration::from_secs(2))
        .stop_task("unload", Duration::from_secs(1))
        .stop_task("readiness", Duration::from_secs(1))
        .stop_task("follower", Duration::from_secs(2));
    Ok((supervisor, follower))
}

fn partitions_condition(stopped: Vec<(Partition, String)>, fresh: bool) -> (bool, String) {
    match stopped.into_iter().next() {
        Some((partition, reason)) => (false, format!("partition {partition} stopped: {reason}")),
        None if fresh => (true, "all partitions are read".to_owned()),
        None => (false, "a partition does not answer in time".to_owned()),
    }
}

fn add_consumer(
    supervisor: Supervisor,
    config: &Config,
    parts: &Arc<Parts>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    observers: &Observers,
) -> Supervisor {
    let options = consumer::Options {
        workers: config.consumer.workers,
        batch_rows: config.consumer.batch_rows,
        lease: config.consumer.lease(),
        ..consumer::Options::default()
    };
    let owner = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    let workers = options.workers.max(1);
    let consumer = Consumer::new(
        Arc::clone(&parts.journal),
        Arc::clone(&parts.ledger),
        Arc::clone(&parts.limiter),
        options,
        Arc::clone(metrics),
        owner,
    );
    let observed = Arc::clone(&consumer);
    observe(observers, move || observed.observe());
    // In one process with an API the drain may wait for its database while issuing goes on.
    let condition = if config.role.serves_api() { health.advisory("consumer") } else { health.condition("consumer") };
    let drained = health.advisory("consumer partitions");
    let watched = Arc::clone(&consumer);
    let (claims, drain, reports, releasing) = (Arc::clone(&consumer), Arc::clone(&consumer), Arc::clone(&consumer), Arc::clone(&consumer));
    let audited = Arc::clone(&consumer);
    let background = audit::Background::new(
        Arc::clone(&parts.journal),
        Arc::clone(&parts.ledger),
        Arc::clone(metrics),
        audit::Options {
            records_per_second: config.audit.records_per_second,
            every: config.audit.every(),
            most_rows: config.audit.most_rows,
        },
    );
    supervisor
        .best_effort("audit", move |cancel| async move {
            background.run(move || audited.owned(), cancel).await;
            Ok(())
        })
        .required("claims", move |cancel| async move {
            claims.hold_claims(cancel).await;
            Ok(())
        })
        .required("workers", move |cancel| async move { run_all((0..workers).map(|w| Arc::clone(&drain).work(w, cancel.clone()))).await })
        .best_effort("report", move |cancel| async move {
            reports.report(cancel).await;
            Ok(())
        })
        .required("consumer readiness", move |cancel| async move {
            while !cancel.is_cancelled() {
                let (ok, reason) = watched.condition();
                condition.set(ok, &reason);
                let (ok, reason) = partitions_condition(watched.stopped(), true);
                drained.set(ok, &reason);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .stop_task("audit", Duration::from_secs(1))
        .stop_task("report", Duration::from_secs(1))
        .stop_task("workers", Duration::from_secs(5))
        .stop_task("claims", Duration::from_secs(2))
        .on_shutdown("release claims", Duration::from_secs(2), async move { releasing.release_claims().await })
        .stop_task("consumer readiness", Duration::from_secs(1))
}

/// Runs futures side by side until all have ended; a panic in one is a failure.
async fn run_all<F: Future<Output = ()> + Send + 'static>(futures: impl Iterator<Item = F>) -> anyhow::Result<()> {
    let mut running: JoinSet<()> = JoinSet::new();
    futures.for_each(|future| {
        running.spawn(future);
    });
    while let Some(ended) = running.join_next().await {
        ended?;
    }
    Ok(())
}

fn identity(config: &Config) -> anyhow::Result<Identity> {
    Ok(match config.api.identity {
        config::Identity::Header => Identity::Header,
        config::Identity::Gateway => {
            let proxies = config.api.gateway_proxies.iter().map(|proxy| proxy.to_string().parse::<Network>());
            Identity::Gateway { proxies: proxies.collect::<Result<_, _>>()? }
        }
        config::Identity::Jwt => {
            let jwt = &config.jwt;
            Identity::Jwt(JwtVerifier::new(JwtOptions {
                hs256_secret: jwt.hs256_secret().cloned(),
                public_keys: jwt.public_keys.clone(),
                jwks_file: jwt.jwks_file(),
                issuer: jwt.issuer().map(ToOwned::to_owned),
                audience: jwt.audience().map(ToOwned::to_owned),
                leeway_seconds: jwt.leeway_seconds,
            })?)
        }
    })
}

/// Two lines that work, for whoever just started it on this machine.
#[expect(clippy::print_stdout, reason = "for the person at the terminal")]
fn say_what_next(config: &Config) {
    if config.api.identity != config::Identity::Header || config.log.format != config::LogFormat::Human {
        return;
    }
    let url = format!("http://{}/api/v1/coupons", config.api.listen);
    let coupon = crate::domain::CouponId::random();
    println!(
        "\ncoupon-svc serves {url}. Try, in another terminal:\n\n  \
         curl -s -XPOST {url} -H 'X-User-Id: root' -H 'X-Admin: true' -H 'Content-Type: application/json' \\\n    \
         -d '{{\"coupon_id\":\"{coupon}\",\"name\":\"Launch day\",\"kind\":\"FIRST_COME\",\"discount\":{{\"type\":\"FIXED\",\"value\":5000}},\"total_quantity\":1000}}'\n  \
         curl -s -XPOST {url}/{coupon}/issue -H 'X-User-Id: alice'\n\n\
         A crowd of 10,000: make burst. Metrics: http://{}/metrics\n",
        config.ops.listen
    );
}
