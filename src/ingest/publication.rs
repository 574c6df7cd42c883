//! A publication: one name's claim by one publisher, over all its sessions.

use crate::record::Manifest;

/// What a publisher is told.
#[derive(Clone, Debug)]
pub enum Status {
    /// Accepted; no media yet.
    Pending,
    /// The recorder has its first frame (or, unrecorded, media flows).
    Publishing,
    /// Over: a file is sealed, or nothing was to be recorded.
    Unpublished {
        /// The sealed recording.
        recording: Option<Box<Manifest>>,
        /// Why it ended.
        reason: crate::base::reason::EndReason,
    },
    /// Over, and nothing was recorded.
    Failed {
        /// The contract's error code.
        code: &'static str,
        /// What to do.
        message: String,
    },
}
