//! What hooks do, written into the manifests in its order.

use crate::base::id::RecordingId;
use crate::catalog::{Catalog, HookAttempt, HookRecord, HookRunning, HookState, Manifest, RecordingError};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// When what could not be written into manifests is tried again.
const OWED_PAUSE: Duration = Duration::from_secs(5);
/// Recordings for which that is kept. Beyond it what their hooks did is lost, and they run again after
/// the next start.
const OWED_MAX: usize = 1024;

/// One step of a job, as its manifest has it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Where the hook stands now.
    pub state: HookState,
    /// The attempt that has just ended.
    pub attempt: Option<HookAttempt>,
    /// The attempt that runs, so that the next start can end a survivor of a crash before it tries again.
    pub running: Option<HookRunning>,
}

impl Step {
    pub fn begin(n: u32, at: Timestamp) -> Self {
        Self::running(HookRunning::new(n, at))
    }

    pub fn running(running: HookRunning) -> Self {
        Self { state: HookState::Running, attempt: None, running: Some(running) }
    }

    pub fn over(state: HookState, attempt: Option<HookAttempt>) -> Self {
        Self { state, attempt, running: None }
    }

    fn apply(&self, hook: &mut HookRecord) {
        hook.state = self.state;
        hook.running.clone_from(&self.running);
        hook.attempts.extend(self.attempt.clone());
    }
}

/// A step that is to be written.
#[derive(Debug)]
pub(super) struct Update {
    pub id: RecordingId,
    pub step: Step,
    /// Told when it is durable. Dropped, it says that it could not be written.
    pub written: oneshot::Sender<()>,
}

/// Writes the steps.
pub(super) struct Notes {
    catalog: Arc<dyn Catalog>,
    /// What could not be written, in its order.
    owed: HashMap<RecordingId, Vec<Step>>,
}

impl Notes {
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog, owed: HashMap::new() }
    }

    /// Until nothing sends updates any more.
    pub async fn keep(mut self, mut updates: mpsc::Receiver<Update>) {
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                () = sleep(OWED_PAUSE), if !self.owed.is_empty() => {
                    self.settle().await;
                    continue;
                }
            };
            let Some(Update { id, step, written }) = update else { break };
            match self.note(id.clone(), step).await {
                // Few updates are waited for.
                Ok(()) => drop(written.send(())),
                Err(error) => {
                    tracing::error!(recording = %id, %error, "what the hook did can't be written into the manifest");
                }
            }
        }
        self.settle().await;
    }

    async fn note(&mut self, id: RecordingId, step: Step) -> Result<(), RecordingError> {
        let mut steps = self.owed.remove(&id).unwrap_or_default();
        // Of what runs only the newest step counts.
        steps.retain(|step| step.attempt.is_some());
        steps.push(step);
        let written = self.write(&id, &steps).await;
        if written.is_err() && self.owed.len() < OWED_MAX {
            self.owed.insert(id, steps);
        }
        written
    }

    /// Tries what is owed again.
    async fn settle(&mut self) {
        for id in self.owed.keys().cloned().collect::<Vec<_>>() {
            let Some(steps) = self.owed.get(&id) else { continue };
            // A disk that is full for one is full for all.
            let Ok(()) = self.write(&id, steps).await else { return };
            tracing::info!(recording = %id, "the manifest says what the hook did");
            self.owed.remove(&id);
        }
    }

    /// A recording that is gone has nothing to be written for.
    async fn write(&self, id: &RecordingId, steps: &[Step]) -> Result<(), RecordingError> {
        let apply = |manifest: &mut Manifest| {
            steps.iter().for_each(|step| step.apply(&mut manifest.hook));
            Ok(())
        };
        match self.catalog.update(id, apply).await {
            Ok(_) | Err(RecordingError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
