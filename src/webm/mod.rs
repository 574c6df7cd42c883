//! L1: WebM as bytes: RFC 9559 (Matroska) within the WebM guidelines. Knows no file, no clock.
//!
//! A file is written front to back: [`head`] once, clusters from [`Clusters`], and, when all is
//! told, [`seal`] yields what to append (the index) and what to patch in the room reserved at the
//! front. [`Index`] is what sealing needs to know of the clusters that reached the disk.

mod cluster;
mod ebml;
mod seal;
mod write;

pub use cluster::{Block, Cluster, Clusters, Tally};
pub use seal::{CuePoint, Index, Patch, Seal, TrackIndex, seal};
pub use write::{Head, Layout, TrackLayout, head};

/// MIME type of a file's download.
pub fn mime(tracks: &[crate::media::Track]) -> &'static str {
    let video = tracks.iter().any(|track| track.codec.kind() == crate::media::Kind::Video);
    if video { "video/webm" } else { "audio/webm" }
}
