//! What a caller may do.

use serde::{Deserialize, Serialize};

/// What can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Push a stream in, by whatever way.
    Publish,
    /// Watch a live stream, and see it in the list.
    View,
    /// List, play and download what was recorded.
    Recordings,
    /// Everything else: end streams, delete recordings, run hooks again, read metrics. Includes the others.
    Admin,
}
