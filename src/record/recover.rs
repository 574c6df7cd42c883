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

use crate::base::id::{RecordingId, StreamName};
use crate::base::metrics::metrics;
use crate::base::reason::EndReason;
use crate::media::{GapReason, Kind};
use crate::record::catalog::{Catalog, QUARANTINE, manifest_name};
use crate::record::file::{PART, sync_dir};
use crate::record::manifest::{
    HookRecord, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState, cut_gaps,
};
use crate::record::repair::{RepairError, Repaired, look, seal_part};
use crate::record::space::Space;
use crate::record::{Error, Event, Shared, names};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio_util::sync::CancellationToken;

/// A file at least this large is worth telling how far its repair is.
const LARGE: u64 = 256 << 20;
/// How often.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A listed quarantine reason for a manifest without any file.
const NEVER_WRITTEN: &str = "no media: the server ended before the first frames were written";

/// Something the last run left.
#[derive(Clone, Debug)]
pub(super) struct Leftover {
    manifest: Manifest,
    /// The manifest is not in the catalogue yet.
    new: bool,
    /// Where the file is now; `None` if there is none.
    path: Option<PathBuf>,
    /// It goes to quarantine as it is.
    why_not: Option<&'static str>,
}

/// Looks through a folder that nothing is recorded in yet. Blocking.
pub(super) fn find(dir: &Path, catalog: &Catalog) -> io::Result<Vec<Leftover>> {
    let mut known: HashMap<String, Manifest> =
        catalog.all().into_iter().map(|manifest| (manifest.file.clone(), manifest)).collect();
    let (mut found, mut media) = (Vec::new(), Vec::new());
    let mut used = Used {
        manifests: known.keys().map(|file| manifest_name(file)).collect(),
        ids: known.values().map(|manifest| manifest.id.clone()).collect(),
    };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if names::is_plain(&name) && entry.file_type()?.is_file() {
            media.push(name);
        }
    }
    // Final files before parts: `a.webm` stands before `a.webm.part`.
    media.sort();
    let mut finals = Vec::new();
    for name in media {
        let (file, part) = match name.strip_suffix(PART) {
            Some(file) => (file, true),
            None => (name.as_str(), false),
        };
        if !part && !is_media(file) || !names::is_plain(file) {
            continue;
        }
        if !part {
            finals.push(file.to_owned());
        }
        let manifest = known.get(file).cloned();
        let state = manifest.as_ref().map(|manifest| manifest.state);
        let taken = part && finals.iter().any(|other| other == file);
        let path = Some(dir.join(&name));
        let left = match (state, manifest) {
            (Some(RecordingState::Recording), Some(manifest)) if !taken => {
                known.remove(file);
                Leftover { manifest, new: false, path, why_not: None }
            }
            (Some(RecordingState::Quarantined), Some(manifest)) if !taken => {
                Leftover { manifest, new: false, path, why_not: Some("") }
            }
            (Some(_), _) if !part => continue,
            (None, _) if !taken => used.adopt(dir, &name, file, false)?,
            _ => used.adopt(dir, &name, file, true)?,
        };
        found.push(left);
    }
    for manifest in known.into_values().filter(|manifest| manifest.state == RecordingState::Recording) {
        let there = finals.contains(&manifest.file);
        if !there {
            found.push(Leftover { manifest, new: false, path: None, why_not: Some(NEVER_WRITTEN) });
        }
    }
    found.sort_by(|a, b| a.manifest.id.cmp(&b.manifest.id));
    Ok(found)
}

fn is_media(file: &str) -> bool {
    [".webm", ".mkv", ".mp4"].iter().any(|suffix| file.ends_with(suffix))
}

/// What no new manifest may be called.
struct Used {
    manifests: HashSet<String>,
    ids: HashSet<RecordingId>,
}

