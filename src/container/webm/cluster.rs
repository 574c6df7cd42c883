//! Clusters: frames in, whole clusters of known size out.

use crate::container::webm::block::has_additions;
use crate::container::webm::ebml::id;
use crate::container::webm::frame_interval::{FrameInterval, PAUSE, in_ticks};
use crate::media::{Codec, Frame, Kind, Size, Track, opus};
use ebml_iterable::tools::Vint;
use std::ops::Range;
use std::time::Duration;

/// A block's time is a signed 16-bit offset from its cluster's (RFC 9559 section 10.2).
const MAX_OFFSET_MS: u64 = i16::MAX as u64;
/// RFC 9559 section 25.1 advises at most 5 MB a cluster: what a reader must hold to step back in it.
const MAX_BYTES: usize = 5_000_000;
/// Cue points that one cluster can have. Ours have a keyframe at most; a foreign one of 32 s might
/// consist of them.
const MAX_CUES: usize = 1 << 14;
/// A ReferenceBlock: what a frame refers to does not matter, but that it does makes it no
/// keyframe.
const REFERENCE: [u8; 3] = [id::REFERENCE_BLOCK as u8, 0x81, 0xff];
/// Id, and a size field of 4 bytes: up to 256 MiB, far more than one block over [`MAX_BYTES`].
const HEADER_LEN: usize = 8;

/// One frame on its way into a file.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Index of its track.
    pub track: usize,
    /// Time in the file, by which it is ordered.
    pub time: Duration,
    /// How long before that it is shown: see [`crate::media::Frame::early`].
    pub early: Duration,
    /// Can be decoded without any other frame.
    pub keyframe: bool,
    /// Picture size, on video keyframes.
    pub size: Option<Size>,
    /// The codec's bitstream.
    pub data: &'a [u8],
    /// BlockAdditions and DiscardPadding: see [`crate::media::Frame::side_data`].
    pub side_data: &'a [u8],
}

impl<'a> Block<'a> {
    /// A block at time 0 that is no keyframe.
    pub fn of(track: usize, data: &'a [u8]) -> Self {
        let (time, early) = (Duration::ZERO, Duration::ZERO);
        Self { track, time, early, keyframe: false, size: None, data, side_data: &[] }
    }
}

impl<'a> From<&'a Frame> for Block<'a> {
    fn from(frame: &'a Frame) -> Self {
        let Frame { track, time, early, keyframe, size, ref data, ref side_data, .. } = *frame;
        Self { track, time, early, keyframe, size, data, side_data }
    }
}

/// Builds clusters in one buffer.
///
/// A cluster ends before each video keyframe (but where all pictures are keyframes), when it would span more
/// than the given time, the 16-bit limit or 5 MB, and before a block that would have to go back in time in it.
#[derive(Debug)]
pub struct Clusters {
    codecs: Vec<Codec>,
    /// The newest tick of each track; a track's ticks strictly increase over all clusters.
    newest: Vec<Option<u64>>,
    max_span: u64,
    bytes: Vec<u8>,
    closed: Vec<Cluster>,
    open: Option<OpenCluster>,
}

/// A finished cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Where it lies in [`Clusters::bytes`].
    pub range: Range<usize>,
    /// What it holds.
    pub stats: ClusterStats,
}

#[derive(Debug)]
struct OpenCluster {
    at: usize,
    start: u64,
    newest: u64,
    stats: ClusterStats,
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
    pub fn push_filler(&mut self, track: usize, time: Duration, data: &[u8]) {
        self.put(&Block { time, keyframe: true, ..Block::of(track, data) }, true);
    }

    fn put(&mut self, block: &Block<'_>, filler: bool) {
        let nearest = nearest_ms(block.time);
        let tick = self.newest[block.track].map_or(nearest, |newest| nearest.max(newest + 1));
        self.newest[block.track] = Some(tick);
        // What moves a block in the file's order moves when it is shown.
        let shown = nearest_ms(block.time.saturating_sub(block.early)) + (tick - nearest);
        let codec = self.codecs[block.track];
        let begins = codec.kind() == Kind::Video && block.keyframe && !codec.is_intra_only();
        if self.must_end(tick, begins) {
            self.finish();
        }
        let (bytes, tracks) = (&mut self.bytes, self.codecs.len());
        let open = self.open.get_or_insert_with(|| OpenCluster::begin(bytes, tick, tracks));
        open.newest = tick;
        let relative = self.bytes.len() - open.at - HEADER_LEN;
        open.stats.add(codec.kind(), block, shown, relative as u64);
        if filler {
            open.stats.note_filler(block.track);
        }
        let offset = shown as i64 - open.start as i64;
        write_block(&mut self.bytes, block, offset.max(i16::MIN.into()) as i16, filler);
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
        self.closed.push(Cluster { range: open.at..self.bytes.len(), stats: open.stats });
    }

    /// The finished clusters.
    pub fn finished(&self) -> &[Cluster] {
        &self.closed
    }

    /// The bytes of the finished clusters, and of an open one after them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the finished clusters, and their memory: the next ones are a second away, and meanwhile other files
    /// need it. Call after [`Clusters::finish`].
    pub fn clear(&mut self) {
        self.closed.clear();
        self.bytes = Vec::new();
    }

    /// So many bytes more will be pushed.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }
}

