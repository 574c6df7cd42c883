//! The catalogue: what the manifests say, kept in memory (S4).

use crate::base::id::RecordingId;
use crate::catalog::RecordingError;
use crate::catalog::changes::{CHANGES, Change};
use crate::catalog::manifest::{HookState, Manifest, ManifestGap, RecordingState};
use crate::catalog::names;
use crate::catalog::names::{QUARANTINE, is_temporary};
use crate::disk::space::Space;
use crate::disk::worker::Disk;
use crate::disk::{replace, sync_dir};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};
use tokio::sync::broadcast;

/// All manifests of one folder. What is on the disk changes first, what is in memory after it.
#[derive(Debug)]
pub(crate) struct Catalog {
    dir: PathBuf,
    mode: u32,
    disk: Disk,
    space: Arc<Space>,
    entries: Mutex<BTreeMap<RecordingId, Entry>>,
    /// The last id given out.
    last_id: Mutex<Option<RecordingId>>,
    changes: broadcast::Sender<Change>,
}

/// What a recording under way has lost so far.
#[derive(Debug)]
pub(crate) struct Note {
    pub id: RecordingId,
    /// Packets of each track that never came.
    pub lost: Vec<u64>,
    pub gaps: Vec<ManifestGap>,
}

#[derive(Clone, Debug)]
struct Entry {
    manifest: Manifest,
    /// What keeps it from being sealed. Only in memory: a disk that fails takes no note of that.
    fault: Option<String>,
    /// Held while the manifest is replaced, so that no change is lost; other recordings don't wait.
    change: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn new(manifest: Manifest) -> Self {
        Self { manifest, fault: None, change: Arc::default() }
    }

    /// The manifest as it is shown.
    fn shown(&self) -> Manifest {
        let mut manifest = self.manifest.clone();
        if let Some(fault) = self.fault.clone().filter(|_| manifest.state == RecordingState::Recording) {
            (manifest.state, manifest.error) = (RecordingState::Sealing, Some(fault));
        }
        manifest
    }
}

