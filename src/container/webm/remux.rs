//! A plan for a whole, seekable copy of any WebM or Matroska file.
//!
//! The file is read once, which tells where every byte of the copy comes from: a new head with
//! Duration and the position of Cues, each cluster with its size, blocks and entries of tracks byte for
//! byte, attachments, tags with statistics of what is in the copy, Cues. So the copy is written front
//! to back, whatever its size. Blocks of a cluster that is cut off in its middle are kept as far as they
//! are whole.

mod fill;
mod head;
mod plan;
mod runs;

pub use plan::{CopyPlan, Extent};
pub use runs::PacketRun;

use crate::container::Defect;
use crate::container::webm::StoredBlock;
use crate::container::webm::cluster::{Block, ClusterStats};
use crate::container::webm::cues::{Index, cues, ticks};
use crate::container::webm::ebml::{child, id};
use crate::container::webm::file_header::{cluster_positions, cues_position};
use crate::container::webm::read::Item;
use crate::container::webm::tags;
use crate::container::webm::tracks::{self, ForeignTrack, Info};
use crate::container::webm::write::MAKER;
use crate::media::{opus, vp8};
use head::HeadBuilder;
use plan::{ClusterPart, MASTER_LEN, PlannedCluster, TIME_LEN};
use runs::PacketRuns;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::ops::Range;
use std::time::Duration;

/// Parts of clusters a plan may have, 32 bytes each: four days of a cluster a second, and more.
const MAX_PARTS: usize = 1 << 20;
/// Bytes of tags that are taken apart.
const MAX_TAGS: usize = 4 << 20;

/// Why a file can't be copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemuxError {
    /// Nothing says what is in it.
    #[error("its description of tracks is missing or damaged")]
    Tracks,
    /// Its times can't be told.
    #[error("its Info is damaged")]
    Info,
    /// No block.
    #[error("no media: not one whole frame is in it")]
    NoMedia,
    /// One file behind the other.
    #[error("another file begins in it at byte {0}: split it there")]
    SecondFile(u64),
    /// A block of a track that is not declared, where nothing is damaged.
    #[error("it has frames of track {0}, which it doesn't declare")]
    UndeclaredTrack(u64),
    /// Which of its frames it is for can't be told.
    #[error("a cluster of it tells its time behind its frames")]
    LateTime,
    /// Beyond any recording.
    #[error("it is cut into too many pieces")]
    TooManyParts,
}

#[derive(Debug)]
struct OpenCluster {
    original: u64,
    time: Option<u64>,
    first_part: usize,
    len: u64,
    stats: ClusterStats,
    blocks: u64,
}

impl OpenCluster {
    fn begin(original: u64, first_part: usize, stats: ClusterStats) -> Self {
        Self { original, time: None, first_part, len: TIME_LEN, stats, blocks: 0 }
    }
}

/// Takes the items of any file.
#[derive(Debug, Default)]
pub struct Remux {
    doc: Option<(String, u64, u64)>,
    segment: Option<(u64, Option<u64>)>,
    seek_cues: Option<u64>,
    info: Option<Info>,
    tracks: Vec<ForeignTrack>,
    entries: Vec<u8>,
    index: Option<Index>,
    /// Index in `index`, of each track.
    indexed: Vec<Option<usize>>,
    frames: Vec<u64>,
    has_additions: Vec<bool>,
    open: Option<OpenCluster>,
    clusters: Vec<PlannedCluster>,
    parts: Vec<ClusterPart>,
    len: u64,
    extras: Vec<(u64, Range<u64>)>,
    /// What Tags say, but for statistics: the copy has its own.
    tags: Vec<u8>,
    cues: Option<(u64, Vec<u64>)>,
    unknown_sizes: bool,
    damaged: Vec<Range<u64>>,
    digest: DefaultHasher,
    /// What the copy has in addition to the original.
    runs: PacketRuns,
}

impl Remux {
    /// Takes the next item.
    pub fn take(&mut self, item: &Item<'_>) -> Result<(), RemuxError> {
        match item {
            Item::Header { at, .. } if self.doc.is_some() => return Err(RemuxError::SecondFile(*at)),
            Item::Header { doc_type, version, read_version, .. } => {
                self.doc = Some(((*doc_type).to_owned(), *version, *read_version));
            }
            Item::Segment { payload_at, size } => {
                if self.segment.is_some() {
                    return Err(RemuxError::SecondFile(*payload_at));
                }
                self.segment = Some((*payload_at, *size));
            }
            Item::Element { id, at, payload } => self.element(*id, at, payload)?,
            Item::Skipped { id: id::CUES, at } => self.cues = Some((at.start, Vec::new())),
            Item::Skipped { id: id @ (id::TAGS | id::CHAPTERS | id::ATTACHMENTS), at } => self.extra(*id, at),
            Item::Cluster { at, size, .. } => self.begin(*at, *size)?,
            Item::Time(time) => {
                if let Some(open) = &mut self.open {
                    if open.blocks > 0 {
                        return Err(RemuxError::LateTime);
                    }
                    open.time = Some(*time);
                    self.fill_up_to(*time)?;
                }
            }
            Item::Block(block) => self.block(block)?,
            // These would be wrong in the copy, or say nothing.
            Item::ClusterElement { id: id::VOID | id::CRC_32 | id::POSITION | id::PREV_SIZE, .. } => {}
            Item::ClusterElement { at, .. } => self.copy_range(at)?,
            Item::ClusterEnd { .. } => self.end_cluster(),
            Item::Damaged { at } => {
                self.end_cluster();
                if self.damaged.len() < MAX_PARTS {
                    self.damaged.push(at.clone());
                }
            }
            Item::Skipped { .. } => {}
        }
        Ok(())
    }

