//! What one of our own files needs that was never sealed, or whose bytes were damaged.
//!
//! It is cut behind its last whole cluster. Damage before that is covered by a Void from the start of
//! the cluster it is in to the next whole one, and pictures behind it by a Void each until the next
//! keyframe (T2): frames that can't be decoded are worse than a gap. Whatever is covered here is found
//! covered by a second run, which then treats it in the same way: the work may be cut off anywhere.

use crate::container::webm::StoredBlock;
use crate::container::webm::cluster::{Block, ClusterStats};
use crate::container::webm::cues::Index;
use crate::container::webm::ebml::id;
use crate::container::webm::own_head::OwnHead;
use crate::container::webm::read::Item;
use crate::container::{Hole, Patch};
use crate::media::Kind;
use std::ops::Range;
use std::time::Duration;

/// Voids that are written. A file that needs more is not repaired: it is random bytes rather than a
/// recording.
const MAX_PATCHES: usize = 1 << 18;

/// What [`InPlaceRepair`] found.
#[derive(Debug)]
pub struct InPlacePlan {
    /// What the whole clusters hold.
    pub index: Index,
    /// Where the last whole cluster ends: what is behind it is cut off.
    pub end: u64,
    /// To be written before sealing.
    pub patches: Vec<Patch>,
    /// Bytes before `end` that were damaged.
    pub damaged: u64,
    /// Holes that the damage made.
    pub holes: Vec<Hole>,
}

/// Takes the items of one of our own files.
#[derive(Debug)]
pub struct InPlaceRepair {
    own: OwnHead,
    index: Index,
    end: u64,
    patches: Vec<Patch>,
    open: Option<OpenCluster>,
    /// Where damage began that no whole cluster has followed yet.
    damaged_from: Option<u64>,
    /// The Void that it begins with.
    covered: Option<Range<u64>>,
    damaged: u64,
    /// Of each track: the time before a hole that is still open.
    hole_from: Vec<Option<u64>>,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct OpenCluster {
    at: u64,
    payload_at: u64,
    intact: bool,
    stats: ClusterStats,
    voids: Vec<Patch>,
    /// As `InPlaceRepair::hole_from`, should this cluster turn out to be whole.
    hole_from: Vec<Option<u64>>,
    holes: Vec<Hole>,
}

impl InPlaceRepair {
    /// For a file with this head.
    pub fn new(own: OwnHead) -> Self {
        let (index, end, hole_from) = (Index::new(&own.tracks), own.layout.len, vec![None; own.tracks.len()]);
        Self {
            own,
            index,
            end,
            patches: Vec::new(),
            open: None,
            damaged_from: None,
            covered: None,
            damaged: 0,
            hole_from,
            holes: Vec::new(),
        }
    }

    /// Takes the next item.
    pub fn take(&mut self, item: &Item<'_>) {
        match item {
            Item::Cluster { at, payload_at, size } => {
                let mut hole_from = self.hole_from.clone();
                if self.damaged_from.is_some() {
                    for (hole_from, track) in hole_from.iter_mut().zip(&self.index.tracks) {
                        hole_from.get_or_insert(track.last);
                    }
                }
                self.open = Some(OpenCluster {
                    at: *at,
                    payload_at: *payload_at,
                    // We never write a cluster without its size.
                    intact: size.is_some(),
                    stats: ClusterStats::new(self.own.tracks.len(), Duration::from_millis(1)),
                    voids: Vec::new(),
                    hole_from,
                    holes: Vec::new(),
                });
            }
            Item::Block(block) => self.block(block),
            Item::ClusterElement { id, .. } => self.cluster_element(*id),
            Item::ClusterEnd { at } => self.end_cluster(*at),
            Item::Damaged { at } => {
                let begin = self.open.take().map_or(at.start, |open| open.at);
                self.mark_damaged(begin);
            }
            // Damage that was covered before: nothing may be missing of it.
            Item::Skipped { id: id::VOID, at } if at.start >= self.own.layout.len => {
                if self.damaged_from.is_none() {
                    self.covered = Some(at.clone());
                }
                self.mark_damaged(at.start);
            }
            Item::Skipped { at, .. } | Item::Element { at, .. } if at.start >= self.own.layout.len => {
                // An index, with clusters behind it or not.
                self.mark_damaged(at.start);
            }
            Item::Header { at, .. } if *at > 0 => self.mark_damaged(*at),
            _ => {}
        }
    }

