//! L1: WebM as bytes: RFC 9559 (Matroska) within the WebM guidelines. Knows no file, no clock.
//!
//! A file is written front to back: [`head`] once, clusters from [`Clusters`], and, when all is
//! told, [`seal`] yields what to append (the index) and what to patch in the room reserved at the
//! front. [`Index`] is what sealing needs to know of the clusters that reached the disk.
//!
//! It is read by [`Reader`], in pieces and from anywhere. Two readers of what it tells make files whole:
//! [`Mend`] for our own, in the room they have, and [`Remux`] for all others, into a new file.

mod block;
mod cluster;
mod ebml;
mod foreign;
mod mend;
mod own;
mod read;
mod remux;
mod seal;
#[cfg(test)]
mod tests;
mod walk;
mod write;

pub use block::StoredBlock;
pub use cluster::{Block, Cluster, Clusters, Tally};
pub use foreign::ForeignTrack;
pub use mend::{Hole, Mend, Mended};
pub use own::{MAX_HEAD, Own};
pub use read::{Item, MAX_PENDING, ReadError, Reader};
pub use remux::{Lack, Piece, Plan, Refused, Remux};
pub use seal::{CuePoint, Index, Patch, Seal, TrackIndex, seal};
pub use write::{Head, Layout, TrackLayout, head};

/// MIME type of a file's download.
pub fn mime(tracks: &[crate::media::Track]) -> &'static str {
    let video = tracks.iter().any(|track| track.codec.kind() == crate::media::Kind::Video);
    if video { "video/webm" } else { "audio/webm" }
}
