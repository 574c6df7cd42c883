//! The recordings there are, as their manifests say (S4).
//!
//! [`files`] keeps the manifests beside the recordings of one folder; [`manifest`] is what each says, [`names`]
//! what they are called, [`changes`] what onlookers are told once it is durable.

pub(crate) mod changes;
pub(crate) mod files;
pub(crate) mod manifest;
pub(crate) mod names;

pub use changes::{Change, What};
pub use manifest::{
    HookAttempt, HookRecord, HookRunning, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState,
};

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
