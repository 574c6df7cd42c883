//! The plan of a copy: where each of its bytes comes from.

use super::runs::{PacketRange, PacketRuns};
use crate::container::Defect;
use crate::container::webm::ForeignTrack;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

/// Id, and a size of 8 bytes.
pub(super) const MASTER_LEN: u64 = 12;
/// A Timestamp of 8 bytes.
pub(super) const TIME_LEN: u64 = 10;

/// Bytes of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    /// Bytes that the plan holds, or makes.
    Bytes(Cow<'a, [u8]>),
    /// Bytes of the original, from its beginning on.
    Original(Range<u64>),
}

/// A part of a cluster of the copy.
#[derive(Clone, Debug)]
pub(super) enum ClusterPart {
    /// Bytes of the original.
    Original(Range<u64>),
    /// Packets that it hasn't.
    Generated(PacketRange),
}

#[derive(Clone, Debug)]
pub(super) struct PlannedCluster {
    /// Where it begins in the original.
    pub original: u64,
    /// Its header and Timestamp.
    pub head: [u8; (MASTER_LEN + TIME_LEN) as usize],
    pub parts: Range<usize>,
}

/// How to make the copy, and what was found.
#[derive(Debug)]
pub struct CopyPlan {
    /// The tracks, and the frames of each.
    pub tracks: Vec<(ForeignTrack, u64)>,
    /// From 0 to the end of the frame that ends last.
    pub duration: Duration,
    /// Length of its ticks.
    pub tick: Duration,
    /// It says that we wrote it.
    pub ours: bool,
    /// What the original defects.
    pub defects: Vec<Defect>,
    /// Bytes that make no sense or belong to nothing whole, before the end and at the end.
    pub damaged: (u64, u64),
    /// Length of the copy.
    pub len: u64,
    /// Of all frames with their tracks and times, in their order.
    pub digest: u64,
    pub(super) head: Vec<u8>,
    pub(super) clusters: Vec<PlannedCluster>,
    pub(super) parts: Vec<ClusterPart>,
    pub(super) runs: PacketRuns,
    pub(super) extras: Vec<(u64, Range<u64>)>,
    pub(super) tags: Vec<u8>,
    pub(super) cues: Vec<u8>,
}

impl CopyPlan {
    /// The copy, front to back.
    pub fn extents(&self) -> impl Iterator<Item = Extent<'_>> {
        let clusters = self.clusters.iter().flat_map(|cluster| {
            let parts = self.parts[cluster.parts.clone()].iter().map(|part| match part {
                ClusterPart::Original(range) => Extent::Original(range.clone()),
                ClusterPart::Generated(packets) => Extent::Bytes(self.runs.blocks(packets, self.tick).into()),
            });
            std::iter::once(Extent::Bytes((&cluster.head[..]).into())).chain(parts)
        });
        let extras = self.extras.iter().map(|(_, range)| Extent::Original(range.clone()));
        let end = [&self.tags, &self.cues].into_iter().map(|bytes| Extent::Bytes(bytes.into()));
        std::iter::once(Extent::Bytes((&self.head).into())).chain(clusters).chain(extras).chain(end)
    }

    /// Whether the original plays and seeks as well as a copy would.
    pub fn is_whole(&self) -> bool {
        // Without a single cue point there is nothing to index.
        let nothing_more = |defect: &Defect| *defect == Defect::Cues && self.cues.is_empty();
        self.defects.iter().all(nothing_more) && self.damaged == (0, 0)
    }
}
