//! What the last run left unfinished, brought to its end (S3).
//!
//! Every `.part`, and every final file whose manifest is missing or says `recording`, is made whole,
//! gets its manifest with `server_crashed`, and is announced like any other, so that its hook runs.
//! What can't be made whole moves to `quarantine/` byte for byte. Nothing is deleted.
//!
//! The list is made while the folder is opened, before anything new is recorded in it; the work is
//! done beside the running server, one file after the other, oldest first: reading a disk is not faster
//! twice at a time, and a stream's files are announced in their order. Each step can be cut off: the
//! next start finds the same file, or the next step's.

mod find;

pub(super) use find::{Leftover, find};

use crate::base::end_reason::EndReason;
use crate::base::id::RecordingId;
use crate::base::metrics::metrics;
use crate::catalog::manifest::{Manifest, ManifestGap, ManifestTrack, RecordingState, cut_gaps};
use crate::catalog::names::{PART, QUARANTINE};
use crate::catalog::{Record, RecordingError};
use crate::disk::space::Space;
use crate::disk::{move_away, sync_dir};
use crate::media::{GapReason, Kind};
use crate::record::backoff::Backoff;
use crate::record::repair::{RepairError, Repaired, look, seal_part};
use crate::record::{Event, Shared};
use find::NEVER_WRITTEN;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio_util::sync::CancellationToken;

/// A file at least this large is worth telling how far its repair is.
const LARGE: u64 = 256 << 20;
/// How often that is told.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Brings all of them to their end, unless told to stop; the next start goes on then. One that the disk
/// refuses holds up no other: it is tried again behind them, with growing pauses.
pub(super) async fn run(shared: Arc<Shared>, mut leftovers: Vec<Leftover>) {
    let mut backoff = Backoff::default();
    loop {
        let all = leftovers.len();
        let mut refused = Vec::new();
        for (done, mut leftover) in leftovers.into_iter().enumerate() {
            if shared.tasks.stop_token().is_cancelled() {
                return;
            }
            let (id, file) = (leftover.manifest.id.clone(), &leftover.manifest.file);
            tracing::info!(%id, file, number = done + 1, of = all, "repairing what the last run left");
            match settle(&shared, &mut leftover).await {
                Ok(()) => {}
                Err(Failed::Repair(RepairError::Stopped)) => return,
                Err(error) => {
                    metrics().recordings.repair_failed.inc();
                    shared.show_fault(&id, &error).await;
                    refused.push(leftover);
                }
            }
        }
        if refused.is_empty() || !backoff.pause(&shared).await {
            return;
        }
        leftovers = refused;
    }
}

/// Brings one to its end, and says so.
async fn settle(shared: &Arc<Shared>, leftover: &mut Leftover) -> Result<(), Failed> {
    let (counts, stop) = (&metrics().recordings, shared.tasks.stop_token());
    let Some(manifest) = finish(shared, leftover, &stop).await? else {
        counts.quarantined.inc();
        return Ok(());
    };
    counts.repaired.inc();
    counts.sealed.inc([EndReason::ServerCrashed.as_str()]);
    let Manifest { id, file, bytes, duration_ms, .. } = &manifest;
    tracing::info!(%id, file, bytes, duration_ms, "repaired");
    tokio::select! {
        // If the receiver is gone, the manifest still says `queued`.
        _ = shared.events.send(Event::Sealed(Box::new(manifest))) => Ok(()),
        () = stop.cancelled() => Err(RepairError::Stopped.into()),
    }
}

/// Makes whole what another process has left of a file that was just being recorded; `None` if it went to
/// quarantine.
pub(super) async fn changed(
    shared: &Arc<Shared>,
    id: &RecordingId,
    reason: EndReason,
) -> Result<Option<Manifest>, Failed> {
    let record = shared.catalog.get(id).ok_or_else(|| RecordingError::NotFound(id.to_string()))?;
    let manifest = record.manifest;
    let path = shared.config.dir.join(format!("{}{PART}", manifest.file));
    let mut leftover = Leftover { reason, ..Leftover::of(manifest, Some(path), None) };
    finish(shared, &mut leftover, &shared.tasks.stop_token()).await
}

/// Why one is not settled, though it can be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It could not be repaired now.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Its manifest could not be changed.
    #[error(transparent)]
    Catalogue(#[from] RecordingError),
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Io(error) | Failed::Repair(RepairError::Io(error)) => error,
            Failed::Catalogue(error) => error.into(),
            other => Self::other(other),
        }
    }
}

/// Repairs one; `None` if it went to quarantine.
async fn finish(
    shared: &Arc<Shared>,
    leftover: &mut Leftover,
    stop: &CancellationToken,
) -> Result<Option<Manifest>, Failed> {
    if leftover.new {
        let (files, manifest) = (shared.files.clone(), leftover.manifest.clone());
        shared.disk.sync(move || files.adopt(manifest)).await??;
        leftover.new = false;
    }
    let Leftover { manifest, path, quarantine: refused, reason, .. } = &*leftover;
    let (id, reason) = (manifest.id.clone(), *reason);
    let why = match (refused, path) {
        (Some(why), _) => (*why).to_owned(),
        (None, None) => NEVER_WRITTEN.to_owned(),
        (None, Some(path)) => {
            let (dir, file, path, stop) =
                (shared.config.dir.clone(), manifest.file.clone(), path.clone(), stop.clone());
            let space = shared.space.clone();
            let work = move || make_whole(&dir, &file, &path, space, &stop);
            match shared.disk.sync(work).await? {
                Ok(repaired) => return complete(shared, &id, repaired, reason).await.map(Some),
                Err(RepairError::Unrepairable(why)) => why,
                Err(error) => return Err(error.into()),
            }
        }
    };
    tracing::error!(%id, file = manifest.file, why, "can't be repaired: it goes to quarantine");
    quarantine(shared, &id, path.clone(), why, reason).await.map(|()| None)
}

