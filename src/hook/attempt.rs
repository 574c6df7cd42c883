//! One attempt, step by step: what the last one left is ended, the manifest says `running`, the script
//! runs, the manifest says how it went. Each step is written down before the next.

use super::jobs::{Entry, Job, Next};
use super::notes::{Notes, Step, Update};
use super::orphans::{self, Traces};
use super::process::{self, Limits, Verdict};
use super::{Config, Script, Stdin};
use crate::base::metrics::metrics;
use crate::base::tasks::Tasks;
use crate::catalog::{Catalog, Folder, HookAttempt, HookState, Manifest, Record};
use jiff::Timestamp;
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// A step that takes longer to be written down is taken without: better a hook twice than never.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// When survivors that can't be ended are looked at again.
const STUCK_PAUSE: Duration = Duration::from_secs(30);

/// Steps of one attempt; more than there are.
const STEPS: usize = 8;
/// How long the last step of an attempt by itself may take into the manifest.
const LAST_STEP: Duration = Duration::from_secs(10);

/// The end of an attempt that a server died in.
const DIED: &str = "the server ended while it ran";
/// The same for a job's last one.
const DIED_AT_LAST: &str = "the server ended while it ran, and this was its last attempt (hooks.max_attempts): \
                            it may take the server along. Look into it, then run it again";

/// What every attempt needs.
pub(super) struct Context {
    script: Script,
    stdin: Stdin,
    limits: Limits,
    backoff: Duration,
    updates: mpsc::Sender<Update>,
    /// Takes the output.
    sink: process::Sink,
    /// Ends what runs.
    pub(super) halt: CancellationToken,
}

impl Context {
    pub(super) fn new(
        config: &Config,
        script: Script,
        updates: mpsc::Sender<Update>,
        sink: process::Sink,
    ) -> Self {
        Self {
            script,
            stdin: config.stdin,
            limits: Limits { time: config.timeout, kill_after: config.kill_after },
            backoff: config.backoff,
            updates,
            sink,
            halt: CancellationToken::new(),
        }
    }

    /// Has a step written down before the next one; what comes back resolves when that is durable.
    async fn send(&self, entry: &Entry, step: Step) -> oneshot::Receiver<()> {
        let (written, done) = oneshot::channel();
        let update = Update { id: entry.job.id.clone(), step, written };
        // Updates that are not read any more are those of a server that is about to end.
        let _ = self.updates.send(update).await;
        done
    }

    /// The same for a step that has to be durable before the next one is taken.
    async fn note(&self, entry: &Entry, step: Step) {
        let wait = async { self.send(entry, step).await.await };
        if !matches!(timeout(WRITE_LIMIT, wait).await, Ok(Ok(()))) {
            tracing::warn!("the hook goes on, though its manifest can't be written now");
        }
    }
}

/// How an attempt that was asked for by itself has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// It could not begin: processes of an earlier attempt can't be ended.
    NotBegun,
    /// It has run, but its manifest still says that it does: it could not be written.
    NotNoted,
    /// It has run, and its manifest says how it went.
    Ran(HookState),
}

/// Runs one attempt of a recording's hook, and no further ones, with its output on the standard output as it comes.
/// Cancelling `halt` ends it as stopping the server does.
///
/// The caller sees to it that no other process runs hooks of the same folder.
pub async fn run_once(
    config: &Config,
    script: Script,
    catalog: Arc<dyn Catalog>,
    folder: &Folder,
    manifest: &Manifest,
    halt: &CancellationToken,
) -> Once {
    let (updates, received) = mpsc::channel(STEPS);
    let tasks = Tasks::new();
    tasks.spawn("hook notes", Notes::new(catalog.clone()).keep(received));
    let mut context = Context::new(config, script, updates, process::to_terminal);
    context.halt = halt.clone();
    let job = Job { replayed: true, ..Job::left(manifest, folder, &orphans::scan().await) };
    let mut entry = Entry::new(job, 1);
    let run = steps(&context, &mut entry).await;
    let state = run.as_ref().map(|(_, state, _)| *state);
    if let Some((attempt, state, _)) = run {
        context.send(&entry, Step::over(state, Some(attempt))).await;
    }
    drop(context);
    let written = tasks.drain(LAST_STEP).await;
    let is_noted = |record: Record| record.manifest.hook.state != HookState::Running;
    match state {
        None => Once::NotBegun,
        Some(state) if written && catalog.get(&manifest.id).is_some_and(is_noted) => Once::Ran(state),
        Some(_) => Once::NotNoted,
    }
}

/// One attempt with its updates.
pub(super) async fn attempt(context: &Context, entry: &mut Entry) -> Next {
    let Some((attempt, state, next)) = steps(context, entry).await else {
        return if context.halt.is_cancelled() { Next::Over } else { Next::Later(STUCK_PAUSE) };
    };
    report(&attempt, state, &next);
    context.send(entry, Step::over(state, Some(attempt))).await;
    next
}

