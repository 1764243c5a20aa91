//! No test waits for the clock but for a bound that must run out, and those are short.

use std::sync::{Arc, Mutex};

use super::*;

/// A bound no test should reach.
const LONG: Duration = Duration::from_secs(30);
/// A bound that is meant to run out.
const SHORT: Duration = Duration::from_millis(20);

#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<&'static str>>>);

impl Diary {
    fn note(&self, entry: &'static str) {
        self.0.lock().unwrap().push(entry);
    }

    fn entries(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }

    /// A task that notes when it is told to end.
    fn until_cancelled(&self, entry: &'static str) -> impl FnOnce(CancellationToken) -> BoxedTask + use<> {
        let diary = self.clone();
        move |cancel| {
            Box::pin(async move {
                cancel.cancelled().await;
                diary.note(entry);
                Ok(())
            })
        }
    }
}

async fn forever(_cancel: CancellationToken) -> TaskResult {
    std::future::pending().await
}

async fn never() -> anyhow::Result<()> {
    std::future::pending().await
}

/// Runs with signals that come when ready, so many of them.
async fn run(supervisor: Supervisor, count: usize) -> Outcome {
    let (sender, mut signals) = mpsc::channel(4);
    let keep = sender.clone();
    let ready = async move {
        for _ in 0..count {
            sender.send("SIGTERM").await?;
        }
        Ok(())
    };
    let outcome = supervisor.run_with(ready, &mut signals).await;
    drop(keep);
    outcome
}

#[tokio::test]
async fn a_signal_stops_in_declared_order() {
    let diary = Diary::default();
    let first = diary.clone();
    let third = diary.clone();
    let supervisor = Supervisor::new(LONG)
        .required("follower", diary.until_cancelled("follower"))
        .required("consumer", diary.until_cancelled("consumer"))
        .required("rest", diary.until_cancelled("rest"))
        .on_shutdown("not ready", LONG, async move { first.note("not ready") })
        .stop_task("consumer", LONG)
        .on_shutdown("journal", LONG, async move { third.note("journal") })
        .stop_task("follower", LONG);
    assert_eq!(run(supervisor, 1).await, Outcome::Clean);
    assert_eq!(diary.entries(), ["not ready", "consumer", "journal", "follower", "rest"]);
}

#[tokio::test]
async fn a_required_task_that_ends_stops_everything() {
    let diary = Diary::default();
    let flush = diary.clone();
    let supervisor = Supervisor::new(LONG)
        .required("short", |_| async { Ok(()) })
        .required("other", diary.until_cancelled("other"))
        .on_shutdown("flush", LONG, async move { flush.note("flush") });
    let (_sender, mut signals) = mpsc::channel(1);
    assert_eq!(supervisor.run_with(never(), &mut signals).await, Outcome::Failed);
    assert_eq!(diary.entries(), ["flush", "other"]);
}

#[tokio::test]
async fn a_required_task_that_fails_or_panics_stops_everything() {
    let (_sender, mut signals) = mpsc::channel(1);
    let failing = Supervisor::new(LONG).required("task", |_| async { anyhow::bail!("broken") });
    assert_eq!(failing.run_with(never(), &mut signals).await, Outcome::Failed);
    let panicking = Supervisor::new(LONG).required("task", |_| async { panic!("broken") });
    assert_eq!(panicking.run_with(never(), &mut signals).await, Outcome::Failed);
}

#[tokio::test]
async fn a_best_effort_task_may_go() {
    let (gone, is_gone) = tokio::sync::oneshot::channel::<()>();
    let supervisor = Supervisor::new(LONG)
        .best_effort("fails", |_| async { anyhow::bail!("broken") })
        .best_effort("panics", |_| async { panic!("broken") })
        .best_effort("ends", |_| async move {
            drop(gone);
            Ok(())
        });
    let (sender, mut signals) = mpsc::channel(1);
    let ready = async {
        // Fails: the sender was dropped, which is the point.
        assert!(is_gone.await.is_err());
        sender.send("SIGINT").await?;
        Ok(())
    };
    assert_eq!(supervisor.run_with(ready, &mut signals).await, Outcome::Clean);
}

#[tokio::test]
async fn a_failed_start_stops() {
    let diary = Diary::default();
    let supervisor = Supervisor::new(LONG).required("task", diary.until_cancelled("task"));
    let (_sender, mut signals) = mpsc::channel(1);
    let ready = async { anyhow::bail!("no such table") };
    assert_eq!(supervisor.run_with(ready, &mut signals).await, Outcome::Failed);
    assert_eq!(diary.entries(), ["task"]);
}

#[tokio::test]
async fn a_stage_out_of_time_does_not_hold_up_the_next() {
    let diary = Diary::default();
    let next = diary.clone();
    let supervisor = Supervisor::new(LONG)
        .on_shutdown("stuck", SHORT, std::future::pending())
        .on_shutdown("next", LONG, async move { next.note("next") });
    assert_eq!(run(supervisor, 1).await, Outcome::Failed);
    assert_eq!(diary.entries(), ["next"]);
}

#[tokio::test]
async fn a_deaf_task_is_aborted_at_its_bound() {
    let diary = Diary::default();
    let supervisor =
        Supervisor::new(LONG).required("deaf", forever).required("other", diary.until_cancelled("other")).stop_task("deaf", SHORT);
    assert_eq!(run(supervisor, 1).await, Outcome::Failed);
    assert_eq!(diary.entries(), ["other"]);
}

#[tokio::test]
async fn the_grace_bounds_all_of_it() {
    let supervisor = Supervisor::new(SHORT).required("deaf", forever).on_shutdown("stuck", LONG, std::future::pending());
    let outcome = timeout(LONG / 2, run(supervisor, 1)).await;
    assert_eq!(outcome, Ok(Outcome::Failed));
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let supervisor = Supervisor::new(LONG).required("deaf", forever).on_shutdown("stuck", LONG, std::future::pending());
    let outcome = timeout(LONG / 2, run(supervisor, 2)).await;
    assert_eq!(outcome, Ok(Outcome::Forced));
}

#[tokio::test]
async fn a_server_that_a_stage_stops_ended_as_wished() {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let supervisor = Supervisor::new(LONG)
        .required("api", |_| async move {
            stopped.cancelled().await;
            Ok(())
        })
        .on_shutdown("drain", LONG, async move { stop.cancel() })
        .stop_task("api", LONG);
    assert_eq!(run(supervisor, 1).await, Outcome::Clean);
}

#[tokio::test]
async fn a_panic_during_the_shutdown_is_a_failure() {
    let supervisor = Supervisor::new(LONG).required("task", |cancel| async move {
        cancel.cancelled().await;
        panic!("broken")
    });
    assert_eq!(run(supervisor, 1).await, Outcome::Failed);
}

#[tokio::test]
async fn systemd_hears_of_the_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let supervisor = Supervisor::new(LONG).systemd(Systemd::new(Some(path), None)).required("task", |cancel| async move {
        cancel.cancelled().await;
        Ok(())
    });
    assert_eq!(run(supervisor, 1).await, Outcome::Clean);
    let mut buffer = [0; 256];
    for word in ["READY=1", "STOPPING=1"] {
        let length = timeout(LONG, socket.recv(&mut buffer)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.starts_with(word), "{text}");
    }
}
