//! WebM as bytes: RFC 9559 (Matroska) within the WebM guidelines. Knows no file, no clock.
//!
//! A file is written front to back by a [`Muxer`]: [`head`] once, clusters from [`Clusters`], and, when all is
//! told, [`seal`] yields what to append (the index) and what to patch in the space reserved at the
//! front. [`Index`] is what sealing needs to know of the clusters that reached the disk.
//!
//! It is read by [`Reader`], in pieces and from anywhere. Two readers of what it tells make files whole:
//! [`InPlaceRepair`] for our own, in the space they have, and [`Remux`] for all others, into a new file.

mod block;
mod cluster;
mod cues;
mod ebml;
mod file_header;
mod frame_interval;
mod in_place;
mod live_cluster;
mod muxer;
mod origin;
mod own_head;
mod read;
mod remux;
mod repair;
mod tags;
#[cfg(test)]
mod tests;
mod track_entry;
mod tracks;
mod write;

pub use block::StoredBlock;
pub use cluster::{Block, Cluster, ClusterStats, Clusters};
pub use cues::{CuePoint, Index, TrackIndex};
pub use ebml::id::{INFO, TRACKS};
pub use file_header::{FileHeader, cluster_before, cues_len};
pub use in_place::{InPlacePlan, InPlaceRepair};
pub use live_cluster::{LiveBlock, TIMESTAMP_AT, live_cluster, mime_with_codecs};
pub use muxer::{Muxer, seal};
pub use origin::Origin;
pub use own_head::{MAX_HEAD, OwnHead};
pub use read::{Item, MAX_PENDING, ReadError, Reader, is_expected};
pub use remux::{CopyPlan, Extent, PacketRun, Remux, RemuxError};
pub use repair::Repair;
pub use tags::{MAX_TAGS, Stamp};
pub use track_entry::{for_live, is_shown_alike};
pub use tracks::{ForeignTrack, tick as tick_of, tracks as tracks_of};
pub use write::{Layout, TrackLayout, head};
