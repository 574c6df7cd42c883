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
use crate::catalog::files::FileCatalog;
use crate::catalog::folder::manifest_name;
use crate::catalog::manifest::{
    HookRecord, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState, cut_gaps,
};
use crate::catalog::names;
use crate::catalog::names::{PART, QUARANTINE};
use crate::catalog::{Catalog, RecordingError};
use crate::container::webm::{MAX_HEAD, Origin};
use crate::disk::space::Space;
use crate::disk::{move_away, sync_dir};
use crate::media::{GapReason, Kind};
use crate::record::again::Again;
use crate::record::repair::{RepairError, Repaired, look, seal_part};
use crate::record::writer::to_millis;
use crate::record::{Event, Shared};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::io::Read;
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
    /// What ended it.
    reason: EndReason,
}

impl Leftover {
    fn of(manifest: Manifest, path: Option<PathBuf>, why_not: Option<&'static str>) -> Self {
        Self { manifest, new: false, path, why_not, reason: EndReason::ServerCrashed }
    }
}

/// Looks through a folder that nothing is recorded in yet. Blocking.
pub(super) fn find(dir: &Path, catalog: &FileCatalog) -> io::Result<Vec<Leftover>> {
    let all = catalog.page(None, usize::MAX, &|_| true).into_iter().rev();
    let mut known: HashMap<String, Manifest> =
        all.map(|manifest| (manifest.file.clone(), manifest)).collect();
    let (mut found, mut media) = (Vec::new(), Vec::new());
    let mut used = Used::of(known.values());
    let manifests = used.manifests.clone();
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
                Leftover::of(manifest, path, None)
            }
            (Some(RecordingState::Quarantined), Some(manifest)) if !taken => {
                Leftover::of(manifest, path, Some(""))
            }
            (Some(_), _) if !part => continue,
            // A recording's manifest stands beside it: a hook has made this of that recording.
            (None, _) if !part && manifests.contains(&manifest_name(file)) => continue,
            (None, _) if !part && used.follow(dir, catalog, file)? => continue,
            _ => used.adopt(dir, &name, file, taken || state.is_some())?,
        };
        found.push(left);
    }
    for manifest in known.into_values().filter(|manifest| manifest.state == RecordingState::Recording) {
        let there = finals.contains(&manifest.file);
        if !there {
            found.push(Leftover::of(manifest, None, Some(NEVER_WRITTEN)));
        }
    }
    found.sort_by(|a, b| a.manifest.id.cmp(&b.manifest.id));
    Ok(found)
}

fn is_media(file: &str) -> bool {
    [".webm", ".mkv", ".mp4"].iter().any(|suffix| file.ends_with(suffix))
}

/// What there is already.
struct Used {
    /// What no new manifest may be called.
    manifests: HashSet<String>,
    ids: HashSet<RecordingId>,
    /// By these a file is known under another name, too.
    sealed: Vec<Manifest>,
}

impl Used {
    fn of<'a>(known: impl Iterator<Item = &'a Manifest> + Clone) -> Self {
        Self {
            manifests: known.clone().map(|manifest| manifest_name(&manifest.file)).collect(),
            ids: known.clone().map(|manifest| manifest.id.clone()).collect(),
            sealed: known.filter(|manifest| manifest.state == RecordingState::Sealed).cloned().collect(),
        }
    }

    /// The recording that a file is of, under another name or once more: of the same size, and begun at the
    /// same time.
    fn twin(&mut self, origin: &Origin, bytes: u64) -> Option<&mut Manifest> {
        let began = Timestamp::from_nanosecond(origin.unix_nanos?).ok().map(to_millis)?;
        self.sealed.iter_mut().find(|known| origin.ours && known.bytes == bytes && known.started_at == began)
    }

    /// Whether a file is one that somebody has given another name: its manifest goes along, and all that
    /// it says.
    fn follow(&mut self, dir: &Path, catalog: &FileCatalog, file: &str) -> io::Result<bool> {
        let (path, free) = (dir.join(file), !self.manifests.contains(&manifest_name(file)));
        let Some(origin) = origin(&path).filter(|_| free) else { return Ok(false) };
        let Some(twin) = self.twin(&origin, fs::metadata(&path)?.len()) else { return Ok(false) };
        if dir.join(&twin.file).try_exists()? {
            return Ok(false);
        }
        tracing::info!(id = %twin.id, from = twin.file, to = file, "somebody has renamed a recording");
        if let Err(error) = catalog.follow(&twin.id, file) {
            tracing::error!(%error, file, "its manifest can't follow; the next start tries again");
        }
        file.clone_into(&mut twin.file);
        self.manifests.insert(manifest_name(file));
        Ok(true)
    }

    /// Makes a manifest for a file that none speaks of. One whose name is `taken` by a recording that is
    /// complete is not repaired: it would have to replace something.
    fn adopt(&mut self, dir: &Path, name: &str, file: &str, taken: bool) -> io::Result<Leftover> {
        let path = dir.join(name);
        let meta = fs::metadata(&path)?;
        let modified = Timestamp::try_from(meta.modified()?).map_err(io::Error::other)?;
        let origin = origin(&path).filter(|origin| origin.ours);
        let told = origin.as_ref().and_then(|origin| origin.title.as_deref());
        let date = origin.as_ref().and_then(|origin| Timestamp::from_nanosecond(origin.unix_nanos?).ok());
        let started_at = names::parts_of(file).map(|(_, start)| start).or(date).unwrap_or(modified);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        // A copy of a file that tells no name is its original's stream's.
        let twin =
            origin.as_ref().filter(|_| told.is_none()).and_then(|origin| self.twin(origin, meta.len()));
        let stream = twin.map(|twin| twin.stream.clone()).or_else(|| names::stream_of(file, told));
        let stream: StreamName = match stream {
            Some(stream) => stream,
            None => stem.parse().or_else(|_| "recovered".parse()).map_err(io::Error::other)?,
        };
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
        Ok(Leftover { new: true, ..Leftover::of(manifest, Some(path), why_not) })
    }
}

