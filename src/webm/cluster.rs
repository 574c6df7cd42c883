//! Clusters: frames in, whole clusters of known size out.

use crate::media::{Codec, Kind, Size, Track, opus};
use crate::webm::ebml::id;
use crate::webm::pace::{PAUSE, Pace, in_ticks};
use ebml_iterable::tools::Vint;
use std::ops::Range;
use std::time::Duration;

/// A block's time is a signed 16-bit offset from its cluster's (RFC 9559 section 10.2).
const MAX_OFFSET_MS: u64 = i16::MAX as u64;
/// RFC 9559 section 25.1 advises at most 5 MB a cluster: what a reader must hold to step back in it.
const MAX_BYTES: usize = 5_000_000;
/// Places to seek to that one cluster can have. Ours have a keyframe at most; a foreign one of 32 s might
/// consist of them.
const MAX_CUES: usize = 1 << 14;
/// Id, and a size field of 4 bytes: up to 256 MiB, far more than one block over [`MAX_BYTES`].
const HEADER_LEN: usize = 8;

/// One frame on its way into a file.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Index of its track.
    pub track: usize,
    /// Time in the file.
    pub time: Duration,
    /// Can be decoded without any other frame.
    pub keyframe: bool,
    /// Picture size, on video keyframes.
    pub size: Option<Size>,
    /// The codec's bitstream.
    pub data: &'a [u8],
}

/// Builds clusters in one buffer that is used again and again.
///
/// A cluster ends before each video keyframe (but where all pictures are keyframes), when it would span more than the given time, the 16-bit
/// limit or 5 MB, and before a block that would have to go back in time in it.
#[derive(Debug)]
pub struct Clusters {
    codecs: Vec<Codec>,
    /// The newest tick of each track; a track's ticks strictly increase over all clusters.
    newest: Vec<Option<u64>>,
    max_span: u64,
    bytes: Vec<u8>,
    closed: Vec<Cluster>,
    open: Option<Open>,
}

/// A finished cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Where it lies in [`Clusters::bytes`].
    pub range: Range<usize>,
    /// What it holds.
    pub tally: Tally,
}

#[derive(Debug)]
struct Open {
    at: usize,
    start: u64,
    newest: u64,
    tally: Tally,
}

impl Clusters {
    /// A builder for a file with these tracks, of clusters that span at most `max_span`.
    pub fn new(tracks: &[Track], max_span: Duration) -> Self {
        Self {
            codecs: tracks.iter().map(|track| track.codec).collect(),
            newest: vec![None; tracks.len()],
            max_span: (max_span.as_millis() as u64).min(MAX_OFFSET_MS),
            bytes: Vec::new(),
            closed: Vec::new(),
            open: None,
        }
    }

    /// Adds a block. Its time is rounded to the nearest millisecond that is later than all before it
    /// on its track.
    pub fn push(&mut self, block: &Block<'_>) {
        self.put(block, false);
    }

    /// Adds a packet that was made up to fill a hole of sound. It is marked discardable, so that it can be
    /// told from what was received.
    pub fn fill(&mut self, track: usize, time: Duration, data: &[u8]) {
        self.put(&Block { track, time, keyframe: true, size: None, data }, true);
    }

    fn put(&mut self, block: &Block<'_>, filler: bool) {
        let nearest = (block.time.as_micros() as u64 + 500) / 1000;
        let tick = self.newest[block.track].map_or(nearest, |newest| nearest.max(newest + 1));
        self.newest[block.track] = Some(tick);
        let codec = self.codecs[block.track];
        let begins = codec.kind() == Kind::Video && block.keyframe && !codec.is_intra_only();
        if self.must_end(tick, begins) {
            self.finish();
        }
        let (bytes, tracks) = (&mut self.bytes, self.codecs.len());
        let open = self.open.get_or_insert_with(|| Open::begin(bytes, tick, tracks));
        open.newest = tick;
        let relative = self.bytes.len() - open.at - HEADER_LEN;
        open.tally.add(codec.kind(), block, tick, relative as u64);
        if filler {
            open.tally.note_filler(block.track);
        }
        write_block(&mut self.bytes, block, (tick - open.start) as i16, filler);
    }

    fn must_end(&self, tick: u64, video_keyframe: bool) -> bool {
        self.open.as_ref().is_some_and(|open| {
            video_keyframe
                || tick < open.newest
                || tick - open.start > self.max_span
                || self.bytes.len() - open.at > MAX_BYTES
        })
    }

    /// Ends the open cluster.
    pub fn finish(&mut self) {
        let Some(open) = self.open.take() else { return };
        let size = (self.bytes.len() - open.at - HEADER_LEN) as u32;
        self.bytes[open.at + 4..open.at + HEADER_LEN].copy_from_slice(&(size | 0x1000_0000).to_be_bytes());
        self.closed.push(Cluster { range: open.at..self.bytes.len(), tally: open.tally });
    }

    /// The finished clusters.
    pub fn finished(&self) -> &[Cluster] {
        &self.closed
    }

    /// The bytes of the finished clusters, and of an open one after them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the finished clusters and keeps their buffer, unless it has grown unusually large.
    /// Call after [`Clusters::finish`].
    pub fn clear(&mut self) {
        self.closed.clear();
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
    }
}

