//! Between the recordings, which know no hook, and the hooks, which know no manifest.
//!
//! The manifest is the queue's memory: a job is `queued` in it before anybody hears of the
//! recording, and every step is written there before the next one.

use crate::base::critical::CriticalTasks;
use crate::base::id::RecordingId;
use crate::base::tasks::Tasks;
use crate::catalog::Change as RecordingChange;
use crate::catalog::RecordingError;
use crate::catalog::{HookAttempt, HookRecord, HookRunning, HookState, Manifest, Record, What};
use crate::hook::{self, Job, Process, Queue, Running, Script, State, Update};
use crate::http::state::{Replay, ReplayError};
use crate::record::{Event, Recordings};
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};

/// When what could not be written into manifests is tried again.
const OWED_PAUSE: Duration = Duration::from_secs(5);
/// Recordings for which that is kept. Beyond it what their hooks did is lost, and they run again after
/// the next start.
const OWED_MAX: usize = 1024;

/// The running hooks.
pub(super) struct Hooks {
    queue: Queue,
    /// Answered when everything sealed before is in the queue.
    settled: mpsc::Sender<oneshot::Sender<()>>,
}

impl Hooks {
    /// Runs the script for every sealed recording, beginning with those the last run owed; none without a
    /// script.
    pub fn start(
        config: &hook::Config,
        script: Option<PathBuf>,
        recordings: &Recordings,
        sealed: mpsc::Receiver<Event>,
        tasks: &Tasks,
        vitals: &CriticalTasks,
    ) -> Option<Self> {
        let Some(script) = script else {
            ignore(sealed, tasks);
            return None;
        };
        let (queue, updates) = Queue::start(config, Script::new(script), tasks);
        let (settled, asked) = mpsc::channel(1);
        let (submit, catalogue, stop) = (queue.clone(), recordings.clone(), tasks.stop_token());
        let changes = recordings.changes();
        // Read now, not by the task: what is repaired meanwhile is announced, and must not be due as well.
        let due = recordings.catalog().hooks_due();
        let alive = vitals.part("the hook submitter");
        tasks.spawn("hook submitter", async move {
            let _alive = alive;
            tokio::select! {
                () = submit_all(&submit, &catalogue, due, sealed, changes, asked) => {}
                () = stop.cancelled() => {}
            }
        });
        // It ends when the queue does.
        let (alive, notes) = (vitals.part("the hook queue"), Notes::new(recordings));
        tasks.spawn("hook notes", async move {
            let _alive = alive;
            notes.keep(updates).await;
        });
        Some(Self { queue, settled })
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits up to `grace` for the hooks of everything sealed so far; the rest stays in the manifests.
    pub async fn drain(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let (done, settled) = oneshot::channel();
        let all_queued = async {
            if self.settled.send(done).await.is_ok() {
                let _ = settled.await;
            }
        };
        // A queue that is full for so long takes no more: the manifests keep what it lacks.
        let _ = timeout(grace, all_queued).await;
        self.queue.drain(deadline.saturating_duration_since(Instant::now())).await;
    }
}

async fn submit_all(
    queue: &Queue,
    catalogue: &Recordings,
    due: Vec<Manifest>,
    mut sealed: mpsc::Receiver<Event>,
    mut changes: broadcast::Receiver<RecordingChange>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    // Nothing is started before this: who is there now was left by the last server.
    let scan = if due.is_empty() { HashMap::new() } else { scan().await };
    for manifest in due {
        let unfinished = unfinished(&manifest, &scan);
        queue.submit(Job { unfinished, ..job(catalogue, &manifest) }).await;
    }
    loop {
        tokio::select! {
            // What is sealed goes first: the answer says that nothing is left.
            biased;
            event = sealed.recv() => match event {
                Some(Event::Sealed(manifest)) => queue.submit(job(catalogue, &manifest)).await,
                None => return,
            },
            Some(done) = asked.recv() => drop(done.send(())),
            id = deleted(&mut changes) => queue.forget(id).await,
        }
    }
}

/// The next recording whose file was removed: its hook has nothing to work on. One that is missed among
/// many changes is tried as often as any other.
async fn deleted(changes: &mut broadcast::Receiver<RecordingChange>) -> RecordingId {
    loop {
        match changes.recv().await {
            Ok(RecordingChange { what: What::Deleted, manifest }) => return manifest.id,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Without a script the events still have to be read.
fn ignore(mut sealed: mpsc::Receiver<Event>, tasks: &Tasks) {
    let stop = tasks.stop_token();
    tasks.spawn("no hook", async move {
        tokio::select! {
            () = async { while sealed.recv().await.is_some() {} } => {}
            () = stop.cancelled() => {}
        }
    });
}

/// What the HTTP layer calls to run a hook again.
pub(super) fn replayer(recordings: &Recordings, queue: Option<Queue>) -> Replay {
    let recordings = recordings.clone();
    Arc::new(move |id: RecordingId| {
        let (recordings, queue) = (recordings.clone(), queue.clone());
        Box::pin(async move {
            let queue = queue.ok_or(ReplayError::NoHook)?;
            loop {
                let record = recordings.catalog().get(&id);
                let Record { mut manifest, revision } =
                    record.ok_or_else(|| RecordingError::NotFound(id.to_string()))?;
                if manifest.hook.state.is_due() {
                    queue.retry_now(id).await;
                    return Ok(());
                }
                let place = queue.place().map_err(|_| ReplayError::QueueFull)?;
                manifest.hook.begin_anew();
                let job = job(&recordings, &manifest);
                // Of two requests at the same time one finds it due.
                if recordings.catalog().put(manifest, revision).await?.is_some() {
                    place.replay(job).await;
                    return Ok(());
                }
            }
        })
    })
}

/// The recordings that processes run for, with the highest attempt of each.
pub(super) async fn scan() -> HashMap<RecordingId, u32> {
    // An error would mean that it panicked; the manifests still say what was running.
    tokio::task::spawn_blocking(hook::scan).await.unwrap_or_default()
}

/// The attempt that the last server died in: what its manifest says, or, if it could not be written any
/// more, what is still running.
pub(super) fn unfinished(manifest: &Manifest, scan: &HashMap<RecordingId, u32>) -> Option<Running> {
    let hook = &manifest.hook;
    let over = hook.attempts.last().map_or(0, |attempt| attempt.n);
    let seen = scan.get(&manifest.id).copied().filter(|n| *n > over);
    let process =
        |noted: &HookRunning| Some(Process { group: noted.process_group?, born: noted.process_born.clone() });
    let running = hook.running.as_ref().filter(|_| hook.state == HookState::Running);
    match (running, seen) {
        (Some(noted), seen) => {
            let n = seen.unwrap_or(0).max(noted.n);
            Some(Running { n, at: noted.at, process: process(noted) })
        }
        (None, None) if hook.state != HookState::Running => None,
        (None, seen) => Some(Running { n: seen.unwrap_or(over + 1), at: Timestamp::now(), process: None }),
    }
}

pub(super) fn job(recordings: &Recordings, manifest: &Manifest) -> Job {
    let (failures, interruptions) = manifest.hook.counts();
    Job {
        id: manifest.id.clone(),
        stream: manifest.stream.clone(),
        file: recordings.path(manifest),
        bytes: manifest.bytes,
        duration_ms: manifest.duration_ms,
        mime: manifest.mime.clone(),
        size: manifest.size(),
        started_at: manifest.started_at,
        ended_at: manifest.ended_at.unwrap_or(manifest.started_at),
        end_reason: manifest.end_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        attempts_so_far: manifest.hook.attempts.last().map_or(0, |attempt| attempt.n),
        failures,
        interruptions,
        unfinished: None,
        manifest: recordings.folder().manifest_path(manifest),
    }
}

/// Writes into the manifests what the hooks do.
pub(super) struct Notes {
    recordings: Recordings,
    /// What could not be written, in its order.
    owed: HashMap<RecordingId, Vec<Change>>,
}

impl Notes {
    pub(super) fn new(recordings: &Recordings) -> Self {
        Self { recordings: recordings.clone(), owed: HashMap::new() }
    }

    /// Until the queue has ended.
    pub(super) async fn keep(mut self, mut updates: mpsc::Receiver<Update>) {
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                () = sleep(OWED_PAUSE), if !self.owed.is_empty() => {
                    self.settle().await;
                    continue;
                }
            };
            let Some(Update { id, state, attempt, running, written }) = update else { break };
            match self.note(id.clone(), Change::new(state, attempt, running)).await {
                Ok(()) => written.done(),
                Err(error) => {
                    error!(recording = %id, %error, "what the hook did can't be written into the manifest")
                }
            }
        }
        self.settle().await;
    }

    async fn note(&mut self, id: RecordingId, change: Change) -> Result<(), RecordingError> {
        let mut changes = self.owed.remove(&id).unwrap_or_default();
        // Only the newest word about what runs counts.
        changes.retain(|change| change.attempt.is_some());
        changes.push(change);
        match self.write(&id, changes.clone()).await {
            Ok(()) | Err(RecordingError::NotFound(_)) => Ok(()),
            Err(error) => {
                if self.owed.len() < OWED_MAX {
                    self.owed.insert(id, changes);
                }
                Err(error)
            }
        }
    }

    /// Tries what is owed again.
    async fn settle(&mut self) {
        for id in self.owed.keys().cloned().collect::<Vec<_>>() {
            let Some(changes) = self.owed.get(&id).cloned() else { continue };
            match self.write(&id, changes).await {
                Ok(()) => info!(recording = %id, "the manifest says what the hook did"),
                Err(RecordingError::NotFound(_)) => {}
                // A disk that is full for one is full for all.
                Err(_) => return,
            }
            self.owed.remove(&id);
        }
    }

    async fn write(&self, id: &RecordingId, changes: Vec<Change>) -> Result<(), RecordingError> {
        let apply = |manifest: &mut Manifest| {
            changes.iter().for_each(|change| change.clone().apply(&mut manifest.hook));
            Ok(())
        };
        self.recordings.catalog().update(id, apply).await.map(drop)
    }
}

/// One step, as the manifest has it.
#[derive(Clone)]
struct Change {
    state: HookState,
    attempt: Option<HookAttempt>,
    running: Option<HookRunning>,
}

impl Change {
    fn new(state: State, attempt: Option<hook::Attempt>, running: Option<Running>) -> Self {
        let state = match state {
            State::Queued => HookState::Queued,
            State::Running => HookState::Running,
            State::Done => HookState::Done,
            State::Failed => HookState::Failed,
        };
        let attempt = attempt.map(|attempt| HookAttempt {
            n: attempt.n,
            at: attempt.at,
            exit: attempt.exit,
            error: attempt.error,
            interrupted: attempt.interrupted,
            ms: attempt.ms,
            tail: attempt.tail,
        });
        let running = running.map(|Running { n, at, process }| {
            let (process_group, process_born) = process.map(|p| (p.group, p.born)).unzip();
            HookRunning { n, at, process_group, process_born: process_born.flatten() }
        });
        Self { state, attempt, running }
    }

    fn apply(self, hook: &mut HookRecord) {
        hook.state = self.state;
        hook.running = self.running;
        hook.attempts.extend(self.attempt);
    }
}
