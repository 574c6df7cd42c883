//! Claims jobs, runs an attempt of each in a task of its own, and says what becomes of it.

use super::attempt::{Context, attempt};
use super::jobs::{Jobs, Next};
use super::notes::Update;
use super::{Config, Script, process};
use crate::base::tasks::Tasks;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What ending the last scripts may take beyond `hooks.kill_after` before [`Worker::drain`] gives up.
const DRAIN_TRAIL: Duration = Duration::from_secs(3);

/// The worker of one server.
pub(super) struct Worker {
    jobs: Arc<dyn Jobs>,
    /// Ends what runs.
    halt: CancellationToken,
    ended: CancellationToken,
    kill_after: Duration,
}

impl Worker {
    /// Starts it in `tasks`; stopping those ends it as a [`Self::drain`] without grace would. `updates` end with it;
    /// until then something has to read them.
    pub fn start(
        config: &Config,
        script: Script,
        jobs: Arc<dyn Jobs>,
        updates: mpsc::Sender<Update>,
        tasks: &Tasks,
    ) -> Self {
        let context = Arc::new(Context::new(config, script, updates, process::to_log));
        let (halt, ended, kill_after) = (context.halt.clone(), CancellationToken::new(), config.kill_after);
        let worker = Self { jobs: jobs.clone(), halt, ended: ended.clone(), kill_after };
        let (work, ended) = (work(jobs, context, tasks.clone()), ended.drop_guard());
        tasks.spawn("hook queue", async move {
            work.await;
            drop(ended);
        });
        worker
    }

    /// Takes no more; waits up to `grace` for what runs and for first attempts that wait, then ends what still
    /// runs. The rest stays in the manifests as `queued`.
    pub async fn drain(&self, grace: Duration) {
        self.jobs.drain();
        if timeout(grace, self.ended.cancelled()).await.is_ok() {
            return;
        }
        halt(&*self.jobs, &self.halt);
        if timeout(self.kill_after + DRAIN_TRAIL, self.ended.cancelled()).await.is_err() {
            tracing::warn!("a hook can't be ended; it is left behind");
        }
    }
}

/// Nothing starts any more, what runs is ended.
fn halt(jobs: &dyn Jobs, running: &CancellationToken) {
    running.cancel();
    jobs.halt();
}

async fn work(jobs: Arc<dyn Jobs>, context: Arc<Context>, tasks: Tasks) {
    let stop = tasks.stop_token();
    loop {
        let claimed = tokio::select! {
            claimed = jobs.claim() => claimed,
            () = stop.cancelled(), if !context.halt.is_cancelled() => {
                halt(&*jobs, &context.halt);
                continue;
            }
        };
        let Some(mut entry) = claimed else { return };
        let (jobs, context) = (jobs.clone(), context.clone());
        let span = tracing::info_span!("hook", stream = %entry.job.stream, recording = %entry.job.id, attempt = entry.n);
        let attempt = async move {
            // One that panics has its manifest say that it runs: it is due at the next start.
            let tried = AssertUnwindSafe(attempt(&context, &mut entry)).catch_unwind().await;
            let next = tried.unwrap_or(Next::Over);
            // Updates end with the last attempt's context, and not before what becomes of it is said.
            jobs.settle(entry, next).await;
        };
        tasks.spawn("hook attempt", attempt.instrument(span));
    }
}
