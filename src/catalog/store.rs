//! What recordings, hooks and routes ask of a catalogue, wherever its records are kept.
//!
//! Reads answer from memory at once: a form that is shared by servers keeps a copy that follows the changes. Writes
//! are asynchronous and durable, and compare: of two that go by the same revision one is done.

use crate::base::id::RecordingId;
use crate::catalog::RecordingError;
use crate::catalog::changes::Change;
use crate::catalog::manifest::{Manifest, RecordingState};
use crate::catalog::names;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use tokio::sync::broadcast;

/// Which of its states a record is in: each change gives it a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// What the catalogue says of a recording.
#[derive(Clone, Debug)]
pub struct Record {
    /// The manifest; whether the file is still there is not looked for.
    pub manifest: Manifest,
    /// What a change of it has to name.
    pub revision: Revision,
}

/// The records of all recordings (S4).
pub trait Catalog: Debug + Send + Sync {
    /// One recording; of a deleted one the record is left.
    fn get(&self, id: &RecordingId) -> Option<Record>;

    /// So many of those that are `wanted`, newest first, from those older than `before` on; the deleted ones too.
    /// However many there are, only what is given is copied.
    fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Vec<Manifest>;

    /// What changes from now on, each told once it is durable. A receiver that falls far behind misses some.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// Adds a recording that begins, if there is space; [`RecordingError::Busy`] if its id is taken.
    fn insert(&self, manifest: Manifest) -> BoxFuture<'_, Result<(), RecordingError>>;

    /// Replaces a record if it is still at the revision `expected`, and gives the new one; `None` if it is not.
    /// Once it has begun to write it ends even if the caller gives up, and after an error either may hold.
    /// `sealing` need not be durable.
    fn put(
        &self,
        manifest: Manifest,
        expected: Revision,
    ) -> BoxFuture<'_, Result<Option<Revision>, RecordingError>>;

    /// Forgets a recording that came to nothing.
    fn remove<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, Result<(), RecordingError>>;
}

impl dyn Catalog {
    /// Changes a record by what it says now; `change` is called again if another change came first.
    pub async fn update(
        &self,
        id: &RecordingId,
        change: impl Fn(&mut Manifest) -> Result<(), RecordingError>,
    ) -> Result<Manifest, RecordingError> {
        loop {
            let Record { mut manifest, revision } =
                self.get(id).ok_or_else(|| RecordingError::NotFound(id.to_string()))?;
            change(&mut manifest)?;
            if self.put(manifest.clone(), revision).await?.is_some() {
                return Ok(manifest);
            }
        }
    }

    /// Has a recording's file removed, unless it is being written or `may_go` refuses it.
    pub async fn delete(
        &self,
        id: &RecordingId,
        may_go: impl Fn(&Manifest) -> bool,
    ) -> Result<Manifest, RecordingError> {
        let delete = |manifest: &mut Manifest| {
            if manifest.is_under_way() || !may_go(manifest) {
                return Err(RecordingError::Busy(manifest.id.clone()));
            }
            manifest.state = RecordingState::Deleted;
            manifest.file_present = false;
            Ok(())
        };
        self.update(id, delete).await
    }

    /// The recording whose file has, or had, this name, once it was sealed. The name has its id; but a copy's has
    /// that of its original, and a file that was put into the folder may be called as one that was deleted.
    pub fn by_file(&self, file: &str) -> Option<Manifest> {
        let is_deleted = |manifest: &Manifest| manifest.state == RecordingState::Deleted;
        let is_called = |manifest: &Manifest| {
            manifest.file == file && (manifest.state == RecordingState::Sealed || is_deleted(manifest))
        };
        let named = names::id_of(file).and_then(|id| self.get(&id)).map(|record| record.manifest);
        named
            .filter(|manifest| is_called(manifest) && !is_deleted(manifest))
            .or_else(|| self.page(None, usize::MAX, &is_called).into_iter().rev().min_by_key(is_deleted))
    }

    /// Sealed recordings whose hook has not come to its end, oldest first: what the last run left.
    pub fn hooks_due(&self) -> Vec<Manifest> {
        let due =
            |manifest: &Manifest| manifest.state == RecordingState::Sealed && manifest.hook.state.is_due();
        let mut manifests = self.page(None, usize::MAX, &due);
        manifests.reverse();
        manifests
    }
}