impl Open {
    fn begin(bytes: &mut Vec<u8>, start: u64, tracks: usize) -> Self {
        let at = bytes.len();
        bytes.extend_from_slice(&(id::CLUSTER as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[id::TIMESTAMP as u8, 0x88]);
        bytes.extend_from_slice(&start.to_be_bytes());
        Self { at, start, newest: start, tally: Tally::new(tracks, Duration::from_millis(1)) }
    }
}

/// Writes a SimpleBlock (RFC 9559 section 10.2) without the second copy of the payload that a general
/// writer would make: this is the one place that every recorded byte passes.
fn write_block(out: &mut Vec<u8>, block: &Block<'_>, offset: i16, discardable: bool) {
    let track = (block.track as u64 + 1).as_vint().expect("a track number fits");
    let size = (track.len() + 3 + block.data.len()) as u64;
    out.push(id::SIMPLE_BLOCK as u8);
    out.extend(size.as_vint().expect("a block's size fits"));
    out.extend(track);
    out.extend_from_slice(&offset.to_be_bytes());
    out.push(u8::from(block.keyframe) << 7 | u8::from(discardable));
    out.extend_from_slice(block.data);
}

/// What a cluster holds, as far as the index must know it.
#[derive(Clone, Debug)]
pub struct Tally {
    pub(super) tracks: Vec<TrackTally>,
    pub(super) cues: Vec<Cue>,
    /// [`PAUSE`] in ticks.
    pause: u64,
}

/// What a cluster holds of one track; times in ticks.
#[derive(Clone, Debug, Default)]
pub(super) struct TrackTally {
    pub frames: u64,
    pub filled: u64,
    pub first: u64,
    pub before_last: Option<u64>,
    pub last: u64,
    pub pace: Pace,
    pub last_sound: Option<Duration>,
    pub width: u32,
    pub height: u32,
}

/// A block worth seeking to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cue {
    pub track: usize,
    pub kind: Kind,
    pub time: u64,
    /// Offset of the block in the cluster's payload.
    pub relative: u64,
}

impl Tally {
    /// Nothing yet of `tracks` tracks, in a file whose ticks are so long.
    pub fn new(tracks: usize, tick: Duration) -> Self {
        let pause = in_ticks(PAUSE, tick);
        Self { tracks: vec![TrackTally::default(); tracks], cues: Vec::new(), pause }
    }

    /// Of a track's frames so far, one more was made up.
    pub fn note_filler(&mut self, track: usize) {
        self.tracks[track].filled += 1;
    }

    /// Counts a block that begins `relative` bytes into its cluster's payload, at so many ticks.
    pub fn add(&mut self, kind: Kind, block: &Block<'_>, tick: u64, relative: u64) {
        let track = &mut self.tracks[block.track];
        let cue = match kind {
            Kind::Video => block.keyframe,
            // One a cluster; the index thins them out.
            Kind::Audio => track.frames == 0,
        };
        if cue && self.cues.len() < MAX_CUES {
            self.cues.push(Cue { track: block.track, kind, time: tick, relative });
        }
        if track.frames == 0 {
            track.first = tick;
        } else {
            track.before_last = Some(track.last);
        }
        track.last = tick;
        track.frames += 1;
        track.pace.join(&Pace::of(tick), self.pause);
        if kind == Kind::Audio {
            track.last_sound = opus::duration(block.data);
        }
        if let Some(size) = block.size {
            track.width = track.width.max(size.width);
            track.height = track.height.max(size.height);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    fn push(clusters: &mut Clusters, track: usize, millis: f64, keyframe: bool, bytes: usize) {
        let time = Duration::from_secs_f64(millis / 1000.0);
        clusters.push(&Block { track, time, keyframe, size: None, data: &vec![0; bytes] });
    }

    /// The start of each finished cluster, in ms.
    fn starts(clusters: &Clusters) -> Vec<u64> {
        let start = |cluster: &Cluster| {
            let at = cluster.range.start + HEADER_LEN + 2;
            u64::from_be_bytes(clusters.bytes()[at..at + 8].try_into().unwrap())
        };
        clusters.finished().iter().map(start).collect()
    }

    #[test]
    fn a_cluster_ends_before_each_keyframe_and_at_each_limit() {
        let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(3600));
        push(&mut clusters, 1, 0.0, true, 10);
        push(&mut clusters, 0, 5.0, true, 10);
        push(&mut clusters, 0, 38.0, false, 10);
        push(&mut clusters, 0, 71.0, true, 10);
        push(&mut clusters, 1, 71.0 + 32_767.0, true, 10);
        push(&mut clusters, 1, 72.0 + 32_767.0, true, MAX_BYTES);
        push(&mut clusters, 1, 40_000.0, true, 10);
        clusters.finish();
        assert_eq!(starts(&clusters), [0, 5, 71, 32_839, 40_000]);
        let mut short = Clusters::new(&TRACKS, Duration::from_secs(1));
        for step in 0..100 {
            push(&mut short, 1, f64::from(step) * 20.0, true, 10);
        }
        short.finish();
        assert_eq!(starts(&short), [0, 1020], "a cluster of more than the span it may have");
    }

    #[test]
    fn ticks_strictly_increase_on_each_track_and_never_go_back_in_a_cluster() {
        let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
        for step in 0..8 {
            push(&mut clusters, 1, f64::from(step) * 0.25, true, 1);
        }
        push(&mut clusters, 0, 2.0, false, 1);
        clusters.finish();
        let newest: Vec<_> = clusters.newest.iter().map(|tick| tick.unwrap()).collect();
        assert_eq!(newest, [2, 7]);
        assert_eq!(starts(&clusters), [0, 2], "a block that is earlier begins its own cluster");
    }

    #[test]
    fn the_buffer_is_kept_but_not_at_its_worst_size() {
        let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
        push(&mut clusters, 0, 0.0, true, 3 << 20);
        clusters.finish();
        clusters.clear();
        assert!(clusters.finished().is_empty() && clusters.bytes().is_empty());
        assert!(clusters.bytes.capacity() <= 1 << 20, "{} bytes are kept", clusters.bytes.capacity());
    }
}