impl Catalog {
    /// Reads all manifests of `dir`. Blocking. One that can't be read is left alone, with a warning
    /// that names it.
    pub fn load(dir: &Path, mode: u32, disk: Disk, space: Arc<Space>) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        for name in names_in(dir)?.filter(|name| is_temporary(name)) {
            let _ = fs::remove_file(dir.join(name));
        }
        for manifest in read_all(dir)? {
            finish_deletion(dir, &manifest);
            let known =
                entries.get(&manifest.id).is_some_and(|known: &Entry| !is_stale(dir, known, &manifest));
            if !known {
                entries.insert(manifest.id.clone(), Entry::new(manifest));
            }
        }
        let last_id = Mutex::new(entries.last_key_value().map(|(id, _)| id.clone()));
        let changes = broadcast::Sender::new(CHANGES);
        Ok(Self { dir: dir.to_owned(), mode, disk, space, entries: Mutex::new(entries), last_id, changes })
    }

    /// What changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// An error only means that nobody looks on.
    fn tell(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    fn add(&self, manifest: Manifest) {
        self.lock().insert(manifest.id.clone(), Entry::new(manifest.clone()));
        self.tell(Change::new(manifest));
    }

    /// An id for a recording that begins now, by whatever the wall clock says: later than all there are.
    pub fn new_id(&self, now: Timestamp) -> RecordingId {
        let mut last = self.last_id.lock();
        let id =
            last.as_ref().map_or_else(|| RecordingId::new(now), |last| RecordingId::later_than(last, now));
        *last = Some(id.clone());
        id
    }

    /// Adds a recording that begins, if there is space. Blocking, durable.
    pub fn insert(&self, manifest: Manifest) -> io::Result<()> {
        self.space.grow(|| self.replace(&manifest))?;
        self.add(manifest);
        Ok(())
    }

    /// Adds one whose file is there already. Blocking, durable.
    pub fn adopt(&self, manifest: Manifest) -> io::Result<()> {
        self.write(&manifest)?;
        self.add(manifest);
        Ok(())
    }

    /// Somebody has given a recording's file another name: its manifest goes along. Blocking, durable.
    pub fn follow(&self, id: &RecordingId, file: &str) -> io::Result<()> {
        let Some(mut manifest) = self.read(id) else { return Ok(()) };
        let old = manifest_name(&manifest.file);
        file.clone_into(&mut manifest.file);
        self.write(&manifest)?;
        if let Some(entry) = self.lock().get_mut(id) {
            entry.manifest = manifest;
        }
        fs::remove_file(self.dir.join(old))?;
        sync_dir(&self.dir)
    }

    /// Forgets a recording that came to nothing. Blocking.
    pub fn remove(&self, id: &RecordingId) -> io::Result<()> {
        let Some(Entry { manifest, .. }) = self.lock().remove(id) else { return Ok(()) };
        let file = self.dir.join(manifest_name(&manifest.file));
        self.tell(Change::nothing(manifest));
        fs::remove_file(file)
    }

    /// Writes what a recording under way has lost so far, for recovery to know: it costs the recording
    /// nothing if that fails. Blocking, but for no other change: who calls it has a place of the disk,
    /// and who changes the manifest waits for one with its turn taken.
    pub fn note(&self, note: Note) -> Result<(), RecordingError> {
        let not_found = || RecordingError::NotFound(note.id.to_string());
        let lock = self.lock().get(&note.id).map(|entry| entry.change.clone()).ok_or_else(not_found)?;
        let _turn = lock.try_lock().map_err(|_| RecordingError::Busy(note.id.clone()))?;
        let mut manifest = self.read(&note.id).ok_or_else(not_found)?;
        for (track, lost) in manifest.tracks.iter_mut().zip(&note.lost) {
            track.lost = *lost;
        }
        manifest.gaps = note.gaps;
        self.space.grow(|| self.replace(&manifest))?;
        if let Some(entry) = self.lock().get_mut(&manifest.id) {
            entry.manifest = manifest;
        }
        Ok(())
    }

    /// A recording that is over can't be sealed for now: it is shown with this error until it is.
    pub fn fails(&self, id: &RecordingId, error: String) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id) else { return };
        let first = entry.fault.replace(error.clone()).is_none();
        let manifest = entry.shown();
        drop(entries);
        tracing::error!(%id, file = manifest.file, error, "it can't be sealed: that is tried again");
        if first {
            self.tell(Change::new(manifest));
        }
    }

    /// Recordings that are over and could not be sealed so far.
    pub fn unsealed(&self) -> usize {
        let waits =
            |entry: &&Entry| entry.fault.is_some() && entry.manifest.state == RecordingState::Recording;
        self.lock().values().filter(waits).count()
    }

    /// Changes a manifest durably, then does `after`, which is told what it was before. It runs to its end
    /// even if the caller gives up.
    pub async fn update(
        self: &Arc<Self>,
        id: &RecordingId,
        change: impl FnOnce(&mut Manifest) -> Result<(), RecordingError> + Send + 'static,
        after: impl FnOnce(&Self, &Manifest) -> io::Result<()> + Send + 'static,
    ) -> Result<Manifest, RecordingError> {
        let not_found = || RecordingError::NotFound(id.to_string());
        let lock = self.lock().get(id).map(|entry| entry.change.clone()).ok_or_else(not_found)?;
        let turn = lock.lock_owned().await;
        let mut manifest = self.read(id).ok_or_else(not_found)?;
        let catalog = self.clone();
        let work = move || {
            let _turn = turn;
            let before = manifest.clone();
            change(&mut manifest)?;
            catalog.write(&manifest)?;
            if let Some(entry) = catalog.lock().get_mut(&manifest.id) {
                entry.manifest = manifest.clone();
            }
            let done = after(&catalog, &before);
            if let Some(change) = Change::between(&before, &manifest) {
                catalog.tell(change);
            }
            done?;
            Ok(manifest)
        };
        self.disk.sync(work).await?
    }

    /// Removes a recording's file, once its manifest says so durably (S3).
    pub async fn delete(self: &Arc<Self>, id: &RecordingId) -> Result<Manifest, RecordingError> {
        self.delete_if(id, |_| true).await
    }

    /// The same, if its manifest is still such a one.
    pub async fn delete_if(
        self: &Arc<Self>,
        id: &RecordingId,
        such: impl FnOnce(&Manifest) -> bool + Send + 'static,
    ) -> Result<Manifest, RecordingError> {
        let busy = id.clone();
        let deleted = |manifest: &mut Manifest| {
            if manifest.state == RecordingState::Recording || !such(manifest) {
                return Err(RecordingError::Busy(busy));
            }
            manifest.state = RecordingState::Deleted;
            manifest.file_present = false;
            Ok(())
        };
        let unlink = move |catalog: &Self, before: &Manifest| match fs::remove_file(catalog.path(before)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(&catalog.dir),
        };
        self.update(id, deleted, unlink).await
    }

    /// One recording.
    pub fn get(&self, id: &RecordingId) -> Option<Manifest> {
        let shown = self.lock().get(id).map(Entry::shown)?;
        Some(self.look(shown))
    }

    /// One recording, as its manifest on the disk is.
    pub fn raw(&self, id: &RecordingId) -> Option<Manifest> {
        self.read(id)
    }

    /// All recordings whose media was not deleted, newest first. Blocking.
    pub fn list(&self) -> Vec<Manifest> {
        self.page(None, usize::MAX, |_| true)
    }

    /// So many of them that are `wanted`, from those older than `before` on. However many there are, only what
    /// is given is copied, and looked for in the folder. Blocking.
    pub fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: impl Fn(&Manifest) -> bool,
    ) -> Vec<Manifest> {
        self.page_seen(before, limit, wanted, |manifest| self.look(manifest))
    }

    fn page_seen(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: impl Fn(&Manifest) -> bool,
        look: impl Fn(Manifest) -> Manifest,
    ) -> Vec<Manifest> {
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        let kept =
            |entry: &&Entry| entry.manifest.state != RecordingState::Deleted && wanted(&entry.manifest);
        let entries = self.lock();
        let older = entries.range::<RecordingId, _>(older).rev().map(|(_, entry)| entry);
        let found: Vec<_> = older.filter(kept).take(limit).map(Entry::shown).collect();
        drop(entries);
        found.into_iter().map(look).collect()
    }

    /// All manifests as they are, the deleted ones too.
    pub fn all(&self) -> Vec<Manifest> {
        self.lock().values().map(|entry| entry.manifest.clone()).collect()
    }

    /// The recording whose file has, or had, this name, once it was sealed.
    pub fn by_file(&self, file: &str) -> Option<Manifest> {
        let is_told = |manifest: &Manifest| {
            matches!(manifest.state, RecordingState::Sealed | RecordingState::Deleted)
                && manifest.file == file
        };
        let is_deleted = |manifest: &Manifest| manifest.state == RecordingState::Deleted;
        // Only a file that somebody else put into the folder has no id in its name, perhaps the name of one
        // that was deleted.
        let named = || {
            let entries = self.lock();
            let told = entries.values().map(|entry| &entry.manifest).filter(|manifest| is_told(manifest));
            told.min_by_key(|manifest| is_deleted(manifest)).map(|manifest| manifest.id.clone())
        };
        // A copy has its original's id in its name, and another one in the catalogue.
        let its = |id: &RecordingId| {
            self.read(id).is_some_and(|manifest| is_told(&manifest) && !is_deleted(&manifest))
        };
        let id = names::id_of(file).filter(its).or_else(named)?;
        let manifest = self.get(&id)?;
        is_told(&manifest).then_some(manifest)
    }

    /// Sealed recordings whose hook has not come to an end, oldest first.
    pub fn hooks_due(&self) -> Vec<Manifest> {
        let due = |manifest: &Manifest| {
            manifest.state == RecordingState::Sealed
                && matches!(manifest.hook.state, HookState::Queued | HookState::Running)
        };
        let mut manifests: Vec<_> = self.list().into_iter().filter(due).collect();
        manifests.reverse();
        manifests
    }

    /// Where a recording's file is.
    pub fn path(&self, manifest: &Manifest) -> PathBuf {
        path(&self.dir, manifest)
    }

    /// Where it says so.
    pub fn manifest_path(&self, manifest: &Manifest) -> PathBuf {
        self.dir.join(manifest_name(&manifest.file))
    }

    /// Writes a manifest, on a full disk with the space that is kept back for that.
    fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let json = json(manifest)?;
        self.space.relieved(json.len() as u64, || self.replace_by(manifest, &json))
    }

    fn replace(&self, manifest: &Manifest) -> io::Result<()> {
        self.replace_by(manifest, &json(manifest)?)
    }

    fn replace_by(&self, manifest: &Manifest, json: &[u8]) -> io::Result<()> {
        replace(&self.dir, &manifest_name(&manifest.file), self.mode, json)
    }

    fn read(&self, id: &RecordingId) -> Option<Manifest> {
        self.lock().get(id).map(|entry| entry.manifest.clone())
    }

    /// Looks whether the file of a sealed recording is still there: a hook may move it away.
    fn look(&self, manifest: Manifest) -> Manifest {
        look(&self.dir, manifest)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RecordingId, Entry>> {
        self.entries.lock()
    }
}

