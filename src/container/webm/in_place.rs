//! What one of our own files needs that was never sealed, or whose bytes were damaged.
//!
//! It is cut behind its last whole cluster. Damage before that is covered by a Void from the start of
//! the cluster it is in to the next whole one, and pictures behind it by a Void each until the next
//! keyframe (T2): frames that can't be decoded are worse than a gap. Whatever is covered here is found
//! covered by a second run, which then treats it in the same way: the work may be cut off anywhere.

use crate::container::Patch;
use crate::container::webm::StoredBlock;
use crate::container::webm::cluster::{Block, ClusterStats};
use crate::container::webm::ebml::id;
use crate::container::webm::own_head::OwnHead;
use crate::container::webm::read::Item;
use crate::container::webm::seal::Index;
use crate::media::Kind;
use std::ops::Range;
use std::time::Duration;

/// Places that are covered. A file that needs more is not mended: it is random bytes rather than a
/// recording.
const MAX_PATCHES: usize = 1 << 18;

/// A part of a track that is not to be had any more; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Index of the track.
    pub track: usize,
    /// Time of the last frame before it.
    pub from: u64,
    /// Time of the first frame after it.
    pub to: u64,
}

/// What [`InPlaceRepair`] found.
#[derive(Debug)]
pub struct Mended {
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
    open: Option<Open>,
    /// Where damage began that no whole cluster has followed yet.
    bad_from: Option<u64>,
    /// The Void that it begins with.
    covered: Option<Range<u64>>,
    damaged: u64,
    /// Of each track: the time before a hole that is still open.
    holed: Vec<Option<u64>>,
    holes: Vec<Hole>,
}

/// The cluster being read.
#[derive(Debug)]
struct Open {
    at: u64,
    payload_at: u64,
    sound: bool,
    stats: ClusterStats,
    covers: Vec<Patch>,
    /// As `InPlaceRepair::holed`, should this cluster turn out to be whole.
    holed: Vec<Option<u64>>,
    holes: Vec<Hole>,
}

impl InPlaceRepair {
    /// For a file with this head.
    pub fn new(own: OwnHead) -> Self {
        let (index, end, holed) = (Index::new(&own.tracks), own.layout.len, vec![None; own.tracks.len()]);
        Self {
            own,
            index,
            end,
            patches: Vec::new(),
            open: None,
            bad_from: None,
            covered: None,
            damaged: 0,
            holed,
            holes: Vec::new(),
        }
    }

    /// Takes the next item.
    pub fn take(&mut self, item: &Item<'_>) {
        match item {
            Item::Cluster { at, payload_at, size } => {
                let mut holed = self.holed.clone();
                if self.bad_from.is_some() {
                    for (holed, track) in holed.iter_mut().zip(&self.index.tracks) {
                        holed.get_or_insert(track.last);
                    }
                }
                self.open = Some(Open {
                    at: *at,
                    payload_at: *payload_at,
                    // We never write a cluster without its size.
                    sound: size.is_some(),
                    stats: ClusterStats::new(self.own.tracks.len(), Duration::from_millis(1)),
                    covers: Vec::new(),
                    holed,
                    holes: Vec::new(),
                });
            }
            Item::Block(block) => self.block(block),
            Item::Aside { id, .. } => self.aside(*id),
            Item::ClusterEnd { at } => self.end_cluster(*at),
            Item::Damaged { at } => {
                let begin = self.open.take().map_or(at.start, |open| open.at);
                self.bad(begin);
            }
            // Damage that was covered before: nothing may be missing of it.
            Item::Passed { id: id::VOID, at } if at.start >= self.own.layout.len => {
                if self.bad_from.is_none() {
                    self.covered = Some(at.clone());
                }
                self.bad(at.start);
            }
            Item::Passed { at, .. } | Item::Element { at, .. } if at.start >= self.own.layout.len => {
                // An index, with clusters behind it or not.
                self.bad(at.start);
            }
            Item::Header { at, .. } if *at > 0 => self.bad(*at),
            _ => {}
        }
    }

    fn bad(&mut self, from: u64) {
        self.bad_from.get_or_insert(from);
    }

    fn block(&mut self, block: &StoredBlock<'_>) {
        let Some(open) = &mut self.open else { return };
        let track = self.own.track(block.track);
        let (Some(track), Ok(time), mut frames) = (track, u64::try_from(block.time), block.frames()) else {
            open.sound = false;
            return;
        };
        let codec = self.own.tracks[track].codec;
        let (Some(data), 0) = (frames.next(), frames.len()) else {
            open.sound = false;
            return;
        };
        // Pages that a power cut left unwritten are zeros, which no picture begins with.
        if codec.kind() == Kind::Video && (data.is_empty() || data.iter().take(10).all(|byte| *byte == 0)) {
            open.sound = false;
            return;
        }
        if let Some(from) = open.holed[track] {
            if codec.kind() == Kind::Video && !block.keyframe {
                // The ids of both have one byte, and the size stays the same.
                if self.patches.len() + open.covers.len() <= MAX_PATCHES {
                    open.covers.push(Patch { at: block.at.start, bytes: vec![id::VOID as u8] });
                }
                return;
            }
            open.holed[track] = None;
            open.holes.push(Hole { track, from, to: time });
        }
        let size = codec.size_of(data).filter(|_| block.keyframe);
        let kept = Block { keyframe: block.keyframe, size, aside: &block.aside, ..Block::of(track, data) };
        open.stats.add(codec.kind(), &kept, time, block.at.start - open.payload_at);
        if block.discardable {
            open.stats.note_filler(track);
        }
    }

    /// Nothing but a Timestamp and blocks is ours; a Void was a picture behind damage.
    fn aside(&mut self, id: u64) {
        let Some(open) = &mut self.open else { return };
        if id != id::VOID {
            open.sound = false;
            return;
        }
        for (track, holed) in open.holed.iter_mut().enumerate() {
            if self.own.tracks[track].codec.kind() == Kind::Video {
                let last = open.stats.tracks[track].last.max(self.index.tracks[track].last);
                holed.get_or_insert(last);
            }
        }
    }

    fn end_cluster(&mut self, end: u64) {
        let Some(open) = self.open.take() else { return };
        // A Void has at least 2 bytes: with less than that between, this cluster goes too.
        let coverable = self.bad_from.is_none_or(|from| open.at - from >= 2);
        if !open.sound || !coverable {
            self.bad(open.at);
            return;
        }
        if let Some(from) = self.bad_from.take()
            && self.covered.take() != Some(from..open.at)
        {
            self.patches.push(Patch { at: from, bytes: cover(open.at - from) });
            self.damaged += open.at - from;
        }
        self.index.commit(&open.stats, open.at - self.own.layout.segment_at);
        self.patches.extend(open.covers);
        self.holes.extend(open.holes);
        self.holed = open.holed;
        self.end = end;
    }

    /// What was found once all items are taken; `None` if the damage is beyond mending.
    pub fn finish(self) -> Option<Mended> {
        let Self { index, end, patches, damaged, holes, .. } = self;
        (patches.len() <= MAX_PATCHES).then_some(Mended { index, end, patches, damaged, holes })
    }
}

/// The first bytes of a Void that takes up `len` bytes, at least 2.
fn cover(len: u64) -> Vec<u8> {
    if len < 9 {
        return vec![id::VOID as u8, 0x80 | (len - 2) as u8];
    }
    let mut bytes = vec![id::VOID as u8];
    bytes.extend_from_slice(&((len - 9) | 1 << 56).to_be_bytes());
    bytes
}