impl Used {
    /// Makes a manifest for a file that none speaks of. One whose name is `taken` by a recording that is
    /// complete is not repaired: it would have to replace something.
    fn adopt(&mut self, dir: &Path, name: &str, file: &str, taken: bool) -> io::Result<Leftover> {
        let path = dir.join(name);
        let modified = Timestamp::try_from(fs::metadata(&path)?.modified()?).map_err(io::Error::other)?;
        let parts = names::parts_of(file);
        let started_at = parts.as_ref().map_or(modified, |(_, start)| *start);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let named = || stem.parse().or_else(|_| "recovered".parse());
        let stream: StreamName =
            parts.map_or_else(named, |(stream, _)| Ok(stream)).map_err(io::Error::other)?;
        let id = names::id_of(file).filter(|id| !taken && !self.ids.contains(id));
        let id = id.unwrap_or_else(|| RecordingId::new(started_at));
        let usable = is_media(file) && !taken && !self.manifests.contains(&manifest_name(file));
        let suffix = ["mkv", "mp4"].into_iter().find(|suffix| file.ends_with(suffix)).unwrap_or("webm");
        let fresh = || format!("{}.{suffix}", names::stem(&stream, started_at, &id));
        let file = if usable { file.to_owned() } else { fresh() };
        self.manifests.insert(manifest_name(&file));
        self.ids.insert(id.clone());
        let manifest = bare(id, stream, file, started_at);
        let why_not = taken.then_some("a complete recording has its name");
        Ok(Leftover { manifest, new: true, path: Some(path), why_not })
    }
}

fn bare(id: RecordingId, stream: StreamName, file: String, started_at: Timestamp) -> Manifest {
    Manifest {
        id,
        stream,
        mime: match file.rsplit_once('.') {
            Some((_, "mkv")) => "video/x-matroska",
            Some((_, "mp4")) => "video/mp4",
            _ => "video/webm",
        }
        .to_owned(),
        file,
        state: RecordingState::Recording,
        started_at,
        ended_at: None,
        bytes: 0,
        duration_ms: 0,
        file_present: true,
        continues: None,
        tracks: Vec::new(),
        gaps: Vec::new(),
        end_reason: None,
        reason: None,
        hook: HookRecord::new(HookState::None),
    }
}