fn json(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(manifest)?;
    json.push(b'\n');
    Ok(json)
}

fn path(dir: &Path, manifest: &Manifest) -> PathBuf {
    match manifest.state {
        RecordingState::Recording | RecordingState::Sealing => dir.join(format!("{}.part", manifest.file)),
        RecordingState::Quarantined => dir.join(QUARANTINE).join(&manifest.file),
        _ => dir.join(&manifest.file),
    }
}

fn look(dir: &Path, mut manifest: Manifest) -> Manifest {
    if manifest.state == RecordingState::Sealed {
        manifest.file_present = path(dir, &manifest).is_file();
    }
    manifest
}

/// All manifests of a folder that somebody else may be working in. Blocking; changes nothing.
pub(crate) fn manifests(dir: &Path) -> io::Result<Vec<Manifest>> {
    Ok(read_all(dir)?.map(|manifest| look(dir, manifest)).collect())
}

/// Those that can be read; a warning names each other one.
fn read_all(dir: &Path) -> io::Result<impl Iterator<Item = Manifest> + '_> {
    let manifests = names_in(dir)?.filter(|name| name.ends_with(".json") && names::is_plain(name));
    Ok(manifests.filter_map(|name| {
        let read = read(dir, &name);
        read.inspect_err(|error| tracing::warn!(manifest = name, error, "a manifest is left out")).ok()
    }))
}

