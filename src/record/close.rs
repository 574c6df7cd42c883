//! The end of a file: sealed, kept in the catalogue, announced; or nothing left behind.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::RecordingId;
use crate::base::metrics::metrics;
use crate::catalog::RecordingError;
use crate::catalog::manifest::Manifest;
use crate::disk::space::is_full;
use crate::record::backoff::Backoff;
use crate::record::file::is_changed;
use crate::record::writer::{FileWriter, Note, Opening};
use crate::record::{Event, Progress, Shared, recover};
use std::io;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// How far a recording has come.
pub(super) enum Stage {
    /// No frame that can begin a file.
    Waiting(RecordingId),
    /// The first frame is there, the manifest is on its way to the disk, the file is not yet created.
    Opening(Opening, Option<oneshot::Receiver<io::Result<()>>>),
    Writing(Box<FileWriter>),
    /// The file is in other hands: being written, or lost with a thread that died.
    Nothing,
}

pub(super) struct End {
    pub reason: EndReason,
    pub error: Option<io::Error>,
}

/// What closing a file needs of its recorder.
pub(super) struct Closing {
    pub shared: Arc<Shared>,
    /// Packets of each track that never came.
    pub lost: Vec<u64>,
    /// The file before this one, while it is being sealed.
    pub previous: Option<oneshot::Receiver<Option<Box<Manifest>>>>,
    /// Shows the end of the recording; `None` for a file before its last.
    pub progress: Option<watch::Sender<Progress>>,
}

impl Closing {
    /// Says that a recording ends, before its file is closed.
    pub fn begin(&self, end: &End) {
        if let Some(error) = &end.error {
            tracing::error!(%error, reason = end.reason.as_str(), "recording ends early");
        }
        if end.reason == EndReason::DiskFull {
            self.shared.space.ended_full();
        }
    }

    /// Ends a recording at whatever stage it is, and says what came of it.
    pub async fn close(&self, stage: Stage, end: End) -> Progress {
        match stage {
            Stage::Waiting(_) => {
                tracing::info!(reason = end.reason.as_str(), "nothing to record");
                Progress::Empty(end.reason)
            }
            Stage::Opening(opening, manifest) => {
                if let Some(written) = manifest {
                    let _ = written.await;
                }
                self.forget(&opening.id).await;
                failed(&end)
            }
            Stage::Writing(writer) if !writer.recorded() => {
                let id = writer.manifest.id.clone();
                let _ = self.shared.disk.write(move || writer.discard()).await;
                self.forget(&id).await;
                failed(&end)
            }
            Stage::Writing(writer) => self.seal(*writer, end).await,
            Stage::Nothing => failed(&end),
        }
    }

    /// Removes the manifest of a recording that holds nothing.
    pub async fn forget(&self, id: &RecordingId) {
        if let Err(error) = self.shared.catalog.remove(id).await {
            tracing::warn!(%error, "a manifest without a recording stays");
        }
    }

    async fn seal(&self, mut writer: FileWriter, mut end: End) -> Progress {
        let id = writer.manifest.id.clone();
        if let Err(error) = writer.await_sync().await {
            end.reason = end_of(&error);
        }
        let (reason, lost) = (end.reason, self.lost.clone());
        let note = writer.note(&lost);
        self.finish(&id, end, note, move || writer.seal(reason, &lost)).await
    }

    /// Does what makes a file whole, keeps the manifest that comes of it, and says so. What fails is tried
    /// again with growing pauses, until the server stops. Should the file have to be repaired, the note
    /// says what is missing in it.
    pub async fn finish(
        &self,
        id: &RecordingId,
        end: End,
        note: Option<Note>,
        seal: impl FnMut() -> io::Result<Manifest> + Send + 'static,
    ) -> Progress {
        match self.insist(id, end.reason, note, seal).await {
            Ok(manifest) => {
                let (bytes, duration_ms, reason) =
                    (manifest.bytes, manifest.duration_ms, end.reason.as_str());
                tracing::info!(%id, file = manifest.file, bytes, duration_ms, reason, "sealed");
                Progress::Sealed(Box::new(manifest))
            }
            Err(error) => {
                tracing::error!(%id, %error, "a recording could not be sealed; it is kept for repair");
                failed(&End { error: Some(error), ..end })
            }
        }
    }