/// Brings all of them to their end, unless told to stop; the next start goes on then.
pub(super) async fn run(shared: Arc<Shared>, leftovers: Vec<Leftover>) {
    let stop = shared.tasks.stop_token();
    let all = leftovers.len();
    for (done, leftover) in leftovers.into_iter().enumerate() {
        if stop.is_cancelled() {
            return;
        }
        let (id, file) = (leftover.manifest.id.clone(), leftover.manifest.file.clone());
        tracing::info!(%id, file, number = done + 1, of = all, "repairing what the last run left");
        let counts = &metrics().recordings;
        match one(&shared, leftover, &stop).await {
            Ok(Some(manifest)) => {
                counts.repaired.inc();
                counts.sealed.inc([EndReason::ServerCrashed.as_str()]);
                let (bytes, duration_ms) = (manifest.bytes, manifest.duration_ms);
                tracing::info!(%id, file, bytes, duration_ms, "repaired");
                tokio::select! {
                    // If nobody listens any more, the manifest still says `queued`.
                    _ = shared.events.send(Event::Sealed(Box::new(manifest))) => {}
                    () = stop.cancelled() => return,
                }
            }
            Ok(None) => drop(counts.quarantined.inc()),
            Err(Failed::Repair(RepairError::Stopped)) => return,
            Err(error) => {
                counts.repair_failed.inc();
                tracing::error!(%id, file, %error, "not repaired; the next start tries again");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Repair(#[from] RepairError),
    #[error(transparent)]
    Catalogue(#[from] Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Repairs one; `None` if it went to quarantine.
async fn one(
    shared: &Arc<Shared>,
    leftover: Leftover,
    stop: &CancellationToken,
) -> Result<Option<Manifest>, Failed> {
    let Leftover { manifest, new, path, why_not } = leftover;
    let id = manifest.id.clone();
    if new {
        let (catalog, dir, manifest) = (shared.catalog.clone(), shared.config.dir.clone(), manifest.clone());
        shared.disk.sync(move || adopt(&dir, &catalog, manifest)).await??;
    }
    let beyond = match (why_not, &path) {
        (Some(why), _) => why.to_owned(),
        (None, None) => NEVER_WRITTEN.to_owned(),
        (None, Some(path)) => {
            let (dir, file, path, stop) =
                (shared.config.dir.clone(), manifest.file.clone(), path.clone(), stop.clone());
            let space = shared.space.clone();
            let work = move || mend(&dir, &file, &path, space, &stop);
            match shared.disk.sync(work).await? {
                Ok(repaired) => return complete(shared, &id, repaired).await.map(Some),
                Err(RepairError::Beyond(why)) => why,
                Err(error) => return Err(error.into()),
            }
        }
    };
    tracing::error!(%id, file = manifest.file, why = beyond, "can't be repaired: it goes to quarantine");
    quarantine(shared, &id, path, beyond).await.map(|()| None)
}

/// Gives a file the manifest it lacks. One that could not be read is kept, in quarantine. Blocking.
fn adopt(dir: &Path, catalog: &Catalog, manifest: Manifest) -> io::Result<()> {
    let unread = manifest_name(&manifest.file);
    if dir.join(&unread).exists() {
        move_away(&dir.join(&unread), &dir.join(QUARANTINE), &unread)?;
    }
    catalog.adopt(manifest)
}

/// Makes a file whole, under its final name. Blocking.
fn mend(
    dir: &Path,
    file: &str,
    path: &Path,
    space: Arc<Space>,
    stop: &CancellationToken,
) -> Result<Repaired, RepairError> {
    let mut told = Instant::now();
    let mut watch = |done: u64, all: u64| {
        if all >= LARGE && told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let percent = done.min(all) * 100 / all;
            tracing::info!(file, percent, mib = all >> 20, "repairing");
        }
        !stop.is_cancelled()
    };
    let part = dir.join(format!("{file}{PART}"));
    if path.extension().is_none_or(|extension| extension != "part") {
        if let Some(whole) = look(path, &mut watch)? {
            fs::File::open(path)?.sync_all()?;
            fs::rename(path, dir.join(file))?;
            sync_dir(dir)?;
            return Ok(whole);
        }
        // What is not whole has no business under a final name (S1).
        fs::rename(path, &part)?;
        sync_dir(dir)?;
    } else if path != part {
        fs::rename(path, &part)?;
    }
    seal_part(dir, file, space, &mut watch)
}

async fn complete(shared: &Arc<Shared>, id: &RecordingId, repaired: Repaired) -> Result<Manifest, Failed> {
    let hook = shared.hook_state();
    let change = move |manifest: &mut Manifest| {
        describe(manifest, &repaired);
        manifest.hook.state = hook;
        Ok(())
    };
    Ok(shared.catalog.update(id, change, |_, _| Ok(())).await?)
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
        let place = if new { manifest.tracks.len() } else { track.number as usize };
        if let Some(entry) = place.checked_sub(1).and_then(|place| manifest.tracks.get_mut(place)) {
            entry.frames = track.frames;
            entry.width = track.size.map(|size| size.0);
            entry.height = track.size.map(|size| size.1);
            listed[index] = Some(place);
        }
    }
    let video = repaired.tracks.iter().any(|track| track.kind == Some(Kind::Video));
    if new && !video {
        manifest.mime = manifest.mime.replace("video/", "audio/");
    }
    manifest.lasted(repaired.duration);
    // What is noted may lie in what was cut off.
    cut_gaps(&mut manifest.gaps, manifest.duration_ms);
    let gap = |hole: &crate::webm::Hole| {
        let track = (*listed.get(hole.track)?)?;
        Some(ManifestGap { track, from_ms: hole.from, to_ms: hole.to, reason: GapReason::Damage })
    };
    // As many as a recording lists at most.
    manifest.gaps.extend(repaired.holes.iter().filter_map(gap).take(1000));
    manifest.state = RecordingState::Sealed;
    manifest.bytes = repaired.bytes;
    manifest.file_present = true;
    manifest.end_reason = Some(EndReason::ServerCrashed);
}

/// The manifest says so durably, then the file moves: should that be cut off, the next start moves it.
async fn quarantine(
    shared: &Arc<Shared>,
    id: &RecordingId,
    path: Option<PathBuf>,
    reason: String,
) -> Result<(), Failed> {
    let bytes = path.as_ref().and_then(|path| fs::metadata(path).ok()).map(|meta| meta.len());
    let change = move |manifest: &mut Manifest| {
        manifest.state = RecordingState::Quarantined;
        manifest.file_present = bytes.is_some();
        manifest.bytes = bytes.unwrap_or(0);
        manifest.end_reason.get_or_insert(EndReason::ServerCrashed);
        if !reason.is_empty() {
            manifest.reason = Some(reason);
        }
        Ok(())
    };
    let dir = shared.config.dir.clone();
    let away = move |_: &Catalog, before: &Manifest| match path {
        Some(path) => move_away(&path, &dir.join(QUARANTINE), &before.file),
        None => Ok(()),
    };
    shared.catalog.update(id, change, away).await?;
    Ok(())
}

/// Moves a file into a folder, which may have to be made, and never over another one.
fn move_away(path: &Path, folder: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut free = folder.join(name);
    for number in 1.. {
        if !free.try_exists()? {
            break;
        }
        free = folder.join(format!("{name}.{number}"));
    }
    fs::rename(path, free)?;
    sync_dir(folder)?;
    path.parent().map_or(Ok(()), sync_dir)
}
