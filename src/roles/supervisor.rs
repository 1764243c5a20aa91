//! Named tasks under one roof, and one way down.
//!
//! ```text
//! tasks start -> ready -> (signal | a required task ends or panics) -> stages in declared order -> tasks left over -> exit
//!                              each stage within its own bound, all within the grace; a second signal exits at once
//! ```
//! A task's token is cancelled by its [`Supervisor::stop_task`] stage, or after the last stage: what others still need while they
//! drain keeps running until its turn.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Systemd;
use crate::cli::EXIT_FAILURE;
use crate::kill_point::kill_point;

type TaskResult = anyhow::Result<()>;
type BoxedTask = Pin<Box<dyn Future<Output = TaskResult> + Send>>;
type Ended = Result<(Id, TaskResult), JoinError>;

/// How a process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A signal, and everything stopped in time.
    Clean,
    /// A required task ended, readiness failed, or something did not stop in time.
    Failed,
    /// A second signal cut the shutdown short.
    Forced,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Clean => Self::SUCCESS,
            Outcome::Failed | Outcome::Forced => Self::from(EXIT_FAILURE),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    BestEffort,
}

struct Task {
    name: &'static str,
    need: Need,
    cancel: CancellationToken,
    future: BoxedTask,
}

enum Work {
    Run(Pin<Box<dyn Future<Output = ()> + Send>>),
    StopTask,
}

struct Stage {
    name: &'static str,
    bound: Duration,
    work: Work,
}

/// Tasks and stages, declared; [`Supervisor::run`] brings them to life.
pub struct Supervisor {
    grace: Duration,
    systemd: Systemd,
    tasks: Vec<Task>,
    stages: Vec<Stage>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.name).collect();
        let stages: Vec<_> = self.stages.iter().map(|stage| stage.name).collect();
        f.debug_struct("Supervisor").field("grace", &self.grace).field("tasks", &tasks).field("stages", &stages).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// `grace` bounds the whole shutdown.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, systemd: Systemd::default(), tasks: Vec::new(), stages: Vec::new() }
    }

    /// Tells systemd.
    #[must_use]
    pub fn systemd(mut self, systemd: Systemd) -> Self {
        self.systemd = systemd;
        self
    }

    /// A task the process is pointless without: if it ends or panics before its token is cancelled, everything stops and the exit code
    /// is not zero. `start` is called at once, the future runs from [`Supervisor::run`] on.
    #[must_use]
    pub fn required<F, Fut>(self, name: &'static str, start: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        self.task(name, Need::Required, start)
    }

    /// A task whose end or panic is logged and nothing else.
    #[must_use]
    pub fn best_effort<F, Fut>(self, name: &'static str, start: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        self.task(name, Need::BestEffort, start)
    }

    fn task<F, Fut>(mut self, name: &'static str, need: Need, start: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let future = Box::pin(start(cancel.clone()));
        self.tasks.push(Task { name, need, cancel, future });
        self
    }

    /// The next stage of the shutdown: runs `work`, for at most `bound`.
    #[must_use]
    pub fn on_shutdown(mut self, name: &'static str, bound: Duration, work: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stages.push(Stage { name, bound, work: Work::Run(Box::pin(work)) });
        self
    }

    /// The next stage of the shutdown: cancels the tasks of this name and waits for their end, for at most `bound`; then aborts them.
    #[must_use]
    pub fn stop_task(mut self, name: &'static str, bound: Duration) -> Self {
        self.stages.push(Stage { name, bound, work: Work::StopTask });
        self
    }

    /// Runs until a signal (SIGTERM, SIGINT) or the end of a required task, then shuts down. `ready` ends when the service is ready;
    /// its failure is a failed start.
    ///
    /// After [`Outcome::Forced`] tasks may still hang in blocking calls: let the caller drop its runtime with `shutdown_background`.
    pub async fn run(self, ready: impl Future<Output = anyhow::Result<()>>) -> Outcome {
        match signals() {
            Ok((mut signals, _listener)) => self.run_with(ready, &mut signals).await,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "signals cannot be handled");
                Outcome::Failed
            }
        }
    }

    /// [`Supervisor::run`] with the signals from outside.
    pub async fn run_with(self, ready: impl Future<Output = anyhow::Result<()>>, signals: &mut mpsc::Receiver<&'static str>) -> Outcome {
        let systemd = self.systemd.clone();
        let _watchdog = watchdog(&systemd);
        let mut running = Running::start(self.tasks);
        let clean = running.serve(ready, signals, &systemd).await;
        systemd.stopping();
        kill_point("shutdown.begin");
        let shutdown = running.shut_down(self.stages, self.grace);
        tokio::select! {
            biased;
            Some(name) = signals.recv() => {
                tracing::error!(signal = name, "second signal, exiting at once");
                Outcome::Forced
            }
            in_order = shutdown => {
                if clean && in_order { Outcome::Clean } else { Outcome::Failed }
            }
        }
    }
}

/// What is known of a running task.
struct Known {
    name: &'static str,
    need: Need,
    cancel: CancellationToken,
    abort: AbortHandle,
}

/// The tasks alive. Dropping it aborts them.
struct Running {
    set: JoinSet<TaskResult>,
    known: HashMap<Id, Known>,
}

impl Running {
    fn start(tasks: Vec<Task>) -> Self {
        let mut running = Self { set: JoinSet::new(), known: HashMap::new() };
        for Task { name, need, cancel, future } in tasks {
            let abort = running.set.spawn(future);
            running.known.insert(abort.id(), Known { name, need, cancel, abort });
        }
        running
    }

