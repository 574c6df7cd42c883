//! Between the recordings, which know no hook, and the hooks, which know no manifest.
//!
//! The manifest is the queue's memory: a job is `queued` in it before anybody hears of the
//! recording, and every step is written there before the next one.

use crate::base::id::RecordingId;
use crate::base::tasks::Tasks;
use crate::hook::{self, Job, Queue, Script, State, Update};
use crate::http::state::{NoReplay, Replay};
use crate::record::{Error, Event, HookAttempt, HookRecord, HookState, Manifest, Recordings};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::error;

/// The running hooks.
pub(super) struct Hooks {
    queue: Queue,
    /// Answered when everything sealed before is in the queue.
    settled: mpsc::Sender<oneshot::Sender<()>>,
}

impl Hooks {
    /// Runs the script for every sealed recording, beginning with those the last run owed.
    pub fn start(
        config: &hook::Config,
        script: PathBuf,
        recordings: &Recordings,
        sealed: mpsc::Receiver<Event>,
        tasks: &Tasks,
    ) -> Self {
        let (queue, mut updates) = Queue::start(config, Script::new(script), tasks);
        let (settled, asked) = mpsc::channel(1);
        let (submit, catalogue, stop) = (queue.clone(), recordings.clone(), tasks.stop_token());
        // Read now, not by the task: what is repaired meanwhile is announced, and must not be due as well.
        let due = recordings.hooks_due();
        tasks.spawn("hook submitter", async move {
            tokio::select! {
                () = submit_all(&submit, &catalogue, due, sealed, asked) => {}
                () = stop.cancelled() => {}
            }
        });
        let catalogue = recordings.clone();
        tasks.spawn("hook notes", async move {
            while let Some(update) = updates.recv().await {
                let id = update.id.clone();
                if let Err(error) = note(&catalogue, update).await {
                    error!(recording = %id, %error, "what the hook did can't be written into the manifest");
                }
            }
        });
        Self { queue, settled }
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
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    for manifest in due {
        queue.submit(job(catalogue, &manifest)).await;
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
        }
    }
}

/// Without a script the events still have to be read.
pub(super) fn ignore(mut sealed: mpsc::Receiver<Event>, tasks: &Tasks) {
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
            let queue = queue.ok_or(NoReplay::NoHook)?;
            let manifest = recordings.get(&id).ok_or_else(|| Error::NotFound(id.to_string()))?;
            let manifest = if matches!(manifest.hook.state, HookState::Queued | HookState::Running) {
                manifest
            } else {
                let hook = HookRecord { state: HookState::Queued, ..manifest.hook };
                recordings.set_hook(&id, hook).await?
            };
            queue.replay(job(&recordings, &manifest)).map_err(|_| NoReplay::QueueFull)
        })
    })
}

fn job(recordings: &Recordings, manifest: &Manifest) -> Job {
    Job {
        id: manifest.id.clone(),
        stream: manifest.stream.clone(),
        file: recordings.path(manifest),
        bytes: manifest.bytes,
        duration_ms: manifest.duration_ms,
        started_at: manifest.started_at,
        ended_at: manifest.ended_at.unwrap_or(manifest.started_at),
        end_reason: manifest.end_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        attempts_so_far: manifest.hook.attempts.last().map_or(0, |attempt| attempt.n),
        manifest_json: serde_json::to_string(manifest).unwrap_or_default(),
    }
}

/// Writes one step into the manifest.
async fn note(recordings: &Recordings, update: Update) -> Result<(), Error> {
    let Some(manifest) = recordings.get(&update.id) else { return Ok(()) };
    let mut hook = manifest.hook;
    hook.state = match update.state {
        State::Queued => HookState::Queued,
        State::Running => HookState::Running,
        State::Done => HookState::Done,
        State::Failed => HookState::Failed,
    };
    hook.attempts.extend(update.attempt.map(|attempt| HookAttempt {
        n: attempt.n,
        at: attempt.at,
        exit: attempt.exit,
        error: attempt.error,
        ms: attempt.ms,
        tail: attempt.tail,
    }));
    recordings.set_hook(&update.id, hook).await.map(|_| ())
}