    fn element(&mut self, id: u64, at: &Range<u64>, payload: &[u8]) -> Result<(), RemuxError> {
        match id {
            id::INFO if self.info.is_none() => {
                self.info = Some(tracks::info(payload).ok_or(RemuxError::Info)?)
            }
            id::TRACKS if self.tracks.is_empty() => {
                self.tracks = tracks::tracks(payload).ok_or(RemuxError::Tracks)?;
                self.runs.keep(|number| self.tracks.iter().any(|track| track.number == number));
                self.entries = payload.to_vec();
            }
            id::CUES => self.cues = Some((at.start, cluster_positions(payload))),
            id::SEEK_HEAD => self.seek_cues = self.seek_cues.or(cues_position(payload)),
            id::TAGS => match tags::without_statistics(payload) {
                Some(kept) if self.tags.len() + kept.len() <= MAX_TAGS => self.tags.extend(kept),
                _ => self.extra(id, at),
            },
            _ => {}
        }
        Ok(())
    }

    /// Something to be copied behind the clusters.
    fn extra(&mut self, id: u64, at: &Range<u64>) {
        // Of each kind one is the rule; more than these are not kept apart.
        if self.extras.len() < 8 {
            self.extras.push((id, at.clone()));
        }
    }

    fn begin(&mut self, at: u64, size: Option<u64>) -> Result<(), RemuxError> {
        if self.index.is_none() {
            if self.tracks.is_empty() {
                return Err(RemuxError::Tracks);
            }
            let kinds: Vec<_> = self.tracks.iter().filter_map(|track| track.kind).collect();
            self.index = Some(Index::of(&kinds, self.tick()));
            let mut next = 0..;
            self.indexed = self.tracks.iter().map(|track| track.kind.and_then(|_| next.next())).collect();
            self.frames = vec![0; self.tracks.len()];
            self.has_additions = vec![false; self.tracks.len()];
        }
        self.unknown_sizes |= size.is_none();
        let stats = ClusterStats::new(self.tracks.len(), self.tick());
        let first_part = self.parts.len();
        self.open = Some(OpenCluster::begin(at, first_part, stats));
        Ok(())
    }

    fn tick(&self) -> Duration {
        self.info.as_ref().map_or(Duration::from_millis(1), |info| info.tick)
    }

