//! The queue: one task decides, one task an attempt runs.

use super::attempt::{Context, Next, attempt};
use super::process;
use super::schedule::{Depths, Entry, Schedule};
use super::{Config, Job, Script, Update};
use crate::base::id::RecordingId;
use crate::base::metrics::Scrape;
use crate::base::tasks::Tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

/// Jobs held in memory. With so many waiting, [`Queue::submit`] waits and [`Queue::place`] refuses;
/// the rest is in the manifests.
const CAPACITY: usize = 4096;
/// Updates not yet taken. When full, attempts wait before they go on.
const UPDATES: usize = 64;
/// Longer than any grace.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What ending the last scripts may take beyond `hooks.kill_after` before [`Queue::drain`] gives up.
const DRAIN_TRAIL: Duration = Duration::from_secs(3);

/// The queue holds as many jobs as it may; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many hooks are waiting: try again later")]
pub struct QueueFull;

/// The handle to the hook queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    max_attempts: u32,
    kill_after: Duration,
    depths: watch::Receiver<Depths>,
}

#[derive(Debug)]
enum Command {
    Add(Box<Entry>),
    RetryNow(RecordingId),
    Forget(RecordingId),
    Drain { until: Instant, drained: oneshot::Sender<()> },
}

impl Queue {
    /// Starts the queue's tasks in `tasks`. The receiver ends when the queue has; until then somebody
    /// has to read it, from another task than the one that submits.
    ///
    /// Stopping `tasks` ends the queue as a [`Self::drain`] without grace would.
    pub fn start(config: &Config, script: Script, tasks: &Tasks) -> (Self, mpsc::Receiver<Update>) {
        let (updates, receiver) = mpsc::channel(UPDATES);
        // What is in it has been taken out soon: the dispatcher never waits.
        let (commands, incoming) = mpsc::channel(64);
        let (ended, endings) = mpsc::channel(config.concurrency.max(1));
        let room = Arc::new(Semaphore::new(CAPACITY));
        let (depths_told, depths) = watch::channel(Depths::default());
        let dispatcher = Dispatcher {
            schedule: Schedule::new(config.concurrency),
            context: Arc::new(Context::new(config, script, updates, process::to_log)),
            tasks: tasks.clone(),
            ended,
            room: room.clone(),
            drain: None,
            depths: depths_told,
        };
        tasks.spawn("hook queue", dispatcher.run(incoming, endings));
        let (max_attempts, kill_after) = (config.max_attempts.max(1), config.kill_after);
        (Self { commands, room, max_attempts, kill_after, depths }, receiver)
    }

    /// Hands over a job whose manifest already says `queued`. With attempts behind it (after a
    /// restart) it goes on with those that are left, at least one. Waits while the queue is full;
    /// after a drain the job stays in its manifest.
    pub async fn submit(&self, job: Job) {
        let Ok(room) = self.room.clone().acquire_owned().await else { return };
        let entry = Entry::new(job, self.max_attempts, Some(room));
        // Refused only after a drain: the manifest keeps it.
        let _ = self.commands.send(Command::Add(Box::new(entry))).await;
    }

    /// Whether it takes no more at present; what is sealed meanwhile waits in its manifest.
    pub fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let Depths { waiting, running, retrying, oldest } = *self.depths.borrow();
        let help =
            "Recordings whose hook is to run: waiting for its turn, running, waiting to be tried again";
        let values =
            [("waiting", waiting as u64), ("running", running as u64), ("retrying", retrying as u64)];
        scrape.gauges("hook_queue", help, "state", values);
        let help = "How long the hook has waited that waits the longest for its first attempt";
        let age = oldest.map_or(0.0, |came| came.elapsed().as_secs_f64());
        scrape.fraction("hook_oldest_waiting_seconds", help, age);
    }

    /// A place for one more job, to be had before its manifest says `queued`.
    pub fn place(&self) -> Result<Slot, QueueFull> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| QueueFull)?;
        Ok(Slot { queue: self.clone(), room })
    }

    /// Has a job that waits for a retry run at once; one that is queued or runs stays as it is.
    pub async fn retry_now(&self, id: RecordingId) {
        let _ = self.commands.send(Command::RetryNow(id)).await;
    }

    /// Withdraws a job, whose recording is gone. What runs goes on, and is not tried again.
    pub async fn forget(&self, id: RecordingId) {
        let _ = self.commands.send(Command::Forget(id)).await;
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

/// A place in the queue.
#[derive(Debug)]
pub struct Slot {
    queue: Queue,
    room: OwnedSemaphorePermit,
}

impl Slot {
    /// Runs a job again that had come to its end, at once and with all of its attempts anew; numbers go
    /// on from `attempts_so_far`. Should its last attempt only now be putting its things away, it is
    /// run after that. After a drain the job stays in its manifest.
    pub async fn replay(self, job: Job) {
        let Self { queue, room } = self;
        let entry = Entry::replayed(job, queue.max_attempts, Some(room));
        let _ = queue.commands.send(Command::Add(Box::new(entry))).await;
    }
}

struct Dispatcher {
    schedule: Schedule,
    context: Arc<Context>,
    tasks: Tasks,
    ended: mpsc::Sender<(Entry, Next)>,
    room: Arc<Semaphore>,
    drain: Option<Instant>,
    depths: watch::Sender<Depths>,
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
            self.depths.send_replace(self.schedule.depths());
            if self.schedule.is_idle() && (self.drain.is_some() || !open) {
                break;
            }
            tokio::select! {
                ended = endings.recv() => if let Some((entry, next)) = ended { self.end(entry, next) },
                command = commands.recv(), if open => match command {
                    Some(Command::Add(entry)) => self.add(*entry),
                    Some(Command::RetryNow(id)) => self.schedule.retry_now(&id, std::time::Instant::now()),
                    Some(Command::Forget(id)) => self.schedule.withdraw(&id),
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
        while let Some(mut entry) = self.schedule.next(std::time::Instant::now()) {
            let (context, ended) = (self.context.clone(), self.ended.clone());
            let span = tracing::info_span!("hook", stream = %entry.job.stream, recording = %entry.job.id, attempt = entry.n);
            let attempt = async move {
                let next = attempt(&context, &mut entry).await;
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
            Next::Over => self.schedule.forget(&entry, std::time::Instant::now()),
            Next::Later(pause) => self.schedule.retry(entry, std::time::Instant::now() + pause),
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
        self.drain = Some(Instant::now() + NEVER);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