    async fn insist(
        &self,
        id: &RecordingId,
        reason: EndReason,
        note: Option<Note>,
        mut seal: impl FnMut() -> io::Result<Manifest> + Send + 'static,
    ) -> io::Result<Manifest> {
        let mut backoff = Backoff::default();
        let sealed = loop {
            let work = move || (seal(), seal);
            let (done, back) = self.shared.disk.sync(work).await?;
            seal = back;
            match done {
                Ok(manifest) => break manifest,
                Err(error) if is_changed(&error) => {
                    // The file is let go of, for the repair to take it.
                    drop(seal);
                    if let Some(note) = note {
                        self.shared.note(note).await;
                    }
                    return self.repair(id, reason, error).await;
                }
                Err(error) => self.wait(id, error, &mut backoff).await?,
            }
        };
        // The file is let go of before it is announced: a hook may want to work on it.
        drop(seal);
        loop {
            match self.keep(sealed.clone()).await {
                Ok(manifest) => return Ok(manifest),
                Err(RecordingError::Io(error)) => self.wait(id, error, &mut backoff).await?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Makes whole what another process has left of a file.
    async fn repair(&self, id: &RecordingId, reason: EndReason, error: io::Error) -> io::Result<Manifest> {
        tracing::error!(%id, %error, "the file is not what was written: it is repaired");
        let mut backoff = Backoff::default();
        loop {
            match recover::changed(&self.shared, id, reason).await {
                Ok(Some(manifest)) => return Ok(manifest),
                Ok(None) => return Err(error),
                Err(failed) => self.wait(id, failed.into(), &mut backoff).await?,
            }
        }
    }

    /// Says what is wrong, and waits for the next attempt; gives the error back if there is none.
    async fn wait(&self, id: &RecordingId, error: io::Error, backoff: &mut Backoff) -> io::Result<()> {
        if let Some(progress) = &self.progress {
            progress.send_replace(Progress::Sealing(error.to_string()));
        }
        if backoff.after(&self.shared, id, &error).await { Ok(()) } else { Err(error) }
    }

    /// Makes the manifest durable, with the hook's job in it (S5).
    pub async fn keep(&self, sealed: Manifest) -> Result<Manifest, RecordingError> {
        let hook = self.shared.hook_state();
        let id = sealed.id.clone();
        let write = |manifest: &mut Manifest| {
            manifest.clone_from(&sealed);
            manifest.hook.state = hook;
            Ok(())
        };
        self.shared.catalog.update(&id, write).await
    }

    /// Says what came of a recording's last file. If nothing did, the file before is the last.
    pub async fn end(mut self, reason: EndReason, outcome: Progress) {
        if reason == EndReason::DiskFull {
            // Sealing gave back what was kept, which is not enough for another one.
            self.shared.space.ended_full();
        }
        let Some(progress) = self.progress.take() else { return };
        if matches!(outcome, Progress::Sealed(_)) {
            // The publisher first: it must not wait for a hook queue that is behind.
            progress.send_replace(outcome.clone());
            self.tell(outcome).await;
        } else {
            let before = self.tell(outcome.clone()).await;
            progress.send_replace(before.map_or(outcome, Progress::Sealed));
        }
    }

    /// Announces a sealed file, after those before it on its stream. Gives the newest of them all.
    pub async fn tell(self, outcome: Progress) -> Option<Box<Manifest>> {
        count(&outcome);
        let before = match self.previous {
            // An error means that its task is gone, and with it what there was to wait for.
            Some(previous) => previous.await.ok().flatten(),
            None => None,
        };
        let Progress::Sealed(manifest) = outcome else { return before };
        // Waits while the receiver is far behind; if it is gone, the manifest still says `queued`.
        let _ = self.shared.events.send(Event::Sealed(manifest.clone())).await;
        Some(manifest)
    }
}

fn count(outcome: &Progress) {
    let counts = &metrics().recordings;
    match outcome {
        Progress::Sealed(manifest) => {
            let reason = manifest.end_reason.unwrap_or(EndReason::Stopped);
            counts.sealed.inc([reason.as_str()]);
        }
        Progress::Failed { code, .. } => counts.failed.inc([code.as_str()]),
        Progress::Empty(_) => drop(counts.empty.inc()),
        Progress::Waiting | Progress::Writing | Progress::Sealing(_) => {}
    }
}

/// What an error makes of a recording.
pub(super) fn end_of(error: &io::Error) -> EndReason {
    if is_full(error) { EndReason::DiskFull } else { EndReason::WriteError }
}

pub(super) fn failed(end: &End) -> Progress {
    let full = end.error.as_ref().is_some_and(is_full) || end.reason == EndReason::DiskFull;
    let (code, message) = if full {
        (ErrorCode::DiskFull, "the server's disk is full: free some space under record.dir, then start again")
    } else {
        (ErrorCode::WriteError, "the server could not write the recording: its log says why")
    };
    Progress::Failed { code, message: message.to_owned() }
}