/// The files of a folder, but for those whose names are no UTF-8: none is ours.
fn names_in(dir: &Path) -> io::Result<impl Iterator<Item = String>> {
    let entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
}

/// Whether a manifest is what a crash left of [`Catalog::follow`], beside the one that followed.
fn is_stale(dir: &Path, known: &Entry, other: &Manifest) -> bool {
    !path(dir, &known.manifest).exists() && path(dir, other).exists()
}

/// A manifest's name: the recording's with another suffix.
pub(crate) fn manifest_name(file: &str) -> String {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    format!("{stem}.json")
}

fn read(dir: &Path, name: &str) -> Result<Manifest, String> {
    let text = fs::read(dir.join(name)).map_err(|error| error.to_string())?;
    let mut manifest: Manifest = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if manifest.state == RecordingState::Sealing {
        manifest.state = RecordingState::Recording;
    }
    // The name is used as a path: one that leads elsewhere must not be read, let alone deleted.
    if !names::is_plain(&manifest.file) || manifest_name(&manifest.file) != name {
        return Err(format!("it names the file {:?}, which is not the one beside it", manifest.file));
    }
    Ok(manifest)
}

/// A deletion that a crash cut short is brought to its end, wherever the file was.
fn finish_deletion(dir: &Path, manifest: &Manifest) {
    if manifest.state != RecordingState::Deleted {
        return;
    }
    for path in [path(dir, manifest), dir.join(QUARANTINE).join(&manifest.file)] {
        if fs::remove_file(&path).is_ok() {
            tracing::info!(path = %path.display(), "removed a file whose manifest says deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::manifest::HookRecord;
    use std::cell::Cell;

    fn manifest(millis: i64, state: RecordingState) -> Manifest {
        let started_at = Timestamp::from_millisecond(millis).unwrap();
        let id = RecordingId::new(started_at);
        let stream = "s".parse().unwrap();
        let file = format!("{}.webm", names::stem(&stream, started_at, &id));
        Manifest {
            id,
            stream,
            file,
            mime: "video/webm".to_owned(),
            state,
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
            hook: HookRecord::new(HookState::Queued),
        }
    }

    fn load(dir: &Path) -> Arc<Catalog> {
        let space = Arc::new(Space::open(dir, 0));
        Arc::new(Catalog::load(dir, 0o640, Disk::default(), space).unwrap())
    }

    #[test]
    fn a_torn_manifest_does_not_lose_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) =
            (manifest(1_000, RecordingState::Sealed), manifest(2_000, RecordingState::Recording));
        let catalog = load(dir.path());
        catalog.insert(old.clone()).unwrap();
        catalog.insert(new.clone()).unwrap();
        fs::write(dir.path().join(&old.file), "media").unwrap();
        fs::write(dir.path().join("torn.json"), &serde_json::to_vec(&old).unwrap()[..40]).unwrap();
        fs::write(dir.path().join("empty.json"), "").unwrap();
        let mut astray = manifest(3_000, RecordingState::Sealed);
        astray.file = "../../etc/passwd".to_owned();
        fs::write(dir.path().join("passwd.json"), serde_json::to_vec(&astray).unwrap()).unwrap();
        fs::write(dir.path().join(".x.json.tmp"), "{").unwrap();

        let catalog = load(dir.path());
        assert_eq!(catalog.list(), [new, old.clone()], "newest first");
        assert_eq!(catalog.hooks_due(), [old]);
        assert!(dir.path().join("torn.json").exists(), "what can't be read is left for a person");
        assert!(!dir.path().join(".x.json.tmp").exists());
    }

    #[tokio::test]
    async fn a_file_is_found_by_its_name_alone_and_only_when_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let (open, sealed) =
            (manifest(1_000, RecordingState::Recording), manifest(2_000, RecordingState::Sealed));
        let catalog = load(dir.path());
        catalog.insert(open.clone()).unwrap();
        catalog.insert(sealed.clone()).unwrap();
        fs::write(dir.path().join(&sealed.file), "media").unwrap();
        assert_eq!(catalog.by_file(&sealed.file), Some(sealed.clone()));
        for other in [
            open.file.clone(),
            format!("{}.part", open.file),
            manifest_name(&sealed.file),
            format!("./{}", sealed.file),
            format!("../{}/{}", dir.path().display(), sealed.file),
            String::new(),
            ".".to_owned(),
            format!("x{}", sealed.file),
        ] {
            assert_eq!(catalog.by_file(&other), None, "{other:?}");
        }
        fs::remove_file(dir.path().join(&sealed.file)).unwrap();
        let moved = catalog.by_file(&sealed.file).unwrap();
        assert!(!moved.file_present, "a file moved away by a hook is known to be gone");
        let deleted = catalog.delete(&sealed.id).await.unwrap();
        assert_eq!(catalog.by_file(&sealed.file), Some(deleted), "a deleted one is known to have been here");
    }

    #[tokio::test]
    async fn deleting_leaves_a_manifest_that_says_so_also_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let (open, sealed) =
            (manifest(1_000, RecordingState::Recording), manifest(2_000, RecordingState::Sealed));
        let catalog = load(dir.path());
        catalog.insert(open.clone()).unwrap();
        catalog.insert(sealed.clone()).unwrap();
        let file = dir.path().join(&sealed.file);
        fs::write(&file, "media").unwrap();
        assert!(matches!(catalog.delete(&open.id).await, Err(RecordingError::Busy(_))));
        let gone = catalog.delete(&sealed.id).await.unwrap();
        assert_eq!((gone.state, gone.file_present), (RecordingState::Deleted, false));
        assert!(!file.exists());
        let quarantine = dir.path().join(QUARANTINE);
        fs::create_dir(&quarantine).unwrap();
        for place in [dir.path(), &quarantine] {
            fs::write(place.join(&sealed.file), "as after a crash between manifest and unlink").unwrap();
        }
        let catalog = load(dir.path());
        let left = [dir.path(), &quarantine].map(|place| place.join(&sealed.file).exists());
        assert_eq!(left, [false, false], "the deletion was not brought to its end");
        assert_eq!(catalog.get(&sealed.id).map(|found| found.state), Some(RecordingState::Deleted));
        assert_eq!(catalog.list(), [open], "what was deleted is not listed");
        assert!(matches!(
            catalog.delete(&"0".repeat(26).parse().unwrap()).await,
            Err(RecordingError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn a_recording_that_is_sealed_while_its_deletion_waits_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = load(dir.path());
        let open = manifest(1_000, RecordingState::Recording);
        let (id, file) = (open.id.clone(), dir.path().join(&open.file));
        catalog.insert(open).unwrap();
        let turn = catalog.lock()[&id].change.clone();
        let turn = turn.lock_owned().await;
        let delete = catalog.delete(&id);
        tokio::pin!(delete);
        tokio::select! {
            biased;
            done = &mut delete => panic!("it did not wait for its turn: {done:?}"),
            () = std::future::ready(()) => {}
        }
        fs::write(&file, "media").unwrap();
        catalog.lock().get_mut(&id).unwrap().manifest.state = RecordingState::Sealed;
        drop(turn);
        assert_eq!(delete.await.unwrap().state, RecordingState::Deleted);
        assert!(!file.exists(), "the file stays, and its manifest says that it is deleted");
    }

    #[tokio::test]
    async fn changes_of_one_manifest_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = load(dir.path());
        let sealed = manifest(1_000, RecordingState::Sealed);
        catalog.insert(sealed.clone()).unwrap();
        let bump = || {
            let (catalog, id) = (catalog.clone(), sealed.id.clone());
            tokio::spawn(async move {
                let more = |manifest: &mut Manifest| {
                    manifest.bytes += 1;
                    Ok(())
                };
                catalog.update(&id, more, |_, _| Ok(())).await.unwrap();
            })
        };
        for task in (0..20).map(|_| bump()).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(load(dir.path()).get(&sealed.id).unwrap().bytes, 20, "a change was lost");
    }

    #[test]
    fn a_page_of_ten_costs_ten_looks_however_many_recordings_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = load(dir.path());
        let mut all: Vec<_> = (1..=10_000).map(|n| manifest(n * 1000, RecordingState::Sealed)).collect();
        all[9_998].state = RecordingState::Deleted;
        all.iter().for_each(|one| catalog.add(one.clone()));
        let (looks, asked) = (Cell::new(0), Cell::new(0));
        let page = |before| {
            let wanted = |_: &Manifest| {
                asked.set(asked.get() + 1);
                true
            };
            let look = |manifest| {
                looks.set(looks.get() + 1);
                manifest
            };
            catalog.page_seen(before, 10, wanted, look)
        };
        let newest = page(None);
        assert_eq!((looks.get(), asked.get()), (10, 10), "looks, manifests asked about");
        assert_eq!((&newest[0], &newest[1]), (&all[9_999], &all[9_997]), "newest first, none deleted");
        assert_eq!(page(Some(&newest[9].id))[0], all[9_988]);
        let odd = |manifest: &Manifest| manifest.started_at.as_second() % 2 == 1;
        let found = catalog.page(Some(&all[4].id), 10, odd);
        assert_eq!(found.iter().map(|one| &one.id).collect::<Vec<_>>(), [&all[2].id, &all[0].id]);
    }

    #[test]
    fn notes_that_have_all_places_of_the_disk_hold_up_no_change_that_waits_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let changed = runtime.block_on(async {
            let catalog = load(dir.path());
            let open = manifest(1_000, RecordingState::Recording);
            let id = open.id.clone();
            catalog.insert(open).unwrap();
            let note = |_| {
                let (go, wait) = std::sync::mpsc::channel::<()>();
                let (notes, id) = (catalog.clone(), id.clone());
                let write = move || {
                    let _ = wait.recv();
                    notes.note(Note { id, lost: Vec::new(), gaps: Vec::new() })
                };
                Some((go, catalog.disk.try_sync(write)?))
            };
            let notes: Vec<_> = (0..).map_while(note).collect();
            let (changing, changed_id) = (catalog.clone(), id.clone());
            let change = tokio::spawn(async move {
                let change = |_: &mut Manifest| Ok(());
                changing.update(&changed_id, change, |_, _| Ok(())).await
            });
            let turn = catalog.lock()[&id].change.clone();
            while turn.try_lock().is_ok() {
                tokio::task::yield_now().await;
            }
            println!("{} notes, and a change behind them", notes.len());
            drop(notes);
            tokio::time::timeout(std::time::Duration::from_secs(60), change).await
        });
        // Threads that wait for each other would hold up the end of the runtime, and of the test.
        runtime.shutdown_background();
        assert!(matches!(changed, Ok(Ok(Ok(_)))), "they wait for each other: {changed:?}");
    }
}