    /// Until there is a reason to stop; whether it is a good one.
    async fn serve(
        &mut self,
        ready: impl Future<Output = anyhow::Result<()>>,
        signals: &mut mpsc::Receiver<&'static str>,
        systemd: &Systemd,
    ) -> bool {
        tokio::pin!(ready);
        let mut is_ready = false;
        loop {
            tokio::select! {
                Some(name) = signals.recv() => {
                    tracing::info!(signal = name, "stopping");
                    return true;
                }
                Some(ended) = self.set.join_next_with_id() => {
                    if self.bury(ended) == Some(Need::Required) {
                        return false;
                    }
                }
                result = &mut ready, if !is_ready => match result {
                    Ok(()) => {
                        is_ready = true;
                        systemd.ready();
                        tracing::info!("ready");
                    }
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "start failed");
                        return false;
                    }
                },
                else => return false,
            }
        }
    }

    /// Logs the end of a task; its need if it should not have ended, or not so.
    fn bury(&mut self, ended: Ended) -> Option<Need> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) if error.is_cancelled() => (error.id(), Ok(())),
            Err(error) => (error.id(), Err(anyhow::Error::new(error))),
        };
        let task = self.known.remove(&id)?;
        let expected = task.cancel.is_cancelled();
        match (result, task.need) {
            (Ok(()), _) if expected => {
                tracing::debug!(task.name = task.name, "task ended");
                return None;
            }
            (Ok(()), Need::Required) => tracing::error!(task.name = task.name, "required task ended by itself"),
            (Ok(()), Need::BestEffort) => tracing::info!(task.name = task.name, "task ended by itself"),
            (Err(error), Need::Required) => tracing::error!(task.name = task.name, error = format!("{error:#}"), "required task failed"),
            (Err(error), Need::BestEffort) => tracing::warn!(task.name = task.name, error = format!("{error:#}"), "task failed"),
        }
        Some(task.need)
    }

    /// The stages in order, then what is left; whether all of it ended well and in time.
    async fn shut_down(&mut self, stages: Vec<Stage>, grace: Duration) -> bool {
        // The servers' tasks end by themselves when a stage stops them: that is their end as wished.
        let started = Instant::now();
        let deadline = started + grace;
        let mut in_order = true;
        for Stage { name, bound, work } in stages {
            kill_point("shutdown.stage");
            let end = deadline.min(Instant::now() + bound);
            let in_time = match work {
                Work::Run(work) => timeout_at(end, work).await.is_ok(),
                Work::StopTask => {
                    let (in_time, well) = self.stop(|task| task.name == name, end).await;
                    in_order &= well;
                    in_time
                }
            };
            if in_time {
                tracing::debug!(stage.name = name, "shutdown stage done");
            } else {
                tracing::warn!(stage.name = name, bound_ms = millis(bound), "shutdown stage ran out of time");
                in_order = false;
            }
        }
        let (in_time, well) = self.stop(|_| true, deadline).await;
        if !in_time {
            tracing::warn!(grace_ms = millis(grace), "tasks ran out of time");
        }
        tracing::info!(elapsed_ms = millis(started.elapsed()), "stopped");
        kill_point("shutdown.end");
        in_order && in_time && well
    }

    /// Cancels the chosen tasks and waits until `end`, then aborts what is left: whether in time, and whether without a failure.
    async fn stop(&mut self, chosen: impl Fn(&Known) -> bool, end: Instant) -> (bool, bool) {
        for task in self.known.values().filter(|task| chosen(task)) {
            task.cancel.cancel();
        }
        let mut well = true;
        while self.known.values().any(&chosen) {
            match timeout_at(end, self.set.join_next_with_id()).await {
                Ok(Some(ended)) => well &= self.end_in_shutdown(ended),
                Ok(None) => break,
                Err(_) => {
                    for task in self.known.values().filter(|task| chosen(task)) {
                        tracing::warn!(task.name = task.name, "task did not stop in time, aborting it");
                        task.abort.abort();
                    }
                    // Aborted tasks end at their next await; one that blocks is left behind.
                    while self.known.values().any(&chosen) {
                        let Ok(Some(ended)) = timeout(Duration::from_millis(100), self.set.join_next_with_id()).await else {
                            break;
                        };
                        well &= self.end_in_shutdown(ended);
                    }
                    return (false, well);
                }
            }
        }
        (true, well)
    }

    /// An end during the shutdown is as wished, unless it is a failure of a required task.
    fn end_in_shutdown(&mut self, ended: Ended) -> bool {
        if let Ok((id, Ok(()))) = &ended {
            if let Some(task) = self.known.remove(id) {
                tracing::debug!(task.name = task.name, "task ended");
            }
            return true;
        }
        self.bury(ended) != Some(Need::Required)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells systemd that the runtime still turns, until dropped.
fn watchdog(systemd: &Systemd) -> Option<AbortOnDropHandle<()>> {
    let interval = systemd.alive_every()?;
    let systemd = systemd.clone();
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            systemd.alive();
        }
    })))
}

/// SIGTERM and SIGINT as a channel; the listener must be kept.
fn signals() -> anyhow::Result<(mpsc::Receiver<&'static str>, AbortOnDropHandle<()>)> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let (sender, receiver) = mpsc::channel(4);
    let listener = tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok((receiver, AbortOnDropHandle::new(listener)))
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
