//! The catalogue that is the manifests of one folder (S4). What is on the disk changes first, what is in memory
//! after it.

use crate::base::id::RecordingId;
use crate::catalog::RecordingError;
use crate::catalog::changes::{CHANGES, Change};
use crate::catalog::folder::{Folder, stored};
use crate::catalog::manifest::{Manifest, RecordingState};
use crate::catalog::store::{Catalog, Record, Revision};
use crate::disk::worker::Disk;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, broadcast};

/// All manifests of one folder. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct FileCatalog {
    folder: Folder,
    disk: Disk,
    entries: Arc<Mutex<BTreeMap<RecordingId, Entry>>>,
    changes: broadcast::Sender<Change>,
}

#[derive(Clone, Debug)]
struct Entry {
    record: Record,
    /// Held while the manifest is replaced; other recordings don't wait.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn new(manifest: Manifest) -> Self {
        Self { record: Record { manifest, revision: Revision(0) }, turn: Arc::default() }
    }
}

impl FileCatalog {
    /// Reads all manifests of a folder. Blocking. One that can't be read is left alone, with a warning that names
    /// it.
    pub fn load(folder: Folder, disk: Disk) -> io::Result<Self> {
        let mut entries = BTreeMap::<RecordingId, Entry>::new();
        for manifest in folder.open()? {
            let known = entries.get(&manifest.id);
            if known.is_none_or(|known| folder.is_stale(&known.record.manifest, &manifest)) {
                entries.insert(manifest.id.clone(), Entry::new(manifest));
            }
        }
        let (entries, changes) = (Arc::new(Mutex::new(entries)), broadcast::Sender::new(CHANGES));
        Ok(Self { folder, disk, entries, changes })
    }

    /// Adds a recording whose file is there already. Blocking, durable.
    pub fn adopt(&self, manifest: Manifest) -> io::Result<()> {
        self.folder.set_aside_unreadable(&manifest)?;
        self.folder.write_in_any_case(&manifest)?;
        self.add(manifest);
        Ok(())
    }

    /// A recording's file was given another name: its manifest goes along. Blocking, durable; for the start, when
    /// nothing else changes it.
    pub fn follow(&self, id: &RecordingId, file: &str) -> io::Result<()> {
        let Some(Record { manifest: before, revision }) = self.get(id) else { return Ok(()) };
        let now = Manifest { file: file.to_owned(), ..before.clone() };
        self.folder.write_in_any_case(&now)?;
        self.keep(now, revision);
        self.folder.remove(&before)
    }

    fn add(&self, manifest: Manifest) {
        self.lock().insert(manifest.id.clone(), Entry::new(manifest.clone()));
        self.tell(Change::new(manifest));
    }

    fn keep(&self, manifest: Manifest, before: Revision) -> Revision {
        let revision = Revision(before.0 + 1);
        if let Some(entry) = self.lock().get_mut(&manifest.id) {
            entry.record = Record { manifest, revision };
        }
        revision
    }