    /// Has bytes of the original in the open cluster of the copy.
    fn copy_range(&mut self, at: &Range<u64>) -> Result<(), RemuxError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.len += at.end - at.start;
        match self.parts[open.first_part..].last_mut() {
            Some(ClusterPart::Original(last)) if last.end == at.start => last.end = at.end,
            _ => self.parts.push(ClusterPart::Original(at.clone())),
        }
        self.check_parts()
    }

    fn check_parts(&self) -> Result<(), RemuxError> {
        if self.parts.len() > MAX_PARTS { Err(RemuxError::TooManyParts) } else { Ok(()) }
    }

    fn block(&mut self, block: &StoredBlock<'_>) -> Result<(), RemuxError> {
        let Some(track) = self.tracks.iter().position(|track| track.number == block.track) else {
            // Behind damage it is noise that looks like a block; players pass over both.
            return if self.damaged.is_empty() {
                Err(RemuxError::UndeclaredTrack(block.track))
            } else {
                Ok(())
            };
        };
        let time = u64::try_from(block.time).unwrap_or(0);
        self.fill_before(block.track, time)?;
        self.runs.count_block(block.track);
        let relative = self.open.as_ref().map_or(0, |open| open.len);
        self.copy_range(&block.at)?;
        let tick = self.tick();
        let frames = block.frames().len() as u64;
        self.frames[track] += frames;
        self.has_additions[track] |= block.has_additions;
        self.digest_block(track, block);
        let Some(open) = &mut self.open else { return Ok(()) };
        open.blocks += 1;
        let (Some(indexed), Some(kind)) = (self.indexed[track], self.tracks[track].kind) else {
            return Ok(());
        };
        let foreign = &self.tracks[track];
        let data = block.frames().next().filter(|_| foreign.plain).unwrap_or_default();
        let size = (foreign.codec_id == "V_VP8" && block.keyframe).then(|| vp8::size(data)).flatten();
        let entry = Block { keyframe: block.keyframe, size, ..Block::of(indexed, &[]) };
        open.stats.add(kind, &entry, time, relative);
        let sounds = || -> Option<Duration> {
            let opus = foreign.plain && foreign.codec_id == "A_OPUS";
            opus.then(|| block.frames().map(opus::duration).sum::<Option<Duration>>()).flatten()
        };
        let told = block.duration.map(|duration| ticks(tick, duration));
        open.stats.tracks[indexed].last_sound = told.or_else(sounds);
        open.stats.tracks[indexed].frames += frames.saturating_sub(1);
        open.stats.tracks[indexed].bytes += block.frames().map(|frame| frame.len() as u64).sum::<u64>();
        Ok(())
    }

    fn digest_block(&mut self, track: usize, block: &StoredBlock<'_>) {
        self.digest.write_u64(self.tracks[track].number);
        self.digest.write_i128(block.time);
        self.digest.write_u8(u8::from(block.keyframe));
        for frame in block.frames() {
            self.digest.write_usize(frame.len());
            self.digest.write(frame);
        }
    }

    fn end_cluster(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (Some(time), Some(index), true) = (open.time, &mut self.index, open.blocks > 0) else {
            self.parts.truncate(open.first_part);
            return;
        };
        let mut head = [0; (MASTER_LEN + TIME_LEN) as usize];
        head[..4].copy_from_slice(&(id::CLUSTER as u32).to_be_bytes());
        head[4..12].copy_from_slice(&(open.len | 1 << 56).to_be_bytes());
        head[12..14].copy_from_slice(&[id::TIMESTAMP as u8, 0x88]);
        head[14..].copy_from_slice(&time.to_be_bytes());
        index.commit(&open.stats, self.len);
        let parts = open.first_part..self.parts.len();
        self.clusters.push(PlannedCluster { original: open.original, head, parts });
        self.len += MASTER_LEN + open.len;
    }

    /// The plan, once all items of a file of `len` bytes are taken.
    pub fn finish(mut self, len: u64) -> Result<CopyPlan, RemuxError> {
        self.end_cluster();
        // Clusters there may be that hold nothing but silence of ours.
        if self.frames.iter().all(|frames| *frames == 0) {
            return Err(RemuxError::NoMedia);
        }
        self.fill_up_to(u64::MAX)?;
        let index = self.index.take().ok_or(RemuxError::NoMedia)?;
        let (defects, tick) = (self.defects(len), self.tick());
        let damaged = self.damage(len);
        let muxer = self.info.as_ref().and_then(|info| child(&info.kept, id::MUXING_APP));
        let ours = muxer.is_some_and(|muxer| muxer.starts_with(MAKER.as_bytes()));
        let duration = index.duration();
        let numbers: Vec<u64> =
            self.tracks.iter().filter(|track| track.kind.is_some()).map(|track| track.number).collect();
        let tags = self.all_tags(&index);
        let head = HeadBuilder::new(&self, &index, !tags.is_empty());
        let mut points = index.cues();
        points.iter_mut().for_each(|point| point.cluster += head.len() - head.segment_at);
        let cues = cues(&points, |track| numbers.get(track).copied().unwrap_or(0));
        let (head, len) = head.finish(&self, &tags, &cues);
        Ok(CopyPlan {
            tracks: self.tracks.into_iter().zip(self.frames).collect(),
            duration,
            tick,
            ours,
            defects,
            damaged,
            len,
            digest: self.digest.finish(),
            head,
            clusters: self.clusters,
            parts: self.parts,
            runs: self.runs,
            extras: self.extras,
            tags,
            cues,
        })
    }

    fn defects(&self, len: u64) -> Vec<Defect> {
        let mut defects = Vec::new();
        let (segment_at, size) = self.segment.unwrap_or_default();
        if self.info.as_ref().and_then(|info| info.duration).is_none() {
            defects.push(Defect::Duration);
        }
        let is_cluster = |position: &u64| {
            let at = position.saturating_add(segment_at);
            self.clusters.binary_search_by_key(&at, |cluster| cluster.original).is_ok()
        };
        match &self.cues {
            Some((at, positions)) if !positions.is_empty() && positions.iter().all(is_cluster) => {
                let behind = self.clusters.first().is_some_and(|first| *at > first.original);
                if behind && self.seek_cues != Some(at - segment_at) {
                    defects.push(Defect::SeekHead);
                }
            }
            _ => defects.push(Defect::Cues),
        }
        if self.unknown_sizes || size.is_none_or(|size| size.saturating_add(segment_at) != len) {
            defects.push(Defect::Sizes);
        }
        defects
    }

    fn damage(&self, len: u64) -> (u64, u64) {
        let tail = |range: &&Range<u64>| range.end >= len;
        let sum = |at_end: bool| {
            let ranges = self.damaged.iter().filter(|range| tail(range) == at_end);
            ranges.map(|range| range.end - range.start).sum()
        };
        (sum(false), sum(true))
    }
}
