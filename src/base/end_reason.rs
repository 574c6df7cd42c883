//! Why a recording ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The manifest's `end_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The publisher said stop.
    Stopped,
    /// The publisher vanished, or stayed silent too long.
    PublisherLost,
    /// `record.max_duration` or `record.max_bytes`: it goes on in another file.
    Rotated,
    /// A limit of the server.
    Limit,
    /// Less than `record.min_free` left, or no space at all.
    DiskFull,
    /// Any other write error.
    WriteError,
    /// Ended by the operator.
    Kicked,
    /// The media can't be recorded.
    BadMedia,
    /// The server shut down in order.
    ServerStopped,
    /// The server died; the file was repaired at the next start.
    ServerCrashed,
}

impl EndReason {
    /// As in manifests, statuses and the hook's environment.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::PublisherLost => "publisher_lost",
            Self::Rotated => "rotated",
            Self::Limit => "limit",
            Self::DiskFull => "disk_full",
            Self::WriteError => "write_error",
            Self::Kicked => "kicked",
            Self::BadMedia => "bad_media",
            Self::ServerStopped => "server_stopped",
            Self::ServerCrashed => "server_crashed",
        }
    }
}
