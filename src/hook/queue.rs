//! The queue: one task decides, one task an attempt runs.

use super::process::{self, Limits, Verdict};
use super::schedule::{Entry, Schedule};
use super::{Attempt, Config, Job, Script, State, Update};
use crate::base::tasks::Tasks;
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Jobs held in memory. With so many waiting, [`Queue::submit`] waits and [`Queue::replay`] refuses;
/// the rest is in the manifests.
const CAPACITY: usize = 4096;
/// Updates not yet taken. When full, attempts wait before they go on.
const UPDATES: usize = 64;
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// What ending the last scripts may take beyond `hooks.kill_after` before [`Queue::drain`] gives up.
const DRAIN_TRAIL: Duration = Duration::from_secs(3);

/// The queue holds as many jobs as it may; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many hooks are waiting: try again later")]
pub struct Full;

/// The handle to the hook queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    max_attempts: u32,
    kill_after: Duration,
}

#[derive(Debug)]
enum Command {
    Add(Box<Entry>),
    Drain { until: Instant, drained: oneshot::Sender<()> },
}

impl Queue {
    /// Starts the queue's tasks in `tasks`. The receiver ends when the queue has; until then somebody
    /// has to read it, from another task than the one that submits.
    ///
    /// Stopping `tasks` ends the queue as a [`Self::drain`] without grace would.
    pub fn start(config: &Config, script: Script, tasks: &Tasks) -> (Self, mpsc::Receiver<Update>) {
        let (updates, receiver) = mpsc::channel(UPDATES);
        // One more than the jobs there is room for: a drain always finds a place soon.
        let (commands, incoming) = mpsc::channel(CAPACITY + 1);
        let (ended, endings) = mpsc::channel(config.concurrency.max(1));
        let room = Arc::new(Semaphore::new(CAPACITY));
        let dispatcher = Dispatcher {
            schedule: Schedule::new(config.concurrency),
            context: Arc::new(Context {
                limits: Limits { time: config.timeout, kill_after: config.kill_after },
                backoff: config.backoff,
                script,
                updates,
                halt: CancellationToken::new(),
            }),
            tasks: tasks.clone(),
            ended,
            room: room.clone(),
            drain: None,
        };
        tasks.spawn("hook queue", dispatcher.run(incoming, endings));
        let queue =
            Self { commands, room, max_attempts: config.max_attempts.max(1), kill_after: config.kill_after };
        (queue, receiver)
    }

    /// Hands over a job whose manifest already says `queued`. With attempts behind it (after a
    /// restart) it goes on with those that are left, at least one. Waits while the queue is full;
    /// after a drain the job stays in its manifest.
    pub async fn submit(&self, job: Job) {
        let Ok(room) = self.room.clone().acquire_owned().await else { return };
        let n = job.attempts_so_far.saturating_add(1);
        let entry = Entry {
            n,
            last: self.max_attempts.max(n),
            failures: job.attempts_so_far,
            first: job.attempts_so_far == 0,
            _room: Some(room),
            job: Arc::new(job),
        };
        // Refused only after a drain: the manifest keeps it.
        let _ = self.commands.send(Command::Add(Box::new(entry))).await;
    }

    /// Runs a job again, at once and with all of its attempts anew; numbers go on from
    /// `attempts_so_far`. A job that is queued or runs stays as it is; one that waits for a retry is
    /// hurried.
    pub fn replay(&self, job: Job) -> Result<(), Full> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| Full)?;
        let entry = Entry {
            n: job.attempts_so_far.saturating_add(1),
            last: job.attempts_so_far.saturating_add(self.max_attempts),
            failures: 0,
            first: false,
            _room: Some(room),
            job: Arc::new(job),
        };
        self.commands.try_send(Command::Add(Box::new(entry))).map_err(|_| Full)
    }

    /// Takes no more; waits up to `grace` for what runs and for first attempts that are queued, then
    /// ends what still runs. The rest stays in the manifests as `queued`.
    pub async fn drain(&self, grace: Duration) {
        let limit = grace + self.kill_after + DRAIN_TRAIL;
        let (drained, done) = oneshot::channel();
        let command = Command::Drain { until: Instant::now() + grace, drained };
        let drain = async {
            if self.commands.send(command).await.is_ok() {
                let _ = done.await;
            }
        };
        if timeout(limit, drain).await.is_err() {
            tracing::warn!("a hook can't be ended; it is left behind");
        }
    }
}

/// What every attempt needs.
struct Context {
    script: Script,
    limits: Limits,
    backoff: Duration,
    updates: mpsc::Sender<Update>,
    /// Ends what runs.
    halt: CancellationToken,
}