/// Up to the script's end; `None` if it was not started.
async fn steps(context: &Context, entry: &mut Entry) -> Option<(HookAttempt, HookState, Next)> {
    tokio::select! {
        begun = begin(context, entry) => match begun {
            Begun::Ready => {}
            Begun::Stuck => return None,
            Begun::GivenUp(attempt) => {
                metrics().hooks.failed.inc();
                return Some((attempt, HookState::Failed, Next::Over));
            }
        },
        // What is written meanwhile says the same after the next start.
        () = context.halt.cancelled() => return None,
    }
    let (n, at) = (entry.n, Timestamp::now());
    context.note(entry, Step::begin(n, at)).await;
    if context.halt.is_cancelled() {
        context.send(entry, Step::over(HookState::Queued, None)).await;
        return None;
    }
    let running = &*entry;
    let started = |process| async move {
        context.send(running, Step::running(process)).await;
    };
    let (script, stdin, limits) = (&context.script, context.stdin, context.limits);
    let run = process::Run { script, stdin, limits, job: &entry.job, n, at };
    let (attempt, verdict) = process::run(run, context.sink, &context.halt, started).await;
    count(&attempt, &verdict);
    let (state, next) = match verdict {
        Verdict::Success => (HookState::Done, Next::Over),
        Verdict::Interrupted if !entry.stops_count || n < entry.last => (HookState::Queued, Next::Over),
        _ if n >= entry.last => {
            metrics().hooks.failed.inc();
            (HookState::Failed, Next::Over)
        }
        _ => (HookState::Queued, Next::Retry(pause(context.backoff, entry.failures))),
    };
    Some((attempt, state, next))
}

fn count(attempt: &HookAttempt, verdict: &Verdict) {
    let hooks = &metrics().hooks;
    hooks.attempts.inc([match verdict {
        Verdict::Success => "success",
        Verdict::Failure => "failed",
        Verdict::TimedOut => "timed_out",
        Verdict::Interrupted => "interrupted",
    }]);
    hooks.duration.note(Duration::from_millis(attempt.ms));
}

/// What stands in the way of the next attempt.
enum Begun {
    Ready,
    /// Processes of an earlier one.
    Stuck,
    /// The attempt that the last server died in was the last there is.
    GivenUp(HookAttempt),
}

/// Ends what an attempt left that the last server died in, and notes that attempt's end.
async fn begin(context: &Context, entry: &mut Entry) -> Begun {
    let Some(unfinished) = &entry.unfinished else { return Begun::Ready };
    let from = entry.job.attempts_so_far.saturating_add(1);
    let traces = Traces { id: entry.job.id.clone(), from, noted: Some(unfinished.clone()) };
    let (ended, left) = orphans::end(&traces, context.limits.kill_after).await;
    if !left.is_empty() {
        tracing::error!(
            processes = ?left,
            "processes of an earlier attempt can't be ended: the next one waits until they are gone"
        );
        return Begun::Stuck;
    }
    if ended > 0 {
        tracing::warn!(survivors = ended, "ended what the last server's attempt had left running");
    }
    // When one ended that left nothing is not known.
    let lasted = Timestamp::now().duration_since(unfinished.at).as_millis();
    let attempt = HookAttempt {
        n: unfinished.n,
        at: unfinished.at,
        exit: None,
        error: Some(if entry.gives_up { DIED_AT_LAST } else { DIED }.to_owned()),
        interrupted: false,
        ms: if ended > 0 { u64::try_from(lasted).unwrap_or(0) } else { 0 },
        tail: String::new(),
    };
    metrics().hooks.attempts.inc(["lost"]);
    if entry.gives_up {
        entry.unfinished = None;
        return Begun::GivenUp(attempt);
    }
    context.note(entry, Step::over(HookState::Queued, Some(attempt))).await;
    entry.unfinished = None;
    Begun::Ready
}

fn report(attempt: &HookAttempt, state: HookState, next: &Next) {
    let (exit, error, ms) = (attempt.exit, attempt.error.as_deref(), attempt.ms);
    match (state, next) {
        (HookState::Done, _) => tracing::info!(ms, "the hook has run"),
        (HookState::Failed, _) => {
            tracing::error!(exit, error, ms, "the hook failed for good: mend it and run it again");
        }
        (_, Next::Retry(pause)) => tracing::warn!(exit, error, ms, ?pause, "the hook failed and runs again"),
        _ => tracing::warn!(error, ms, "the hook was interrupted"),
    }
}

/// The pause after the given number of earlier failures: doubled each time, within [`PAUSE_MAX`]
/// (or the configured pause, if that is longer), and moved by up to a fifth either way so that jobs
/// that failed together do not come back together.
fn pause(backoff: Duration, failures: u32) -> Duration {
    let doubled = backoff.saturating_mul(2u32.saturating_pow(failures));
    doubled.min(PAUSE_MAX.max(backoff)).mul_f64(rand::rng().random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_scatter_by_a_fifth() {
        for (failures, seconds) in [(0, 5.0), (1, 10.0), (4, 80.0), (10, 3600.0), (u32::MAX, 3600.0)] {
            for _ in 0..100 {
                let pause = pause(Duration::from_secs(5), failures).as_secs_f64();
                assert!((0.8 * seconds..=1.2 * seconds).contains(&pause), "{failures} failures: {pause} s");
            }
        }
    }
}
