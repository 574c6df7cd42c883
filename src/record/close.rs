//! The end of a file: sealed, kept in the catalogue, announced; or nothing left behind.

use crate::base::id::RecordingId;
use crate::base::metrics::metrics;
use crate::base::reason::EndReason;
use crate::record::file::is_full;
use crate::record::manifest::Manifest;
use crate::record::take::{Opening, Take};
use crate::record::{Event, Progress, Shared};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// How far a recording has come.
pub(super) enum Stage {
    /// No frame that can begin a file.
    Waiting(RecordingId),
    /// The first frame is there, the manifest is on its way to the disk, the file is not yet created.
    Opening(Opening, Option<oneshot::Receiver<io::Result<()>>>),
    /// Writing.
    Writing(Box<Take>),
    /// The file is in other hands: being written, or lost with a thread that died.
    Nothing,
}

/// What ended a recording.
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
    pub previous: Option<oneshot::Receiver<()>>,
}

impl Closing {
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
            Stage::Writing(take) if !take.recorded() => {
                let id = take.manifest.id.clone();
                let _ = self.shared.disk.write(move || take.discard()).await;
                self.forget(&id).await;
                failed(&end)
            }
            Stage::Writing(take) => self.seal(*take, end).await,
            Stage::Nothing => failed(&end),
        }
    }

    /// Removes the manifest of a recording that holds nothing.
    pub async fn forget(&self, id: &RecordingId) {
        let (catalog, id) = (self.shared.catalog.clone(), id.clone());
        if let Ok(Err(error)) = self.shared.disk.sync(move || catalog.remove(&id)).await {
            tracing::warn!(%error, "a manifest without a recording stays");
        }
    }

    async fn seal(&self, mut take: Take, mut end: End) -> Progress {
        let id = take.manifest.id.clone();
        if let Some(sync) = take.sync.take()
            && let Err(error) = sync.await.map_err(io::Error::other).flatten()
        {
            end.reason = end_of(&error);
        }
        let (reason, lost) = (end.reason, self.lost.clone());
        self.finish(&id, end, move || take.seal(reason, &lost)).await
    }

    /// Does what makes a file whole, keeps the manifest that comes of it, and says so.
    pub async fn finish(
        &self,
        id: &RecordingId,
        end: End,
        seal: impl FnOnce() -> io::Result<Manifest> + Send + 'static,
    ) -> Progress {
        let kept = match self.shared.disk.sync(seal).await.flatten() {
            Ok(manifest) => self.keep(manifest).await,
            Err(error) => Err(error.into()),
        };
        match kept {
            Ok(manifest) => {
                let (bytes, duration_ms, reason) =
                    (manifest.bytes, manifest.duration_ms, end.reason.as_str());
                tracing::info!(%id, file = manifest.file, bytes, duration_ms, reason, "sealed");
                Progress::Sealed(Box::new(manifest))
            }
            Err(error) => {
                tracing::error!(%id, %error, "a recording could not be sealed; it is kept for repair");
                failed(&End { error: Some(io::Error::other(error)), ..end })
            }
        }
    }

    /// Makes the manifest durable, with the hook's job in it (S5).
    pub async fn keep(&self, sealed: Manifest) -> Result<Manifest, crate::record::Error> {
        let hook = self.shared.hook_state();
        let id = sealed.id.clone();
        let write = move |manifest: &mut Manifest| {
            *manifest = sealed;
            manifest.hook.state = hook;
            Ok(())
        };
        self.shared.catalog.update(&id, write, |_, _| Ok(())).await
    }

    /// Announces a sealed file, after those before it on its stream.
    pub async fn tell(self, outcome: Progress) {
        count(&outcome);
        if let Some(previous) = self.previous {
            // An error means that its task is gone, and with it what there was to wait for.
            let _ = previous.await;
        }
        if let Progress::Sealed(manifest) = outcome {
            // Waits while the receiver is far behind; if it is gone, the manifest still says `queued`.
            let _ = self.shared.events.send(Event::Sealed(manifest)).await;
        }
    }
}

fn count(outcome: &Progress) {
    let counts = &metrics().recordings;
    match outcome {
        Progress::Sealed(manifest) => {
            let reason = manifest.end_reason.unwrap_or(EndReason::Stopped);
            counts.sealed.inc([reason.as_str()]);
        }
        Progress::Failed { code, .. } => counts.failed.inc([code]),
        Progress::Empty(_) => drop(counts.empty.inc()),
        Progress::Waiting | Progress::Writing => {}
    }
}

/// What an error makes of a recording.
pub(super) fn end_of(error: &io::Error) -> EndReason {
    if is_full(error) { EndReason::DiskFull } else { EndReason::WriteError }
}

pub(super) fn failed(end: &End) -> Progress {
    let full = end.error.as_ref().is_some_and(is_full) || end.reason == EndReason::DiskFull;
    let (code, message) = if full {
        ("disk_full", "the server's disk is full: free some space under record.dir, then start again")
    } else {
        ("write_error", "the server could not write the recording: its log says why")
    };
    Progress::Failed { code, message: message.to_owned() }
}
