//! What subscribers learn of recordings, once it is durable.
//!
//! Unlike with the recorder's events, one that is missed loses nothing: the manifests say the same.

use crate::catalog::manifest::{Manifest, RecordingState};
use serde::Serialize;
use utoipa::ToSchema;

/// Changes that may wait for a subscriber; one that is further behind learns that it missed some, and reads the
/// list again.
pub(crate) const CHANGES: usize = 256;

/// What has happened to a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RecordingChange)]
pub enum What {
    /// It has its first frame, or is to be repaired.
    Started,
    /// It is over, but the disk fails: sealing is tried again.
    Sealing,
    /// Its file is whole.
    Sealed,
    /// Its hook has come a step further.
    Hook,
    /// Its file is gone, or nothing came of it.
    Deleted,
    /// It could not be repaired.
    Quarantined,
}

/// A recording that is another than before.
#[derive(Clone, Debug)]
pub struct Change {
    /// What has happened.
    pub what: What,
    /// What the manifest says now.
    pub manifest: Manifest,
}

impl Change {
    /// Of one that is new to the catalogue.
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self { what: What::of(manifest.state), manifest }
    }

    /// Of one that came to nothing.
    pub(crate) fn nothing(manifest: Manifest) -> Self {
        let manifest = Manifest { state: RecordingState::Deleted, file_present: false, ..manifest };
        Self { what: What::Deleted, manifest }
    }

    /// What makes `now` of `before`; `None` if the list shows no difference.
    pub(crate) fn between(before: &Manifest, now: &Manifest) -> Option<Self> {
        let what = match (before.state != now.state, before.hook != now.hook) {
            (true, _) => What::of(now.state),
            (false, true) => What::Hook,
            (false, false) => return None,
        };
        Some(Self { what, manifest: now.clone() })
    }
}

impl What {
    fn of(state: RecordingState) -> Self {
        match state {
            RecordingState::Recording => Self::Started,
            RecordingState::Sealing => Self::Sealing,
            RecordingState::Sealed => Self::Sealed,
            RecordingState::Quarantined => Self::Quarantined,
            RecordingState::Deleted => Self::Deleted,
        }
    }
}
