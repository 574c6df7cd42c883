//! A plan for a whole, seekable copy of any WebM or Matroska file.
//!
//! The file is read once, which tells where every byte of the copy comes from: a new head with
//! Duration and the place of Cues, each cluster with its size, blocks and entries of tracks byte for
//! byte, attachments, tags with statistics of what is in the copy, Cues. So the copy is written front
//! to back, whatever its size. Blocks of a cluster that is cut off in its middle are kept as far as they
//! are whole.

mod fill;
mod front;

pub use fill::Row;

use crate::container::webm::StoredBlock;
use crate::container::webm::cluster::{Block, ClusterStats};
use crate::container::webm::ebml::{child, children, id, read_uint};
use crate::container::webm::read::Item;
use crate::container::webm::seal::{Index, cues, ticks};
use crate::container::webm::tags;
use crate::container::webm::tracks::{self, ForeignTrack, Info};
use crate::container::webm::write::MAKER;
use crate::media::{opus, vp8};
use fill::{Packets, Rows};
use front::Front;
use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;
use std::ops::Range;
use std::time::Duration;

/// Pieces a plan may have, 32 bytes each: four days of a cluster a second, with room.
const MAX_PIECES: usize = 1 << 20;
/// Bytes of tags that are taken apart.
const MAX_TAGS: usize = 4 << 20;
/// Id, and a size of 8 bytes.
const MASTER_LEN: u64 = 12;
/// A Timestamp of 8 bytes.
const TIME_LEN: u64 = 10;

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
    /// A block of a track that nobody declared, where nothing is damaged.
    #[error("it has frames of track {0}, which it doesn't declare")]
    UndeclaredTrack(u64),
    /// Which of its frames it is for can't be told.
    #[error("a cluster of it tells its time behind its frames")]
    LateTime,
    /// Beyond any recording.
    #[error("it is cut into too many pieces")]
    TooManyPieces,
}

/// What keeps a file from being played and sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Info has no Duration.
    Duration,
    /// It has no index, or one that points elsewhere.
    Cues,
    /// Cues that no SeekHead tells of, so that a player would have to read the whole file to find them.
    SeekHead,
    /// Sizes that are unknown or wrong, as while a file is being written.
    Sizes,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duration => "no duration",
            Self::Cues => "no index",
            Self::SeekHead => "an index that players don't find",
            Self::Sizes => "unknown sizes",
        })
    }
}

/// Bytes of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These.
    Bytes(Cow<'a, [u8]>),
    /// Those of the original.
    Copy(Range<u64>),
}

/// A part of a cluster of the copy.
#[derive(Clone, Debug)]
enum Part {
    /// Bytes of the original.
    Copy(Range<u64>),
    /// Packets that it hasn't.
    Made(Packets),
}

/// A cluster of the copy.
#[derive(Clone, Debug)]
struct PlannedCluster {
    /// Where it begins in the original.
    original: u64,
    /// Its header and Timestamp.
    head: [u8; (MASTER_LEN + TIME_LEN) as usize],
    pieces: Range<usize>,
}

/// The cluster being read.
#[derive(Debug)]
struct Open {
    original: u64,
    time: Option<u64>,
    first_piece: usize,
    len: u64,
    stats: ClusterStats,
    blocks: u64,
}