    /// An error only means that there is no subscriber.
    fn tell(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    /// Waits until no other change of a recording is under way.
    async fn turn(&self, id: &RecordingId) -> Result<(OwnedMutexGuard<()>, Record), RecordingError> {
        let not_found = || RecordingError::NotFound(id.to_string());
        let turn = self.lock().get(id).map(|entry| entry.turn.clone()).ok_or_else(not_found)?;
        let turn = turn.lock_owned().await;
        Ok((turn, self.get(id).ok_or_else(not_found)?))
    }

    /// What the manifest says is done to the file as well. Blocking.
    fn replace(&self, before: &Record, now: Manifest) -> Result<Revision, RecordingError> {
        let Record { manifest: before, revision } = before;
        if stored(before) != stored(&now) {
            self.folder.write(&now)?;
        }
        let revision = self.keep(now.clone(), *revision);
        let deleted = now.state == RecordingState::Deleted && before.state != RecordingState::Deleted;
        let done = if deleted { self.folder.remove_file(before) } else { Ok(()) };
        if let Some(change) = Change::between(before, &now) {
            self.tell(change);
        }
        done?;
        Ok(revision)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RecordingId, Entry>> {
        self.entries.lock()
    }
}

impl Catalog for FileCatalog {
    fn get(&self, id: &RecordingId) -> Option<Record> {
        self.lock().get(id).map(|entry| entry.record.clone())
    }

    fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Vec<Manifest> {
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        let entries = self.lock();
        let older = entries.range::<RecordingId, _>(older).rev().map(|(_, entry)| &entry.record.manifest);
        older.filter(|manifest| wanted(manifest)).take(limit).cloned().collect()
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn insert(&self, manifest: Manifest) -> BoxFuture<'_, Result<(), RecordingError>> {
        let catalog = self.clone();
        let insert = move || {
            if catalog.get(&manifest.id).is_some() {
                return Err(RecordingError::Busy(manifest.id));
            }
            catalog.folder.write(&manifest)?;
            catalog.add(manifest);
            Ok(())
        };
        Box::pin(async { self.disk.sync(insert).await? })
    }

    fn put(
        &self,
        manifest: Manifest,
        expected: Revision,
    ) -> BoxFuture<'_, Result<Option<Revision>, RecordingError>> {
        Box::pin(async move {
            let (turn, before) = self.turn(&manifest.id).await?;
            if before.revision != expected {
                return Ok(None);
            }
            let on_disk = stored(&before.manifest) != stored(&manifest);
            let catalog = self.clone();
            let replace = move || {
                let _turn = turn;
                catalog.replace(&before, manifest)
            };
            // That a disk fails is said without it.
            if on_disk { self.disk.sync(replace).await? } else { replace() }.map(Some)
        })
    }

    fn remove<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, Result<(), RecordingError>> {
        Box::pin(async move {
            let Ok((turn, Record { manifest, .. })) = self.turn(id).await else { return Ok(()) };
            let catalog = self.clone();
            let remove = move || {
                let _turn = turn;
                let removed = catalog.folder.remove(&manifest);
                catalog.lock().remove(&manifest.id);
                catalog.tell(Change::nothing(manifest));
                removed
            };
            Ok(self.disk.sync(remove).await??)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract::{catalog_contract, manifest};
    use crate::catalog::names::QUARANTINE;
    use crate::disk::space::Space;
    use std::fs;
    use std::path::Path;

    fn load(dir: &Path) -> FileCatalog {
        let space = Arc::new(Space::open(dir, 0));
        FileCatalog::load(Folder::new(dir, 0o640, space), Disk::default()).unwrap()
    }

    fn all(catalog: &FileCatalog) -> Vec<Manifest> {
        catalog.page(None, usize::MAX, &|_| true)
    }

    catalog_contract!({
        let dir = tempfile::tempdir().unwrap();
        move || Arc::new(load(dir.path())) as Arc<dyn Catalog>
    });

    #[tokio::test]
    async fn a_torn_manifest_does_not_lose_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) =
            (manifest(1_000, RecordingState::Sealed), manifest(2_000, RecordingState::Recording));
        let catalog = load(dir.path());
        catalog.insert(old.clone()).await.unwrap();
        catalog.insert(new.clone()).await.unwrap();
        fs::write(dir.path().join("torn.json"), &serde_json::to_vec(&old).unwrap()[..40]).unwrap();
        fs::write(dir.path().join("empty.json"), "").unwrap();
        let mut astray = manifest(3_000, RecordingState::Sealed);
        astray.file = "../../etc/passwd".to_owned();
        fs::write(dir.path().join("passwd.json"), serde_json::to_vec(&astray).unwrap()).unwrap();
        fs::write(dir.path().join(".x.json.tmp"), "{").unwrap();
        let catalog = load(dir.path());
        assert_eq!(all(&catalog), [new, old], "newest first");
        assert!(dir.path().join("torn.json").exists(), "what can't be read is left for a person");
        assert!(!dir.path().join(".x.json.tmp").exists());
    }

    #[tokio::test]
    async fn deleting_leaves_a_manifest_and_no_file_also_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(load(dir.path()));
        let sealed = manifest(1_000, RecordingState::Sealed);
        catalog.insert(sealed.clone()).await.unwrap();
        let file = dir.path().join(&sealed.file);
        fs::write(&file, "media").unwrap();
        catalog.delete(&sealed.id, |_| true).await.unwrap();
        assert!(!file.exists());
        let quarantine = dir.path().join(QUARANTINE);
        fs::create_dir(&quarantine).unwrap();
        for folder in [dir.path(), &quarantine] {
            fs::write(folder.join(&sealed.file), "as after a crash between manifest and unlink").unwrap();
        }
        load(dir.path());
        let left = [dir.path(), &quarantine].map(|folder| folder.join(&sealed.file).exists());
        assert_eq!(left, [false, false], "the deletion was not brought to its end");
    }

    #[tokio::test]
    async fn a_disk_that_fails_takes_no_note_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(load(dir.path()));
        let begun = manifest(1_000, RecordingState::Recording);
        catalog.insert(begun.clone()).await.unwrap();
        let manifest = dir.path().join(&begun.file).with_extension("json");
        let before = fs::metadata(&manifest).unwrap().modified().unwrap();
        let fail = |manifest: &mut Manifest| {
            (manifest.state, manifest.error) = (RecordingState::Sealing, Some("no".to_owned()));
            Ok(())
        };
        catalog.update(&begun.id, fail).await.unwrap();
        assert_eq!(fs::metadata(&manifest).unwrap().modified().unwrap(), before);
        let lose = |manifest: &mut Manifest| {
            manifest.bytes = 7;
            Ok(())
        };
        let now = catalog.update(&begun.id, lose).await.unwrap();
        assert_eq!((now.state, now.error.as_deref()), (RecordingState::Sealing, Some("no")));
        assert_eq!(all(&load(dir.path())), [Manifest { bytes: 7, ..begun }]);
    }

    #[tokio::test]
    async fn a_change_under_way_holds_up_no_other_recording_and_ends_without_its_caller() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = load(dir.path());
        let (one, two) = (manifest(1_000, RecordingState::Sealed), manifest(2_000, RecordingState::Sealed));
        for manifest in [&one, &two] {
            catalog.insert(manifest.clone()).await.unwrap();
        }
        let (turn, Record { revision, .. }) = catalog.turn(&one.id).await.unwrap();
        let waiting = catalog.put(Manifest { bytes: 7, ..one.clone() }, revision);
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(catalog.put(Manifest { bytes: 7, ..two.clone() }, revision).await.unwrap().is_some());
        let mut changes = catalog.changes();
        drop(turn);
        let gone = Manifest { state: RecordingState::Deleted, ..two.clone() };
        let put = catalog.put(gone, Revision(1));
        let mut put = Box::pin(put);
        assert!(futures_util::poll!(&mut put).is_pending());
        drop(put);
        assert_eq!(changes.recv().await.unwrap().manifest.id, two.id);
        assert!(waiting.await.unwrap().is_some());
    }
}
