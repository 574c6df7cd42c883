//! The running hooks: what is due after a restart, what is sealed, what an operator asks for once more.

use super::jobs::{Depths, Job, Jobs};
use super::notes::Notes;
use super::queue::Queue;
use super::worker::Worker;
use super::{Config, Script, orphans};
use crate::base::critical_task::CriticalTasks;
use crate::base::id::RecordingId;
use crate::base::metrics::Scrape;
use crate::base::tasks::Tasks;
use crate::catalog::{Catalog, Change, Folder, Manifest, Record, RecordingError, What};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Updates not yet taken. When full, attempts wait before they go on.
const UPDATES: usize = 64;

/// Why a hook can't run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is none.
    #[error("no hook is configured: set hooks.on_record")]
    NoHook,
    /// Too many wait.
    #[error("too many hooks are waiting: try again when some have run")]
    QueueFull,
    /// The manifest can't be written.
    #[error(transparent)]
    Record(#[from] RecordingError),
}

/// The hooks of one server. Cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    catalog: Arc<dyn Catalog>,
    folder: Folder,
    jobs: Arc<dyn Jobs>,
    worker: Arc<Worker>,
    tasks: Tasks,
    /// Answered when everything sealed before is queued.
    settled: mpsc::Sender<oneshot::Sender<()>>,
}

impl Hooks {
    /// Runs the script for every recording that comes from `sealed`, beginning with those whose hook is due by their
    /// manifest now.
    pub fn start<E: Into<Manifest> + Send + 'static>(
        config: &Config,
        script: Script,
        catalog: Arc<dyn Catalog>,
        folder: Folder,
        sealed: mpsc::Receiver<E>,
        tasks: &Tasks,
        critical: &CriticalTasks,
    ) -> Self {
        let jobs: Arc<dyn Jobs> = Arc::new(Queue::new(config.concurrency, config.max_attempts));
        let (updates, steps) = mpsc::channel(UPDATES);
        let worker = Arc::new(Worker::start(config, script, jobs.clone(), updates, tasks));
        // It ends when the worker does.
        let (alive, notes) = (critical.part("the hook queue"), Notes::new(catalog.clone()));
        tasks.spawn("hook notes", async move {
            let _alive = alive;
            notes.keep(steps).await;
        });
        let (settled, asked) = mpsc::channel(1);
        let hooks = Self { catalog, folder, jobs, worker, tasks: tasks.clone(), settled };
        let (submitter, changes) = (hooks.clone(), hooks.catalog.changes());
        // Read now, not by the task: what is repaired meanwhile is announced, and must not be due as well.
        let due = hooks.catalog.hooks_due();
        let (alive, stop) = (critical.part("the hook submitter"), tasks.stop_token());
        tasks.spawn("hook submitter", async move {
            let _alive = alive;
            tokio::select! {
                () = submitter.submit(due, sealed, changes, asked) => {}
                () = stop.cancelled() => {}
            }
        });
        hooks
    }

    async fn submit<E: Into<Manifest>>(
        &self,
        due: Vec<Manifest>,
        mut sealed: mpsc::Receiver<E>,
        mut changes: broadcast::Receiver<Change>,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        // Nothing is started before this: what runs now was left by the last server.
        let processes = if due.is_empty() { HashMap::new() } else { orphans::scan().await };
        for manifest in due {
            self.jobs.push(Job::left(&manifest, &self.folder, &processes)).await;
        }
        loop {
            tokio::select! {
                // What is sealed goes first: the answer says that nothing is left.
                biased;
                event = sealed.recv() => match event {
                    Some(event) => self.jobs.push(Job::new(&event.into(), &self.folder)).await,
                    None => return,
                },
                Some(done) = asked.recv() => drop(done.send(())),
                id = deleted(&mut changes) => self.jobs.withdraw(&id).await,
            }
        }
    }

    /// Has a recording's hook run again, with all of its attempts anew; one that waits for a retry runs now. It goes
    /// on if the caller gives up: what the manifest says is due must not wait for the next start.
    pub async fn replay(&self, id: &RecordingId) -> Result<(), ReplayError> {
        let (hooks, id) = (self.clone(), id.clone());
        let replayed = self.tasks.spawn("hook replay", async move { hooks.begin_anew(&id).await });
        replayed.await.map_err(|error| RecordingError::Io(io::Error::other(error)))?
    }

    async fn begin_anew(&self, id: &RecordingId) -> Result<(), ReplayError> {
        loop {
            let Record { mut manifest, revision } =
                self.catalog.get(id).ok_or_else(|| RecordingError::NotFound(id.to_string()))?;
            if manifest.hook.state.is_due() {
                self.jobs.retry_now(id).await;
                return Ok(());
            }
            if self.jobs.is_full() {
                return Err(ReplayError::QueueFull);
            }
            manifest.hook.begin_anew();
            let job = Job { replayed: true, ..Job::new(&manifest, &self.folder) };
            // Of two requests at the same time one finds it due.
            if self.catalog.put(manifest, revision).await?.is_some() {
                self.jobs.push(job).await;
                return Ok(());
            }
        }
    }

    /// Whether the queue takes no more at present; what is sealed meanwhile waits in its manifest.
    pub fn is_full(&self) -> bool {
        self.jobs.is_full()
    }

    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let Depths { waiting, running, retrying, oldest } = self.jobs.depths();
        let help =
            "Recordings whose hook is to run: waiting for its turn, running, waiting to be tried again";
        let values =
            [("waiting", waiting as u64), ("running", running as u64), ("retrying", retrying as u64)];
        scrape.gauges("hook_queue", help, "state", values);
        let help = "How long the hook has waited that waits the longest for its first attempt";
        let age = oldest.map_or(0.0, |came| came.elapsed().as_secs_f64());
        scrape.fraction("hook_oldest_waiting_seconds", help, age);
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
        self.worker.drain(deadline.saturating_duration_since(Instant::now())).await;
    }
}

