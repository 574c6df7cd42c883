//! The recordings there are, as their manifests say (S4).
//!
//! [`store`] is what the others ask of a catalogue; [`files`] keeps one in the manifests of a [`folder`], beside the
//! recordings. [`manifest`] is what each says, [`names`] what files are called, [`changes`] what subscribers are told.

mod changes;
#[cfg(test)]
pub(crate) mod contract;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod manifest;
pub(crate) mod names;
mod store;

pub use changes::{Change, What};
pub use folder::Folder;
pub use manifest::{
    HookAttempt, HookRecord, HookRunning, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState,
};
pub use store::{Catalog, Record, Revision};

use crate::base::id::RecordingId;
use std::io;

/// Why a recording can't start, or a request about one can't be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// No space to record.
    #[error("the disk is full: free some space under record.dir")]
    DiskFull,
    /// No such recording.
    #[error("there is no recording {0}")]
    NotFound(String),
    /// Still being written.
    #[error("recording {0} is still being written: stop its stream first")]
    Busy(RecordingId),
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<RecordingError> for io::Error {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::Io(error) => error,
            other => Self::other(other),
        }
    }
}
