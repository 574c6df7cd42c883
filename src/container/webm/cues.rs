//! The index on its way (RFC 9559 section 22): which blocks of the clusters that were written are worth seeking to, and
//! what else sealing has to know of them.

use crate::container::webm::cluster::{ClusterStats, Cue};
use crate::container::webm::ebml::{id, master, uint};
use crate::container::webm::frame_interval::{FrameInterval, PAUSE, in_ticks};
use crate::container::webm::tags::Statistics;
use crate::media::{Kind, Track};
use std::time::Duration;

/// Where there are no pictures to seek by, an entry for sound this often.
const SOUND_CUE_EVERY: Duration = Duration::from_secs(5);
/// Where all pictures are keyframes, those nearer than this to one that has an entry need none: a camera
/// that sends JPEG has ten a second.
const PICTURE_CUE_EVERY_MS: u64 = 250;
/// Sound needs no entries of its own this near to a picture's.
const PICTURE_NEAR: Duration = Duration::from_secs(10);
/// Cue points that are kept. Beyond, every other one goes: a file that has so many is either
/// days long or was made to fill the memory.
const MAX_CUES: usize = 1 << 17;
/// What a cue point takes in the index at most: six elements with ids and sizes of a byte, four
/// of them with 8 bytes.
const CUE_BYTES: u64 = 44;
/// Id and size of the index.
const CUES_HEADER: u64 = 12;
/// The longest a last frame counts: the interval before it may have been a gap.
const MAX_LAST_INTERVAL_MS: u64 = 1_000;

/// What is known of the clusters that reached the disk.
#[derive(Clone, Debug)]
pub struct Index {
    /// Each track.
    pub tracks: Vec<TrackIndex>,
    /// Every video keyframe.
    pictures: Vec<CuePoint>,
    /// A block of sound every few seconds.
    sounds: Vec<CuePoint>,
    /// The least distance of kept keyframes, in ticks.
    min_distance: u64,
    /// Length of a tick: a millisecond in our own files.
    tick: Duration,
}

/// One track, so far; times in ticks.
#[derive(Clone, Debug)]
pub struct TrackIndex {
    /// Video or audio.
    pub kind: Kind,
    /// Frames in the file.
    pub frames: u64,
    /// Those of them that were made up to fill holes of sound.
    pub filled: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Start of the first frame.
    pub first: u64,
    /// Start of the newest frame.
    pub last: u64,
    /// Its frames' distances, which are its frame rate.
    pub(super) interval: FrameInterval,
    /// How long the newest frame lasts, as far as one can know.
    pub last_interval: Duration,
    /// Largest width seen, in pixels; 0 if none was.
    pub width: u32,
    /// Largest height seen.
    pub height: u32,
    /// It has BlockAdditions.
    pub has_additions: bool,
}

/// A cue point: a block to seek to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CuePoint {
    /// Index of the track.
    pub track: usize,
    /// Time in ticks.
    pub time: u64,
    /// Where the cluster begins in the Segment's payload.
    pub cluster: u64,
    /// Where the block begins in the cluster's payload.
    pub relative: u64,
}

impl Index {
    /// Nothing yet of these tracks.
    pub fn new(tracks: &[Track]) -> Self {
        let kinds: Vec<_> = tracks.iter().map(|track| track.codec.kind()).collect();
        let intra_only = tracks.iter().any(|track| track.codec.is_intra_only());
        let min_distance = if intra_only { PICTURE_CUE_EVERY_MS } else { 0 };
        Self { min_distance, ..Self::of(&kinds, Duration::from_millis(1)) }
    }

    /// Nothing yet of tracks of these kinds, in a file whose ticks are so long.
    pub fn of(kinds: &[Kind], tick: Duration) -> Self {
        let track = |kind: &Kind| TrackIndex {
            kind: *kind,
            frames: 0,
            filled: 0,
            bytes: 0,
            first: u64::MAX,
            last: 0,
            interval: FrameInterval::default(),
            last_interval: Duration::ZERO,
            width: 0,
            height: 0,
            has_additions: false,
        };
        let tracks = kinds.iter().map(track).collect();
        Self { tracks, pictures: Vec::new(), sounds: Vec::new(), min_distance: 0, tick }
    }

