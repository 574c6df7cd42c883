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
use tokio::sync::mpsc;
use tracing::error;

/// Runs the script for every sealed recording, beginning with those the last run owed.
pub(super) fn start(
    config: &hook::Config,
    script: PathBuf,
    recordings: &Recordings,
    mut sealed: mpsc::Receiver<Event>,
    tasks: &Tasks,
) -> Queue {
    let (queue, mut updates) = Queue::start(config, Script::new(script), tasks);
    let (submit, catalogue) = (queue.clone(), recordings.clone());
    // Read now, not by the task: what is repaired meanwhile is announced, and must not be due as well.
    let due = recordings.hooks_due();
    tasks.spawn("hook submitter", async move {
        for manifest in due {
            submit.submit(job(&catalogue, &manifest)).await;
        }
        while let Some(Event::Sealed(manifest)) = sealed.recv().await {
            submit.submit(job(&catalogue, &manifest)).await;
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
    queue
}

/// Without a script the events still have to be read.
pub(super) fn ignore(mut sealed: mpsc::Receiver<Event>, tasks: &Tasks) {
    tasks.spawn("no hook", async move { while sealed.recv().await.is_some() {} });
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