    fn mark_damaged(&mut self, from: u64) {
        self.damaged_from.get_or_insert(from);
    }

    fn block(&mut self, block: &StoredBlock<'_>) {
        let Some(open) = &mut self.open else { return };
        let track = self.own.track(block.track);
        let (Some(track), Ok(time), mut frames) = (track, u64::try_from(block.time), block.frames()) else {
            open.intact = false;
            return;
        };
        let codec = self.own.tracks[track].codec;
        let (Some(data), 0) = (frames.next(), frames.len()) else {
            open.intact = false;
            return;
        };
        // Pages that a power cut left unwritten are zeros, which no picture begins with.
        if codec.kind() == Kind::Video && (data.is_empty() || data.iter().take(10).all(|byte| *byte == 0)) {
            open.intact = false;
            return;
        }
        if let Some(from) = open.hole_from[track] {
            if codec.kind() == Kind::Video && !block.keyframe {
                // The ids of both have one byte, and the size stays the same.
                if self.patches.len() + open.voids.len() <= MAX_PATCHES {
                    open.voids.push(Patch { at: block.at.start, bytes: vec![id::VOID as u8] });
                }
                return;
            }
            open.hole_from[track] = None;
            open.holes.push(Hole { track, from, to: time });
        }
        let size = codec.size_of(data).filter(|_| block.keyframe);
        let kept =
            Block { keyframe: block.keyframe, size, side_data: &block.side_data, ..Block::of(track, data) };
        open.stats.add(codec.kind(), &kept, time, block.at.start - open.payload_at);
        if block.discardable {
            open.stats.note_filler(track);
        }
    }

    /// Nothing but a Timestamp and blocks is ours; a Void was a picture behind damage.
    fn cluster_element(&mut self, id: u64) {
        let Some(open) = &mut self.open else { return };
        if id != id::VOID {
            open.intact = false;
            return;
        }
        for (track, hole_from) in open.hole_from.iter_mut().enumerate() {
            if self.own.tracks[track].codec.kind() == Kind::Video {
                let last = open.stats.tracks[track].last.max(self.index.tracks[track].last);
                hole_from.get_or_insert(last);
            }
        }
    }

    fn end_cluster(&mut self, end: u64) {
        let Some(open) = self.open.take() else { return };
        // A Void has at least 2 bytes: with less than that between, this cluster goes too.
        let coverable = self.damaged_from.is_none_or(|from| open.at - from >= 2);
        if !open.intact || !coverable {
            self.mark_damaged(open.at);
            return;
        }
        if let Some(from) = self.damaged_from.take()
            && self.covered.take() != Some(from..open.at)
        {
            self.patches.push(Patch { at: from, bytes: void_header(open.at - from) });
            self.damaged += open.at - from;
        }
        self.index.commit(&open.stats, open.at - self.own.layout.segment_at);
        self.patches.extend(open.voids);
        self.holes.extend(open.holes);
        self.hole_from = open.hole_from;
        self.end = end;
    }

    /// What was found once all items are taken; `None` if the damage is beyond repair.
    pub fn finish(self) -> Option<InPlacePlan> {
        let Self { index, end, patches, damaged, holes, .. } = self;
        (patches.len() <= MAX_PATCHES).then_some(InPlacePlan { index, end, patches, damaged, holes })
    }
}

/// The first bytes of a Void that takes up `len` bytes, at least 2.
fn void_header(len: u64) -> Vec<u8> {
    if len < 9 {
        return vec![id::VOID as u8, 0x80 | (len - 2) as u8];
    }
    let mut bytes = vec![id::VOID as u8];
    bytes.extend_from_slice(&((len - 9) | 1 << 56).to_be_bytes());
    bytes
}