    /// Length of a tick.
    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    /// Adds a cluster that is in the file, `position` bytes into the Segment's payload.
    pub fn commit(&mut self, stats: &ClusterStats, position: u64) {
        let pause = in_ticks(PAUSE, self.tick);
        for (track, seen) in self.tracks.iter_mut().zip(&stats.tracks) {
            if seen.frames == 0 {
                continue;
            }
            let before = seen.before_last.or((track.frames > 0).then_some(track.last));
            track.interval.append(&seen.interval, pause);
            let interval = seen.last_sound.or(before.map(|before| {
                let interval = ticks(self.tick, seen.last.saturating_sub(before));
                interval.min(Duration::from_millis(MAX_LAST_INTERVAL_MS))
            }));
            track.last_interval = interval.unwrap_or(track.last_interval);
            track.frames += seen.frames;
            track.filled += seen.filled;
            track.bytes += seen.bytes;
            track.first = track.first.min(seen.first);
            track.last = track.last.max(seen.last);
            track.width = track.width.max(seen.width);
            track.height = track.height.max(seen.height);
            track.has_additions |= seen.has_additions;
        }
        for cue in &stats.cues {
            self.add_cue(cue, position);
        }
    }

    fn add_cue(&mut self, cue: &Cue, cluster: u64) {
        let point = CuePoint { track: cue.track, time: cue.time, cluster, relative: cue.relative };
        let every = in_ticks(SOUND_CUE_EVERY, self.tick).max(self.min_distance);
        let (kept, min_distance) = match cue.kind {
            Kind::Video => (&mut self.pictures, self.min_distance),
            Kind::Audio => (&mut self.sounds, every),
        };
        if kept.last().is_none_or(|last| cue.time.abs_diff(last.time) >= min_distance) {
            kept.push(point);
        }
        if kept.len() > MAX_CUES {
            let span = kept.last().map_or(0, |last| last.time.abs_diff(kept[0].time));
            self.min_distance = (self.min_distance * 2).max(span / MAX_CUES as u64 * 2).max(1);
            let mut odd = false;
            kept.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }

    /// Bytes that the index takes at most, as it is.
    pub fn bytes_at_most(&self) -> u64 {
        CUES_HEADER + (self.pictures.len() + self.sounds.len()) as u64 * CUE_BYTES
    }

    /// When a track ends: behind its last frame.
    fn end_of(&self, track: &TrackIndex) -> Duration {
        ticks(self.tick, track.last).saturating_add(track.last_interval)
    }

    /// What there is of a track with this UID.
    pub(super) fn statistics(&self, track: &TrackIndex, uid: u64) -> Statistics {
        let duration = self.end_of(track).saturating_sub(ticks(self.tick, track.first));
        Statistics { uid, frames: track.frames, bytes: track.bytes, duration }
    }

    /// The file's duration: the end of the frame that ends last.
    pub fn duration(&self) -> Duration {
        let recorded = self.tracks.iter().filter(|track| track.frames > 0);
        // A single picture has no interval; a Duration of 0 would read as "unknown".
        recorded.map(|track| self.end_of(track)).max().unwrap_or_default().max(Duration::from_millis(1))
    }

    /// The file's cue points, in order of time: every video keyframe, and where pictures are
    /// far away, sound.
    pub fn cues(&self) -> Vec<CuePoint> {
        let mut cues = self.pictures.clone();
        cues.sort_by_key(|cue| cue.time);
        let near_ticks = in_ticks(PICTURE_NEAR, self.tick);
        let far = |sound: &&CuePoint| {
            let next = cues.partition_point(|cue| cue.time < sound.time);
            let near =
                |at: Option<&CuePoint>| at.is_some_and(|cue| cue.time.abs_diff(sound.time) < near_ticks);
            !near(cues.get(next)) && !near(next.checked_sub(1).and_then(|before| cues.get(before)))
        };
        let sounds: Vec<_> = self.sounds.iter().filter(far).copied().collect();
        cues.extend(sounds);
        cues.sort_by_key(|cue| cue.time);
        cues
    }
}

/// So many ticks.
pub(super) fn ticks(tick: Duration, count: u64) -> Duration {
    Duration::from_nanos((tick.as_nanos() as u64).saturating_mul(count))
}

/// The Cues element, with the TrackNumber of each track; empty if there is nothing to point at.
pub(super) fn cues(points: &[CuePoint], number: impl Fn(usize) -> u64) -> Vec<u8> {
    let mut out = Vec::new();
    if points.is_empty() {
        return out;
    }
    master(&mut out, id::CUES, |out| {
        for point in points {
            master(out, id::CUE_POINT, |out| {
                uint(out, id::CUE_TIME, point.time);
                master(out, id::CUE_TRACK_POSITIONS, |out| {
                    uint(out, id::CUE_TRACK, number(point.track));
                    uint(out, id::CUE_CLUSTER_POSITION, point.cluster);
                    uint(out, id::CUE_RELATIVE_POSITION, point.relative);
                });
            });
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::webm::{Block, Clusters};
    use crate::media::Codec;

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];
    /// 20 ms of sound.
    const SOUND: [u8; 1] = [0xfc];

    fn index(blocks: impl IntoIterator<Item = (usize, u64, bool)>) -> Index {
        let (mut index, mut clusters) = (Index::new(&TRACKS), Clusters::new(&TRACKS, Duration::from_secs(1)));
        for (track, millis, keyframe) in blocks {
            let time = Duration::from_millis(millis);
            clusters.push(&Block { time, keyframe, ..Block::of(track, &SOUND) });
        }
        clusters.finish();
        for cluster in clusters.finished() {
            index.commit(&cluster.stats, cluster.range.start as u64);
        }
        index
    }

    #[test]
    fn a_file_lasts_until_the_end_of_the_frame_that_ends_last() {
        let millis = |blocks: &[(usize, u64, bool)]| index(blocks.iter().copied()).duration().as_millis();
        assert_eq!(millis(&[(0, 0, true), (0, 40, false), (0, 73, false)]), 106, "the interval before it");
        assert_eq!(millis(&[(0, 0, true), (1, 0, true), (1, 60, true)]), 80, "what the packet sounds");
        assert_eq!(millis(&[(0, 0, true), (0, 33, false), (0, 1_100, true)]), 2_100, "a gap counts 1 s");
        assert_eq!(millis(&[(0, 0, true), (0, 990, false), (0, 1_020, true)]), 1_050, "over two clusters");
        assert_eq!(millis(&[(0, 0, true)]), 1, "0 would read as unknown");
    }

    #[test]
    fn the_space_kept_for_the_index_is_never_too_small() {
        let mut index = index((0..1_000u64).map(|step| (0, step * 500, true)));
        let written = |index: &Index| cues(&index.cues(), |_| 1).len() as u64;
        let typical = written(&index);
        assert!(typical <= index.bytes_at_most(), "{typical} bytes");
        for cue in &mut index.pictures {
            (cue.time, cue.cluster, cue.relative) = (u64::MAX, u64::MAX, u64::MAX);
        }
        let worst = cues(&index.cues(), |_| u64::MAX).len() as u64;
        println!("{typical} bytes, {worst} at worst, {} are kept", index.bytes_at_most());
        assert!(
            worst <= index.bytes_at_most() && index.bytes_at_most() < worst + 16,
            "{worst} bytes at worst"
        );
    }

    #[test]
    fn sound_has_places_to_seek_to_where_pictures_are_far() {
        let pictures = (0..60u64).map(|step| (0, step * 500, step % 4 == 0));
        let sound = (0..3_000u64).map(|step| (1, step * 20, true));
        let mut blocks: Vec<_> = pictures.chain(sound).collect();
        blocks.sort_by_key(|(track, millis, _)| (*millis, *track));
        let cues = index(blocks).cues();
        let times = |track| cues.iter().filter(move |cue| cue.track == track).map(|cue| cue.time);
        assert!(times(0).eq((0..15).map(|step| step * 2_000)), "{cues:?}");
        let sounds: Vec<_> = times(1).collect();
        assert!(sounds[0] > 38_000 && sounds[0] < 46_000, "the last picture is at 28 s: {sounds:?}");
        assert!(sounds.windows(2).all(|pair| pair[1] - pair[0] < 7_000) && sounds.len() >= 3, "{sounds:?}");
    }
}
