//! A recording under way, as its publication sees it.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::RecordingId;
use crate::catalog::Manifest;
use crate::record::rotation::{Begun, Control};
use std::time::Instant;
use tokio::sync::watch;

/// How far one recording has come. Each state follows the one above it.
#[derive(Clone, Debug)]
pub enum Progress {
    /// No frame yet.
    Waiting,
    /// The recorder has its first frame.
    Writing,
    /// Over, and not sealed: the disk fails, for this reason, and is tried again.
    Sealing(String),
    /// Sealed, under its final name, its manifest durable.
    Sealed(Box<Manifest>),
    /// The stream ended without a single frame: no file.
    Empty(EndReason),
    /// Nothing could be recorded.
    Failed {
        /// The error as clients are told it.
        code: ErrorCode,
        /// What an operator can do about it.
        message: String,
    },
}

/// A recording under way; it ends by itself when its stream ends.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its identifier.
    pub id: RecordingId,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
    /// `None` for bytes that are kept as they come: they can't be cut or stopped.
    pub(super) control: Option<Control>,
}

impl Recording {
    /// The file that is being written: `id`, until the recording goes on in another one.
    pub fn current(&self) -> RecordingId {
        self.control.as_ref().map_or_else(|| self.id.clone(), Control::current)
    }

    /// Goes on in a new file from the next keyframe on; no frame falls between. `None` if it can't.
    pub fn cut(&self, now: Instant) -> Option<Begun> {
        self.control.as_ref().map(|control| control.cut(now))
    }

    /// Ends it behind what was pushed up to now, while its stream goes on.
    pub fn stop(&self, reason: EndReason, now: Instant) {
        if let Some(control) = &self.control {
            control.stop(reason, now);
        }
    }
}