impl OpenCluster {
    fn begin(bytes: &mut Vec<u8>, start: u64, tracks: usize) -> Self {
        let at = bytes.len();
        bytes.extend_from_slice(&(id::CLUSTER as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[id::TIMESTAMP as u8, 0x88]);
        bytes.extend_from_slice(&start.to_be_bytes());
        Self { at, start, newest: start, stats: ClusterStats::new(tracks, Duration::from_millis(1)) }
    }
}

fn nearest_ms(time: Duration) -> u64 {
    (time.as_micros() as u64 + 500) / 1000
}

/// Writes a SimpleBlock (RFC 9559 section 10.2) without the second copy of the payload that a general
/// writer would make: every recorded byte passes here. Side data makes it a BlockGroup.
pub(super) fn write_block(out: &mut Vec<u8>, block: &Block<'_>, offset: i16, discardable: bool) {
    let track = (block.track as u64 + 1).as_vint().expect("a track number fits");
    let size = (track.len() + 3 + block.data.len()) as u64;
    let size = size.as_vint().expect("a block's size fits");
    let mut flags = if block.keyframe { 0x80 } else { 0 };
    if block.side_data.is_empty() {
        out.push(id::SIMPLE_BLOCK as u8);
    } else {
        let refers = if block.keyframe { 0 } else { REFERENCE.len() };
        let len = 1 + size.len() + track.len() + 3 + block.data.len() + block.side_data.len() + refers;
        out.push(id::BLOCK_GROUP as u8);
        out.extend((len as u64).as_vint().expect("a group's size fits"));
        out.extend_from_slice(block.side_data);
        out.extend_from_slice(&REFERENCE[..refers]);
        out.push(id::BLOCK as u8);
        flags = 0;
    }
    out.extend(size);
    out.extend(track);
    out.extend_from_slice(&offset.to_be_bytes());
    out.push(flags | u8::from(discardable));
    out.extend_from_slice(block.data);
}

/// What a cluster holds, as far as the index must know it.
#[derive(Clone, Debug)]
pub struct ClusterStats {
    pub(super) tracks: Vec<TrackStats>,
    pub(super) cues: Vec<Cue>,
    /// [`PAUSE`] in ticks.
    pause: u64,
}

/// What a cluster holds of one track; times in ticks.
#[derive(Clone, Debug, Default)]
pub(super) struct TrackStats {
    pub frames: u64,
    pub filled: u64,
    pub bytes: u64,
    pub first: u64,
    pub before_last: Option<u64>,
    pub last: u64,
    pub interval: FrameInterval,
    pub last_sound: Option<Duration>,
    pub width: u32,
    pub height: u32,
    /// A block has BlockAdditions.
    pub has_additions: bool,
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

impl ClusterStats {
    /// Nothing yet of `tracks` tracks, in a file whose ticks are so long.
    pub fn new(tracks: usize, tick: Duration) -> Self {
        let pause = in_ticks(PAUSE, tick);
        Self { tracks: vec![TrackStats::default(); tracks], cues: Vec::new(), pause }
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
            track.before_last = track.before_last.max(Some(track.last.min(tick)));
        }
        // Pictures shown before others that were sent before them don't end the track.
        track.last = track.last.max(tick);
        track.frames += 1;
        track.bytes += block.data.len() as u64;
        track.has_additions |= has_additions(block.side_data);
        track.interval.append(&FrameInterval::of(tick), self.pause);
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
    use crate::container::Head;
    use crate::container::webm::{Item, Reader, head};

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    fn push(clusters: &mut Clusters, track: usize, millis: f64, keyframe: bool, bytes: usize) {
        let time = Duration::from_secs_f64(millis / 1000.0);
        clusters.push(&Block { time, keyframe, ..Block::of(track, &vec![0; bytes]) });
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
    fn pictures_sent_in_another_order_keep_it_and_say_when_they_are_shown() {
        let mut clusters = Clusters::new(&TRACKS[..1], Duration::from_secs(1));
        let ms = Duration::from_millis;
        for (time, early) in [(0, 0), (120, 0), (121, 81), (122, 42), (160, 0)] {
            let (time, early, keyframe) = (ms(time), ms(early), time == 0);
            clusters.push(&Block { time, early, keyframe, ..Block::of(0, b"picture") });
        }
        clusters.finish();
        let (mut reader, mut times) = (Reader::new(None), Vec::new());
        let (mut bytes, _) = head(&Head { tracks: &TRACKS, sizes: &[], uid: 1, unix_nanos: 0, title: "" });
        bytes.extend_from_slice(clusters.bytes());
        reader.push(&bytes);
        while let Some(item) = reader.read().unwrap() {
            if let Item::Block(block) = item {
                times.push(block.time);
            }
        }
        assert_eq!(times, [0, 120, 40, 80, 160]);
        let stats = &clusters.finished()[0].stats.tracks[0];
        assert_eq!((stats.last, stats.before_last), (160, Some(120)), "what is shown last, and before it");
    }

    #[test]
    fn side_data_goes_with_its_frame() {
        let side_data = [0x75, 0xa2, 0x81, 5];
        let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
        for keyframe in [true, false] {
            clusters.push(&Block { keyframe, side_data: &side_data, ..Block::of(0, b"picture") });
        }
        clusters.finish();
        let (mut bytes, _) = head(&Head { tracks: &TRACKS, sizes: &[], uid: 1, unix_nanos: 0, title: "" });
        bytes.extend_from_slice(clusters.bytes());
        let (mut reader, mut found) = (Reader::new(None), Vec::new());
        reader.push(&bytes);
        while let Some(item) = reader.read().unwrap() {
            if let Item::Block(block) = item {
                let data = block.frames().next().unwrap().to_vec();
                found.push((block.keyframe, data, block.side_data));
            }
        }
        let expected = [true, false].map(|keyframe| (keyframe, b"picture".to_vec(), side_data.to_vec()));
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_kept_of_clusters_that_were_written() {
        let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
        push(&mut clusters, 0, 0.0, true, 3 << 20);
        clusters.finish();
        clusters.clear();
        assert!(clusters.finished().is_empty() && clusters.bytes().is_empty());
        assert_eq!(clusters.bytes.capacity(), 0);
    }
}
