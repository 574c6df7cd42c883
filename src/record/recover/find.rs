//! What the last run left unfinished, found in the folder.

use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, StreamName};
use crate::catalog::Catalog;
use crate::catalog::files::FileCatalog;
use crate::catalog::folder::manifest_name;
use crate::catalog::manifest::{HookRecord, HookState, Manifest, RecordingState};
use crate::catalog::names;
use crate::catalog::names::PART;
use crate::container::webm::{MAX_HEAD, Origin};
use crate::record::writer::to_millis;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A listed quarantine reason for a manifest without any file.
pub(super) const NEVER_WRITTEN: &str = "no media: the server ended before the first frames were written";

#[derive(Clone, Debug)]
pub(in crate::record) struct Leftover {
    pub(super) manifest: Manifest,
    /// The manifest is not in the catalogue yet.
    pub(super) new: bool,
    /// Where the file is now; `None` if there is none.
    pub(super) path: Option<PathBuf>,
    /// It goes to quarantine as it is.
    pub(super) quarantine: Option<&'static str>,
    /// What ended it.
    pub(super) reason: EndReason,
}

impl Leftover {
    pub(super) fn of(manifest: Manifest, path: Option<PathBuf>, quarantine: Option<&'static str>) -> Self {
        Self { manifest, new: false, path, quarantine, reason: EndReason::ServerCrashed }
    }
}

/// Looks through a folder that nothing is recorded in yet. Blocking.
pub(in crate::record) fn find(dir: &Path, catalog: &FileCatalog) -> io::Result<Vec<Leftover>> {
    let all = catalog.page(None, usize::MAX, &|_| true).into_iter().rev();
    let mut known: HashMap<String, Manifest> =
        all.map(|manifest| (manifest.file.clone(), manifest)).collect();
    let (mut found, mut media) = (Vec::new(), Vec::new());
    let mut existing = Existing::of(known.values());
    let manifests = existing.manifests.clone();
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
            (None, _) if !part && existing.follow(dir, catalog, file)? => continue,
            _ => existing.adopt(dir, &name, file, taken || state.is_some())?,
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
struct Existing {
    /// What no new manifest may be called.
    manifests: HashSet<String>,
    ids: HashSet<RecordingId>,
    /// By these a file is known under another name, too.
    sealed: Vec<Manifest>,
}

impl Existing {
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

    /// Whether a file is a known one under another name: its manifest goes along, and all that
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
        let quarantine = taken.then_some("a complete recording has its name");
        Ok(Leftover { new: true, ..Leftover::of(manifest, Some(path), quarantine) })
    }
}

/// What a file's first bytes say of where it comes from; nothing if they can't be read, as when another
/// user owns it.
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