/// What a file's first bytes say of where it comes from; nothing if they can't be read, as when somebody
/// else owns it.
fn origin(path: &Path) -> Option<Origin> {
    let mut head = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_HEAD as u64).read_to_end(&mut head)).ok()?;
    Origin::find(&head)
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
        error: None,
        hook: HookRecord::new(HookState::None),
    }
}

/// Brings all of them to their end, unless told to stop; the next start goes on then. One that the disk
/// refuses holds up no other: it is tried again behind them, with growing pauses.
pub(super) async fn run(shared: Arc<Shared>, mut leftovers: Vec<Leftover>) {
    let mut again = Again::default();
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
        if refused.is_empty() || !again.pause(&shared).await {
            return;
        }
        leftovers = refused;
    }
}

/// Brings one to its end, and says so.
async fn settle(shared: &Arc<Shared>, leftover: &mut Leftover) -> Result<(), Failed> {
    let (counts, stop) = (&metrics().recordings, shared.tasks.stop_token());
    let Some(manifest) = one(shared, leftover, &stop).await? else {
        counts.quarantined.inc();
        return Ok(());
    };
    counts.repaired.inc();
    counts.sealed.inc([EndReason::ServerCrashed.as_str()]);
    let Manifest { id, file, bytes, duration_ms, .. } = &manifest;
    tracing::info!(%id, file, bytes, duration_ms, "repaired");
    tokio::select! {
        // If nobody listens any more, the manifest still says `queued`.
        _ = shared.events.send(Event::Sealed(Box::new(manifest))) => Ok(()),
        () = stop.cancelled() => Err(RepairError::Stopped.into()),
    }
}

/// Makes whole what somebody else has left of a file that was just being recorded; `None` if it went to
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
    one(shared, &mut leftover, &shared.tasks.stop_token()).await
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
async fn one(
    shared: &Arc<Shared>,
    leftover: &mut Leftover,
    stop: &CancellationToken,
) -> Result<Option<Manifest>, Failed> {
    if leftover.new {
        let (files, manifest) = (shared.files.clone(), leftover.manifest.clone());
        shared.disk.sync(move || files.adopt(manifest)).await??;
        leftover.new = false;
    }
    let Leftover { manifest, path, why_not, reason, .. } = &*leftover;
    let (id, reason) = (manifest.id.clone(), *reason);
    let beyond = match (why_not, path) {
        (Some(why), _) => (*why).to_owned(),
        (None, None) => NEVER_WRITTEN.to_owned(),
        (None, Some(path)) => {
            let (dir, file, path, stop) =
                (shared.config.dir.clone(), manifest.file.clone(), path.clone(), stop.clone());
            let space = shared.space.clone();
            let work = move || mend(&dir, &file, &path, space, &stop);
            match shared.disk.sync(work).await? {
                Ok(repaired) => return complete(shared, &id, repaired, reason).await.map(Some),
                Err(RepairError::Unrepairable(why)) => why,
                Err(error) => return Err(error.into()),
            }
        }
    };
    tracing::error!(%id, file = manifest.file, why = beyond, "can't be repaired: it goes to quarantine");
    quarantine(shared, &id, path.clone(), beyond, reason).await.map(|()| None)
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
    let whole = dir.join(file);
    // An attempt that was cut off may have moved it on.
    let mut there = None;
    for place in [path, &part, &whole] {
        if there.is_none() && place.try_exists()? {
            there = Some(place);
        }
    }
    let path = there.ok_or_else(|| RepairError::Unrepairable("somebody removed it".to_owned()))?;
    if path.extension().is_none_or(|extension| extension != "part") {
        if let Some(found) = look(path, &mut watch)? {
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
    seal_part(dir, file, space, &mut watch)
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
    let dir = shared.config.dir.clone();
    let away = move || match path.filter(|path| path.exists()) {
        Some(path) => move_away(&path, &dir.join(QUARANTINE), &manifest.file),
        None => sync_dir(&dir),
    };
    Ok(shared.disk.sync(away).await??)
}