/// What becomes of a job after an attempt.
enum Next {
    Over,
    Retry(Duration),
}

struct Dispatcher {
    schedule: Schedule,
    context: Arc<Context>,
    tasks: Tasks,
    ended: mpsc::Sender<(Entry, Next)>,
    room: Arc<Semaphore>,
    drain: Option<Instant>,
}

impl Dispatcher {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut endings: mpsc::Receiver<(Entry, Next)>,
    ) {
        let stop = self.tasks.stop_token();
        let mut drained = Vec::new();
        let mut open = true;
        loop {
            self.start_due();
            if self.schedule.is_idle() && (self.drain.is_some() || !open) {
                break;
            }
            tokio::select! {
                ended = endings.recv() => if let Some((entry, next)) = ended { self.end(entry, next) },
                command = commands.recv(), if open => match command {
                    Some(Command::Add(entry)) => self.add(*entry),
                    Some(Command::Drain { until, drained: done }) => {
                        drained.push(done);
                        self.drain_until(until);
                    }
                    None => open = false,
                },
                () = until(self.schedule.wake().map(Instant::from_std)) => {}
                () = until(self.drain) => self.halt(),
                () = stop.cancelled(), if !self.context.halt.is_cancelled() => {
                    self.drain_until(Instant::now());
                    self.halt();
                }
            }
        }
        // Submissions still under way are refused, not lost: their manifests say `queued`.
        self.room.close();
        drop((commands, self));
        for done in drained {
            let _ = done.send(());
        }
    }

    fn start_due(&mut self) {
        while let Some(entry) = self.schedule.next(std::time::Instant::now()) {
            let (context, ended) = (self.context.clone(), self.ended.clone());
            let span = tracing::info_span!("hook", stream = %entry.job.stream, recording = %entry.job.id, attempt = entry.n);
            let attempt = async move {
                let next = attempt(&context, &entry).await;
                let _ = ended.send((entry, next)).await;
            };
            self.tasks.spawn("hook attempt", attempt.instrument(span));
        }
    }

    fn add(&mut self, entry: Entry) {
        if self.drain.is_none() {
            self.schedule.add(entry, std::time::Instant::now());
        }
    }

    fn end(&mut self, mut entry: Entry, next: Next) {
        self.schedule.ended(&entry);
        match next {
            Next::Over => self.schedule.forget(&entry.job.id),
            Next::Retry(pause) => {
                entry.n = entry.n.saturating_add(1);
                entry.failures = entry.failures.saturating_add(1);
                self.schedule.retry(entry, std::time::Instant::now() + pause);
            }
        }
    }

    fn drain_until(&mut self, until: Instant) {
        self.drain = Some(self.drain.map_or(until, |earlier| earlier.min(until)));
        self.schedule.drain();
    }

    /// The grace is over: nothing starts any more, what runs is ended.
    fn halt(&mut self) {
        self.context.halt.cancel();
        self.schedule.halt();
        // Passed once; from here only the endings count.
        self.drain = Some(Instant::now() + PAUSE_MAX);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One attempt with its updates.
async fn attempt(context: &Context, entry: &Entry) -> Next {
    let update = |state, attempt, process_group| {
        context.updates.send(Update { id: entry.job.id.clone(), state, attempt, process_group })
    };
    let started = |group| async move {
        // Nobody reads updates any more: the server is about to end.
        let _ = update(State::Running, None, Some(group)).await;
    };
    let limits = (&context.script, context.limits);
    let (attempt, verdict) = process::run(limits, (&entry.job, entry.n), &context.halt, started).await;
    let (state, next) = match verdict {
        Verdict::Success => (State::Done, Next::Over),
        Verdict::Interrupted => (State::Queued, Next::Over),
        Verdict::Failure if entry.n >= entry.last => (State::Failed, Next::Over),
        Verdict::Failure => (State::Queued, Next::Retry(pause(context.backoff, entry.failures))),
    };
    report(&attempt, state, &next);
    let _ = update(state, Some(attempt), None).await;
    next
}

fn report(attempt: &Attempt, state: State, next: &Next) {
    let (exit, error, ms) = (attempt.exit, attempt.error.as_deref(), attempt.ms);
    match (state, next) {
        (State::Done, _) => tracing::info!(ms, "the hook has run"),
        (State::Failed, _) => {
            tracing::error!(exit, error, ms, "the hook failed for good: mend it and run it again");
        }
        (_, Next::Retry(pause)) => tracing::warn!(exit, error, ms, ?pause, "the hook failed and runs again"),
        (_, Next::Over) => tracing::warn!(error, ms, "the hook was interrupted"),
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