/// Makes a file whole, under its final name. Blocking.
fn make_whole(
    dir: &Path,
    file: &str,
    path: &Path,
    space: Arc<Space>,
    stop: &CancellationToken,
) -> Result<Repaired, RepairError> {
    let mut told = Instant::now();
    let mut on_progress = |done: u64, all: u64| {
        if all >= LARGE && told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let percent = done.min(all) * 100 / all;
            tracing::info!(file, percent, mib = all >> 20, "repairing");
        }
        !stop.is_cancelled()
    };
    let part = dir.join(format!("{file}{PART}"));
    let whole = dir.join(file);
    // An attempt that was cut off may have moved it on.
    let mut there = None;
    for candidate in [path, &part, &whole] {
        if there.is_none() && candidate.try_exists()? {
            there = Some(candidate);
        }
    }
    let path = there.ok_or_else(|| RepairError::Unrepairable("somebody removed it".to_owned()))?;
    if path.extension().is_none_or(|extension| extension != "part") {
        if let Some(found) = look(path, &mut on_progress)? {
            fs::File::open(path)?.sync_all()?;
            fs::rename(path, &whole)?;
            sync_dir(dir)?;
            return Ok(found);
        }
        // What is not whole has no business under a final name (S1).
        fs::rename(path, &part)?;
        sync_dir(dir)?;
    } else if path != part {
        fs::rename(path, &part)?;
    }
    seal_part(dir, file, space, &mut on_progress)
}

async fn complete(
    shared: &Arc<Shared>,
    id: &RecordingId,
    repaired: Repaired,
    reason: EndReason,
) -> Result<Manifest, Failed> {
    let hook = shared.hook_state();
    let change = |manifest: &mut Manifest| {
        describe(manifest, &repaired);
        manifest.end_reason = Some(reason);
        manifest.hook.state = hook;
        Ok(())
    };
    Ok(shared.catalog.update(id, change).await?)
}

fn describe(manifest: &mut Manifest, repaired: &Repaired) {
    let new = manifest.tracks.is_empty();
    // Where each of the file's tracks is listed: by its number, or where it comes in a new list.
    let mut listed = vec![None; repaired.tracks.len()];
    for (index, track) in repaired.tracks.iter().enumerate() {
        let (Some(kind), Some(codec)) = (track.kind, track.codec()) else { continue };
        if new {
            manifest.tracks.push(ManifestTrack {
                kind,
                codec,
                frames: 0,
                width: None,
                height: None,
                lost: 0,
            });
        }
        let position = if new { manifest.tracks.len() } else { track.number as usize };
        if let Some(entry) = position.checked_sub(1).and_then(|position| manifest.tracks.get_mut(position)) {
            entry.frames = track.frames;
            entry.width = track.size.map(|size| size.0);
            entry.height = track.size.map(|size| size.1);
            listed[index] = Some(position);
        }
    }
    let video = repaired.tracks.iter().any(|track| track.kind == Some(Kind::Video));
    if new && !video {
        manifest.mime = manifest.mime.replace("video/", "audio/");
    }
    manifest.lasted(repaired.duration);
    // What is noted may lie in what was cut off.
    cut_gaps(&mut manifest.gaps, manifest.duration_ms);
    let gap = |hole: &crate::container::Hole| {
        let track = (*listed.get(hole.track)?)?;
        Some(ManifestGap { track, from_ms: hole.from, to_ms: hole.to, reason: GapReason::Damage })
    };
    // As many as a recording lists at most.
    manifest.gaps.extend(repaired.holes.iter().filter_map(gap).take(1000));
    manifest.state = RecordingState::Sealed;
    manifest.error = None;
    manifest.bytes = repaired.bytes;
    manifest.file_present = true;
}

/// The manifest says so durably, then the file moves: should that be cut off, the next start moves it.
async fn quarantine(
    shared: &Arc<Shared>,
    id: &RecordingId,
    path: Option<PathBuf>,
    why: String,
    reason: EndReason,
) -> Result<(), Failed> {
    let bytes = path.as_ref().and_then(|path| fs::metadata(path).ok()).map(|meta| meta.len());
    let change = |manifest: &mut Manifest| {
        // An attempt that was cut off may have moved the file already.
        if bytes.is_some() || manifest.state != RecordingState::Quarantined {
            manifest.file_present = bytes.is_some();
            manifest.bytes = bytes.unwrap_or(0);
        }
        manifest.state = RecordingState::Quarantined;
        manifest.error = None;
        manifest.end_reason.get_or_insert(reason);
        if !why.is_empty() {
            manifest.reason = Some(why.clone());
        }
        Ok(())
    };
    let manifest = shared.catalog.update(id, change).await?;
    let (dir, id, catalog, folder) =
        (shared.config.dir.clone(), id.clone(), shared.catalog.clone(), shared.folder.clone());
    let away = move || {
        match path.filter(|path| path.exists()) {
            Some(path) => move_away(&path, &dir.join(QUARANTINE), &manifest.file)?,
            None => sync_dir(&dir)?,
        }
        // It may have been deleted before the file was where a deletion looks for it.
        let is_deleted = |record: Record| record.manifest.state == RecordingState::Deleted;
        if catalog.get(&id).is_some_and(is_deleted) { folder.remove_file(&manifest) } else { Ok(()) }
    };
    Ok(shared.disk.sync(away).await??)
}