/// The next recording whose file was removed: its hook has nothing to work on. One that is missed among
/// many changes is tried as often as any other.
async fn deleted(changes: &mut broadcast::Receiver<Change>) -> RecordingId {
    loop {
        match changes.recv().await {
            Ok(Change { what: What::Deleted, manifest }) => return manifest.id,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract::manifest;
    use crate::catalog::files::FileCatalog;
    use crate::catalog::{HookRecord, HookState, RecordingState};
    use crate::disk::space::Space;
    use crate::disk::worker::Disk;
    use crate::hook::tests::write_script;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_replay_whose_caller_has_gone_runs_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), 0o640, Arc::new(Space::open(dir.path(), 0)));
        let catalog: Arc<dyn Catalog> = Arc::new(FileCatalog::load(folder.clone(), Disk::default()).unwrap());
        let hook = HookRecord::new(HookState::Done);
        let recording = Manifest { hook, ..manifest(1000, RecordingState::Sealed) };
        let id = recording.id.clone();
        std::fs::write(dir.path().join(&recording.file), "media").unwrap();
        catalog.insert(recording).await.unwrap();
        let (script, ran) = (dir.path().join("hook"), dir.path().join("ran"));
        write_script(&script, &format!("#!/bin/sh\necho > '{}'\n", ran.display()));
        let (_sealed, receiver) = mpsc::channel::<Manifest>(1);
        let (tasks, critical) = (Tasks::new(), CriticalTasks::default());
        let config = Config::default();
        let hooks = Hooks::start(&config, Script::new(script), catalog, folder, receiver, &tasks, &critical);
        // The manifest is on its way to the disk when the caller gives up.
        assert!(hooks.replay(&id).now_or_never().is_none());
        let deadline = Instant::now() + Duration::from_secs(45);
        while !ran.exists() {
            assert!(Instant::now() < deadline, "the hook did not run");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(tasks.stop(Duration::from_secs(45)).await);
    }
}