impl Open {
    fn begin(original: u64, first_piece: usize, stats: ClusterStats) -> Self {
        Self { original, time: None, first_piece, len: TIME_LEN, stats, blocks: 0 }
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
    /// Tracks' payload.
    entries: Vec<u8>,
    index: Option<Index>,
    /// Index in `index`, of each track.
    indexed: Vec<Option<usize>>,
    frames: Vec<u64>,
    additions: Vec<bool>,
    open: Option<Open>,
    clusters: Vec<PlannedCluster>,
    pieces: Vec<Part>,
    len: u64,
    extras: Vec<(u64, Range<u64>)>,
    /// What Tags say, but for statistics: the copy has its own.
    tags: Vec<u8>,
    cues: Option<(u64, Vec<u64>)>,
    unknown_sizes: bool,
    damaged: Vec<Range<u64>>,
    digest: DefaultHasher,
    /// What the copy has that the original hasn't.
    rows: Rows,
}

/// How to make the copy, and what was found.
#[derive(Debug)]
pub struct Plan {
    /// The tracks, and the frames of each.
    pub tracks: Vec<(ForeignTrack, u64)>,
    /// From 0 to the end of the frame that ends last.
    pub duration: Duration,
    /// Length of its ticks.
    pub tick: Duration,
    /// It says that we wrote it.
    pub ours: bool,
    /// What the original lacks.
    pub lacks: Vec<Lack>,
    /// Bytes that make no sense or belong to nothing whole, before the end and at the end.
    pub damaged: (u64, u64),
    /// Length of the copy.
    pub len: u64,
    /// Of all frames with their tracks and times, in their order.
    pub digest: u64,
    head: Vec<u8>,
    clusters: Vec<PlannedCluster>,
    pieces: Vec<Part>,
    rows: Rows,
    extras: Vec<(u64, Range<u64>)>,
    tags: Vec<u8>,
    cues: Vec<u8>,
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
            Item::Passed { id: id::CUES, at } => self.cues = Some((at.start, Vec::new())),
            Item::Passed { id: id @ (id::TAGS | id::CHAPTERS | id::ATTACHMENTS), at } => self.extra(*id, at),
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
            Item::Aside { id: id::VOID | id::CRC_32 | id::POSITION | id::PREV_SIZE, .. } => {}
            Item::Aside { at, .. } => self.keep(at)?,
            Item::ClusterEnd { .. } => self.end_cluster(),
            Item::Damaged { at } => {
                self.end_cluster();
                if self.damaged.len() < MAX_PIECES {
                    self.damaged.push(at.clone());
                }
            }
            Item::Passed { .. } => {}
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
                self.rows.keep(|number| self.tracks.iter().any(|track| track.number == number));
                self.entries = payload.to_vec();
            }
            id::CUES => self.cues = Some((at.start, cue_clusters(payload))),
            id::SEEK_HEAD => self.seek_cues = self.seek_cues.or(sought(payload, id::CUES)),
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
            self.additions = vec![false; self.tracks.len()];
        }
        self.unknown_sizes |= size.is_none();
        let stats = ClusterStats::new(self.tracks.len(), self.tick());
        let first_piece = self.pieces.len();
        self.open = Some(Open::begin(at, first_piece, stats));
        Ok(())
    }

    fn tick(&self) -> Duration {
        self.info.as_ref().map_or(Duration::from_millis(1), |info| info.tick)
    }

    /// Has bytes of the original in the open cluster of the copy.
    fn keep(&mut self, at: &Range<u64>) -> Result<(), RemuxError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.len += at.end - at.start;
        match self.pieces[open.first_piece..].last_mut() {
            Some(Part::Copy(last)) if last.end == at.start => last.end = at.end,
            _ => self.pieces.push(Part::Copy(at.clone())),
        }
        self.check_pieces()
    }

    fn check_pieces(&self) -> Result<(), RemuxError> {
        if self.pieces.len() > MAX_PIECES { Err(RemuxError::TooManyPieces) } else { Ok(()) }
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
        self.rows.pass(block.track);
        let relative = self.open.as_ref().map_or(0, |open| open.len);
        self.keep(&block.at)?;
        let tick = self.tick();
        let frames = block.frames().len() as u64;
        self.frames[track] += frames;
        self.additions[track] |= block.additions;
        self.note(track, block);
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

    fn note(&mut self, track: usize, block: &StoredBlock<'_>) {
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
            self.pieces.truncate(open.first_piece);
            return;
        };
        let mut head = [0; (MASTER_LEN + TIME_LEN) as usize];
        head[..4].copy_from_slice(&(id::CLUSTER as u32).to_be_bytes());
        head[4..12].copy_from_slice(&(open.len | 1 << 56).to_be_bytes());
        head[12..14].copy_from_slice(&[id::TIMESTAMP as u8, 0x88]);
        head[14..].copy_from_slice(&time.to_be_bytes());
        index.commit(&open.stats, self.len);
        let pieces = open.first_piece..self.pieces.len();
        self.clusters.push(PlannedCluster { original: open.original, head, pieces });
        self.len += MASTER_LEN + open.len;
    }

    /// The plan, once all items of a file of `len` bytes are taken.
    pub fn finish(mut self, len: u64) -> Result<Plan, RemuxError> {
        self.end_cluster();
        // Clusters there may be that hold nothing but silence of ours.
        if self.frames.iter().all(|frames| *frames == 0) {
            return Err(RemuxError::NoMedia);
        }
        self.fill_up_to(u64::MAX)?;
        let index = self.index.take().ok_or(RemuxError::NoMedia)?;
        let (lacks, tick) = (self.lacks(len), self.tick());
        let damaged = self.damage(len);
        let muxer = self.info.as_ref().and_then(|info| child(&info.kept, id::MUXING_APP));
        let ours = muxer.is_some_and(|muxer| muxer.starts_with(MAKER.as_bytes()));
        let duration = index.duration();
        let numbers: Vec<u64> =
            self.tracks.iter().filter(|track| track.kind.is_some()).map(|track| track.number).collect();
        let tags = self.all_tags(&index);
        let head = Front::new(&self, &index, !tags.is_empty());
        let mut points = index.cues();
        points.iter_mut().for_each(|point| point.cluster += head.len() - head.segment_at);
        let cues = cues(&points, |track| numbers.get(track).copied().unwrap_or(0));
        let (head, len) = head.finish(&self, &tags, &cues);
        Ok(Plan {
            tracks: self.tracks.into_iter().zip(self.frames).collect(),
            duration,
            tick,
            ours,
            lacks,
            damaged,
            len,
            digest: self.digest.finish(),
            head,
            clusters: self.clusters,
            pieces: self.pieces,
            rows: self.rows,
            extras: self.extras,
            tags,
            cues,
        })
    }

    fn lacks(&self, len: u64) -> Vec<Lack> {
        let mut lacks = Vec::new();
        let (segment_at, size) = self.segment.unwrap_or_default();
        if self.info.as_ref().and_then(|info| info.duration).is_none() {
            lacks.push(Lack::Duration);
        }
        let is_cluster = |position: &u64| {
            let at = position.saturating_add(segment_at);
            self.clusters.binary_search_by_key(&at, |cluster| cluster.original).is_ok()
        };
        match &self.cues {
            Some((at, positions)) if !positions.is_empty() && positions.iter().all(is_cluster) => {
                let behind = self.clusters.first().is_some_and(|first| *at > first.original);
                if behind && self.seek_cues != Some(at - segment_at) {
                    lacks.push(Lack::SeekHead);
                }
            }
            _ => lacks.push(Lack::Cues),
        }
        if self.unknown_sizes || size.is_none_or(|size| size.saturating_add(segment_at) != len) {
            lacks.push(Lack::Sizes);
        }
        lacks
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

/// The positions of clusters that Cues name.
fn cue_clusters(payload: &[u8]) -> Vec<u64> {
    let points = children(payload).filter(|point| point.id == id::CUE_POINT);
    let places = points.flat_map(|point| {
        let places = children(point.payload).filter(|child| child.id == id::CUE_TRACK_POSITIONS);
        places.filter_map(|place| child(place.payload, id::CUE_CLUSTER_POSITION).and_then(read_uint))
    });
    places.collect()
}

/// Where a SeekHead says that an element is.
fn sought(payload: &[u8], wanted: u64) -> Option<u64> {
    let mut seeks = children(payload).filter(|seek| seek.id == id::SEEK);
    let number = |payload, id| child(payload, id).and_then(read_uint);
    let found = seeks.find(|seek| number(seek.payload, id::SEEK_ID) == Some(wanted))?;
    number(found.payload, id::SEEK_POSITION)
}

impl Plan {
    /// The copy, front to back.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let clusters = self.clusters.iter().flat_map(|cluster| {
            let parts = self.pieces[cluster.pieces.clone()].iter().map(|part| match part {
                Part::Copy(range) => Piece::Copy(range.clone()),
                Part::Made(packets) => Piece::Bytes(self.rows.blocks(packets, self.tick).into()),
            });
            std::iter::once(Piece::Bytes((&cluster.head[..]).into())).chain(parts)
        });
        let extras = self.extras.iter().map(|(_, range)| Piece::Copy(range.clone()));
        let end = [&self.tags, &self.cues].into_iter().map(|bytes| Piece::Bytes(bytes.into()));
        std::iter::once(Piece::Bytes((&self.head).into())).chain(clusters).chain(extras).chain(end)
    }

    /// Whether the original plays and seeks as well as a copy would.
    pub fn is_whole(&self) -> bool {
        // Without a single place to seek to there is nothing to index.
        let nothing_more = |lack: &Lack| *lack == Lack::Cues && self.cues.is_empty();
        self.lacks.iter().all(nothing_more) && self.damaged == (0, 0)
    }
}
