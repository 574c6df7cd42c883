//! WebM as bytes: RFC 9559 (Matroska) within the WebM guidelines. Knows no file, no clock.
//!
//! A file is written front to back: [`head`] once, clusters from [`Clusters`], and, when all is
//! told, [`seal`] yields what to append (the index) and what to patch in the room reserved at the
//! front. [`Index`] is what sealing needs to know of the clusters that reached the disk.
//!
//! It is read by [`Reader`], in pieces and from anywhere. Two readers of what it tells make files whole:
//! [`InPlaceRepair`] for our own, in the room they have, and [`Remux`] for all others, into a new file.

mod block;
mod cluster;
mod cues;
mod ebml;
mod entry;
mod in_place;
mod live;
mod origin;
mod own_head;
mod pace;
mod read;
mod remux;
mod seal;
mod tags;
#[cfg(test)]
mod tests;
mod tracks;
mod walk;
mod write;

pub use block::StoredBlock;
pub use cluster::{Block, Cluster, ClusterStats, Clusters};
pub use cues::{Front, cluster_before, cues_len};
pub use ebml::id::{INFO, TRACKS};
pub use entry::{for_live, is_shown_alike};
pub use in_place::{Hole, InPlaceRepair, Mended};
pub use live::{LiveBlock, TIMESTAMP_AT, live_cluster, mime_with_codecs};
pub use origin::Origin;
pub use own_head::{MAX_HEAD, OwnHead};
pub use read::{Item, MAX_PENDING, ReadError, Reader, is_expected};
pub use remux::{Lack, Piece, Plan, Remux, RemuxError, Row};
pub use seal::{CuePoint, Index, Patch, Seal, TrackIndex, seal};
pub use tags::{MAX_TAGS, Stamp};
pub use tracks::{ForeignTrack, tick as tick_of, tracks as tracks_of};
pub use write::{Head, Layout, TrackLayout, head};

use crate::media::{Kind, Track};

/// Which of two sibling formats a file is: WebM is Matroska with a short list of codecs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// VP8, VP9, AV1 and Opus; every browser plays it.
    Webm,
    /// Anything else.
    Matroska,
}

impl Container {
    /// What can hold these tracks.
    pub fn of(tracks: &[Track]) -> Self {
        if tracks.iter().all(|track| track.codec.is_in_webm()) { Self::Webm } else { Self::Matroska }
    }

    /// The EBML DocType.
    pub(crate) fn doc_type(self) -> &'static str {
        match self {
            Self::Webm => "webm",
            Self::Matroska => "matroska",
        }
    }

    /// How the name of a file ends, without the dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Webm => "webm",
            Self::Matroska => "mkv",
        }
    }

    /// MIME type of a file with these tracks: for Matroska the old names, which browsers know.
    pub fn mime(self, tracks: &[Track]) -> &'static str {
        let video = tracks.iter().any(|track| track.codec.kind() == Kind::Video);
        match (self, video) {
            (Self::Webm, true) => "video/webm",
            (Self::Webm, false) => "audio/webm",
            (Self::Matroska, true) => "video/x-matroska",
            (Self::Matroska, false) => "audio/x-matroska",
        }
    }
}
