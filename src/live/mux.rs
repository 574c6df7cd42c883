//! Frames in, clusters for viewers out: once a stream, however many watch.
//!
//! Driven by the frames' own times, so that sound and pictures that come in bursts (MediaRecorder's
//! chunks) are cut as those that come in time. What browsers' Media Source Extensions can't stand is
//! taken care of here: a track that is declared must never lag behind the others, or playback stalls;
//! blocks must be in order; no track may have a hole.

mod cluster;

pub(super) use cluster::Cluster;

use crate::container::Head;
use crate::container::webm::{self, head, mime_with_codecs};
use crate::media::{Frame, Kind, Size, Track, opus};
use bytes::Bytes;
use cluster::TrackQueue;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a cluster spans at most, in ms: what a viewer is behind at the least. Shorter ones cost each
/// viewer more wake-ups. A keyframe ends it earlier.
const SPAN: u64 = 100;
/// Sound that is this much behind the pictures is silent (DTX, muted), in ms: more than a lost packet is
/// waited for.
const SILENT: u64 = 250;
/// While it is silent, silence is put in up to this much behind the pictures: what a first packet may be late.
const REST: u64 = 100;
/// Packets of sound that are left out, so that what follows is in step again. If all are late, sound out
/// of step is better than none.
const MAX_LATE: u32 = 25;
/// A picture stands still if the sound is this much ahead of it, in ms.
const STILL: u64 = 250;
/// No pictures any more (camera muted): the tracks are sound alone until a keyframe comes. Also how long
/// a picture is said to last while that is not known. Chromium stops sound 3 s after the last picture.
const AWAY: u64 = 2000;
/// Without anything for this long, in ms, a publisher was away: viewers are spared the hole,
const HOLE: u64 = 1000;
/// of which this is left, for the tracks to get in step again in.
const SEAM: u64 = SILENT;
/// Pictures so far apart, in ms, are each worth showing at once. No hole is wider than two of them.
const RARE: u64 = HOLE / 2;
/// 20 ms of silence (RFC 6716 section 3.1: CELT, fullband, mono; an empty frame).
const SILENCE: Bytes = Bytes::from_static(&[0xf8, 0xff, 0xfe]);
/// How long that is, in ms.
const SILENCE_MS: u64 = 20;

/// One set of tracks; viewers that begin in it begin with its header.
#[derive(Debug)]
pub struct Segment {
    /// The init segment: everything up to the first cluster.
    pub init: Bytes,
    /// The MIME type, with codecs.
    pub mime: String,
    /// How many tracks. Those of a smaller set have the same numbers in a larger one.
    pub tracks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pictures {
    /// None has come; since when, as far as the sound tells.
    Awaited {
        since: Option<u64>,
    },
    Flowing,
    /// None for [`STILL`].
    Still,
    /// None for [`AWAY`], or there is no such track.
    Away,
}

#[derive(Debug)]
pub(super) struct Mux {
    video: Option<TrackQueue>,
    audio: Option<TrackQueue>,
    pictures: Pictures,
    /// Up to where there is sound.
    heard: u64,
    silent: bool,
    /// By how much pictures are moved ahead, in ms, to be in step with the sound.
    ahead: u64,
    /// Packets of sound in a row whose time was taken.
    late: u32,
    segment: Option<Arc<Segment>>,
    uid: u64,
    /// What was taken out of the stream's time, in ms.
    removed: u64,
    newest: Option<u64>,
    frames: u64,
    /// Pictures come that can't be decoded.
    pub wants_keyframe: bool,
    clusters: Vec<Cluster>,
}

impl Mux {
    pub fn new(tracks: &[Track]) -> Self {
        let first = |kind: Kind| tracks.iter().position(|track| track.codec.kind() == kind);
        // Sound is number 1, so that it keeps it when it is alone.
        let queue = |index: usize, number: u64| TrackQueue {
            index,
            description: tracks[index].clone(),
            number,
            pending: VecDeque::new(),
            newest: None,
            step: AWAY,
        };
        let audio = first(Kind::Audio).map(|index| queue(index, 1));
        let video = first(Kind::Video).map(|index| queue(index, 1 + u64::from(audio.is_some())));
        Self {
            pictures: if video.is_some() { Pictures::Awaited { since: None } } else { Pictures::Away },
            wants_keyframe: video.is_some(),
            video,
            audio,
            heard: 0,
            silent: false,
            ahead: 0,
            late: 0,
            segment: None,
            uid: rand::random(),
            removed: 0,
            newest: None,
            frames: 0,
            clusters: Vec::new(),
        }
    }

    /// Takes a frame.
    pub fn push(&mut self, frame: &Frame, now: Instant) {
        let of = |track: &Option<TrackQueue>| track.as_ref().is_some_and(|track| track.index == frame.track);
        let (video, audio) = (of(&self.video), of(&self.audio));
        if video || audio {
            let tick = self.tick_of(frame.time);
            if video {
                self.picture(frame, tick, now)
            } else {
                self.sound(frame, tick, now)
            }
            self.keep_up(now);
            self.cut(false);
        }
    }

    /// The clusters that are ready.
    pub fn take(&mut self) -> Vec<Cluster> {
        std::mem::take(&mut self.clusters)
    }

    /// Nothing comes any more: gives all there is. The last picture is said to last as long as the one before it.
    pub fn flush(&mut self) {
        let step = self.video.as_ref().map_or(AWAY, |track| track.step.min(AWAY));
        self.cut_until(u64::MAX, step);
    }

    /// Nothing came for so long: gives all there is up to the newest picture, which the next chunk brings out.
    ///
    /// Only then is it known how long that picture lasts, and players must be told: where the next one comes
    /// later than twice as long, they drop all pictures up to a keyframe (Media Source Extensions section
    /// 3.5.8). One whose successor doesn't come is given nevertheless.
    pub fn pause(&mut self, silence: Duration) {
        let track = self.video.as_ref().filter(|track| !track.description.codec.is_intra_only());
        let Some((newest, step)) = track.and_then(|track| Some((track.newest?, track.step))) else {
            return self.flush();
        };
        if self.pictures != Pictures::Flowing {
            return self.flush();
        }
        if step < RARE && silence < Duration::from_millis(AWAY) {
            self.cut_until(newest, AWAY);
            if let Some(start) = self.first().filter(|start| *start < newest) {
                self.emit(start, newest, AWAY);
            }
        } else {
            // Where sound goes on, pictures may be away for longer than in a stream of them alone.
            let lasts = if self.heard > newest { AWAY } else { step.clamp(RARE, AWAY) };
            self.cut_until(u64::MAX, lasts);
        }
    }

    /// Whether a picture to begin with waits to be cut.
    pub fn keyframe_pending(&self) -> bool {
        self.video.as_ref().is_some_and(|track| track.pending.iter().any(|frame| frame.keyframe))
    }

    /// Whether viewers may begin with any cluster.
    pub fn enters_anywhere(&self) -> bool {
        self.pictures == Pictures::Away
            || self.video.as_ref().is_none_or(|track| track.description.codec.is_intra_only())
    }

    fn tick_of(&mut self, time: Duration) -> u64 {
        let tick = (time.as_micros() as u64 + 500) / 1000;
        let mut moved = tick.saturating_sub(self.removed);
        if let Some(newest) = self.newest
            && moved > newest + HOLE
        {
            self.cut(true);
            moved = newest + SEAM;
            self.removed = tick - moved;
        }
        self.newest = self.newest.max(Some(moved));
        moved
    }

    fn picture(&mut self, frame: &Frame, tick: u64, now: Instant) {
        if matches!(self.pictures, Pictures::Awaited { .. } | Pictures::Away) {
            if !frame.keyframe {
                self.wants_keyframe = true;
                return;
            }
            self.cut(true);
            // A sender that paused may go on in time where it stopped. A new segment can be in step anew.
            let behind = self.heard.saturating_sub(tick);
            self.ahead = if behind > STILL { behind } else { 0 };
            self.heard = self.heard.max(tick);
            self.describe(frame);
            self.begin(Some(frame));
        } else if self.describe(frame) {
            self.cut(true);
            self.begin(Some(frame));
        }
        self.wants_keyframe &= !frame.keyframe;
        self.pictures = Pictures::Flowing;
        // It gets less as the sender's reports put its time right.
        self.ahead = self.ahead.min(self.heard.saturating_sub(tick));
        if let Some(track) = &mut self.video {
            track.push(tick + self.ahead, frame, now);
        }
    }

    /// Takes the description that a keyframe brings in band; whether it is another one.
    fn describe(&mut self, frame: &Frame) -> bool {
        let Some(track) = self.video.as_mut().filter(|_| !frame.private.is_empty()) else { return false };
        let another = track.description.private != frame.private;
        track.description.private = frame.private.clone();
        another
    }

    fn size(&self, frame: &Frame) -> Option<Size> {
        self.video.as_ref()?.description.codec.size_of(&frame.data)
    }

    fn sound(&mut self, frame: &Frame, tick: u64, now: Instant) {
        if let Pictures::Awaited { since } = &mut self.pictures {
            if tick < *since.get_or_insert(tick) + AWAY {
                return;
            }
            self.pictures = Pictures::Away;
        }
        if self.segment.is_none() {
            self.begin(None);
            self.heard = tick;
        }
        self.silent = false;
        let is_late = tick + SILENCE_MS / 2 < self.heard;
        self.late = if is_late { self.late + 1 } else { 0 };
        if is_late && self.late <= MAX_LATE {
            // Its time is taken: by silence, or it is from before the picture it all begins with.
            return;
        }
        if tick >= self.heard + 2 * SILENCE_MS {
            self.fill_with_silence(tick, now);
        }
        let tick = if is_late { self.heard } else { tick };
        let sounds = opus::duration(&frame.data).map_or(SILENCE_MS, |sounds| sounds.as_millis() as u64);
        if let Some(track) = &mut self.audio {
            self.heard = track.push(tick, frame, now) + sounds.max(1);
        }
    }

    fn fill_with_silence(&mut self, until: u64, now: Instant) {
        let Some(track) = &mut self.audio else { return };
        while self.heard + SILENCE_MS <= until {
            let silence = Frame { keyframe: true, ..Frame::of(track.index, SILENCE) };
            let tick = track.push(self.heard, &silence, now);
            if let Some(last) = track.pending.back_mut() {
                last.filler = true;
            }
            self.heard = tick + SILENCE_MS;
        }
    }

    /// Sees to it that no track holds the other one up.
    fn keep_up(&mut self, now: Instant) {
        let seen = self.video.as_ref().and_then(|track| track.newest);
        let (Some(seen), true) = (seen, self.audio.is_some() && self.is_shown()) else { return };
        let patience = if self.silent { REST } else { SILENT };
        if seen > self.heard + patience {
            self.silent = true;
            self.fill_with_silence(seen - REST, now);
        }
        if self.heard > seen + AWAY {
            self.cut(true);
            self.pictures = Pictures::Away;
            self.begin(None);
        } else if self.heard > seen + STILL {
            self.pictures = Pictures::Still;
        }
    }

    fn is_shown(&self) -> bool {
        matches!(self.pictures, Pictures::Flowing | Pictures::Still)
    }

    /// Begins a segment with pictures, of which this is the first, or without.
    fn begin(&mut self, picture: Option<&Frame>) {
        let queues = [self.audio.as_ref(), self.video.as_ref().filter(|_| picture.is_some())];
        let alpha = picture.is_some_and(|picture| !picture.side_data.is_empty());
        let tracks: Vec<Track> =
            queues.into_iter().flatten().map(|track| webm::for_live(&track.description, alpha)).collect();
        let size = picture.and_then(|picture| picture.size.or_else(|| self.size(picture)));
        let size = |track: &Track| size.filter(|_| track.codec.kind() == Kind::Video);
        let sizes: Vec<_> = tracks.iter().map(size).collect();
        let unix_nanos = jiff::Timestamp::now().as_nanosecond();
        let (init, _) = head(&Head { tracks: &tracks, sizes: &sizes, uid: self.uid, unix_nanos, title: "" });
        let mime = mime_with_codecs(&tracks);
        self.segment = Some(Arc::new(Segment { init: init.into(), mime, tracks: tracks.len() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::webm::{Item, Reader};
    use crate::media::Codec;

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    /// `(track, from, to, every, keyframes at)`.
    type Rows<'a> = &'a [(usize, u64, u64, usize, &'a [u64])];

    /// Pushes frames of both tracks in the order of their times.
    fn push(mux: &mut Mux, rows: Rows) {
        let mut all: Vec<(u64, usize, bool)> = Vec::new();
        for (track, from, to, every, keyframes) in rows {
            let times = (*from..*to).step_by(*every);
            all.extend(times.map(|ms| (ms, *track, *track == 1 || keyframes.contains(&ms))));
        }
        all.sort_unstable();
        for (ms, track, keyframe) in all {
            let time = Duration::from_millis(ms);
            let data = Bytes::from(vec![if track == 1 { 0xf8 } else { 0x10 }; 50]);
            mux.push(&Frame { time, keyframe, ..Frame::of(track, data) }, Instant::now());
        }
    }

    /// `(number, time, duration)` of every block of a cluster, and whether it is silence.
    fn blocks(cluster: &Cluster) -> Vec<(u64, u64, Option<u64>, bool)> {
        let mut reader = Reader::new(None);
        reader.push(&cluster.segment.init);
        reader.push(&cluster.bytes);
        reader.finish();
        let mut found = Vec::new();
        while let Some(item) = reader.read().unwrap() {
            if let Item::Block(block) = item {
                let silence = block.frames().next() == Some(&SILENCE[..]);
                found.push((block.track, block.time as u64, block.duration, silence));
            }
        }
        found
    }

    #[test]
    fn a_cluster_begins_at_each_keyframe_spans_little_and_is_in_order() {
        let mut mux = Mux::new(&TRACKS);
        // Until a keyframe comes there is nothing to see, and it is asked for.
        push(&mut mux, &[(0, 0, 100, 33, &[]), (1, 0, 100, 20, &[])]);
        assert!(mux.take().is_empty() && mux.wants_keyframe);
        push(&mut mux, &[(0, 132, 800, 33, &[132, 363]), (1, 100, 800, 20, &[])]);
        let clusters = mux.take();
        assert!(!mux.wants_keyframe);
        let entries: Vec<u64> = clusters.iter().filter(|c| c.entry).map(|c| c.start).collect();
        assert_eq!(entries, [132, 363]);
        let mut frames = 0;
        for cluster in &clusters {
            let blocks = blocks(cluster);
            assert!(blocks.is_sorted_by_key(|block| block.1), "{blocks:?}");
            assert_eq!(blocks[0].1, cluster.start);
            assert!(blocks[blocks.len() - 1].1 < cluster.start + SPAN, "{blocks:?}");
            for (number, _, duration, _) in &blocks {
                assert_eq!(*duration, (*number == 2).then_some(33));
            }
            assert_eq!(cluster.frames_before, frames);
            frames += cluster.frames;
        }
        assert_eq!(clusters[0].segment.mime, "video/webm;codecs=\"vp8,opus\"");
    }

    #[test]
    fn silence_takes_the_place_of_sound_that_does_not_come() {
        let mut mux = Mux::new(&TRACKS);
        push(&mut mux, &[(0, 0, 3000, 33, &[0]), (1, 0, 500, 20, &[]), (1, 2000, 3000, 400, &[])]);
        let sound: Vec<_> = mux.take().iter().flat_map(blocks).filter(|block| block.0 == 1).collect();
        let holes = sound.windows(2).filter(|pair| pair[1].1 - pair[0].1 > 2 * SILENCE_MS).count();
        assert_eq!(holes, 0, "{sound:?}");
        assert!(sound.last().is_some_and(|last| last.1 > 2600), "{:?}", sound.last());
        let real = sound.iter().filter(|block| !block.3).count();
        assert_eq!(real, 25 + 2, "what came late, or is not cut yet, aside: {sound:?}");
    }

    #[test]
    fn sound_goes_on_without_pictures_and_pictures_come_back_at_a_keyframe() {
        let mut mux = Mux::new(&TRACKS);
        push(&mut mux, &[(0, 0, 500, 33, &[0]), (1, 0, 6000, 20, &[]), (0, 5000, 6000, 33, &[5330])]);
        mux.flush();
        let clusters = mux.take();
        let mut mimes: Vec<&str> = clusters.iter().map(|cluster| &*cluster.segment.mime).collect();
        mimes.dedup();
        let (both, sound) = ("video/webm;codecs=\"vp8,opus\"", "audio/webm;codecs=\"opus\"");
        assert_eq!(mimes, [both, sound, both]);
        let all: Vec<_> = clusters.iter().flat_map(blocks).collect();
        let sound: Vec<_> = all.iter().filter(|block| block.0 == 1).collect();
        assert_eq!(sound.len(), 300, "no sound is lost");
        let last = all.iter().rfind(|block| block.0 == 2 && block.1 < 1000).unwrap();
        assert_eq!(last.2, Some(AWAY), "how long the last picture stands");
        assert_eq!(
            all.iter().filter(|block| block.0 == 2 && block.1 >= 1000).map(|block| block.1).min(),
            Some(5330)
        );
        assert!(
            clusters.iter().find(|cluster| cluster.start >= 3000).unwrap().entry,
            "one may begin with sound"
        );
    }

    #[test]
    fn pictures_that_come_back_behind_the_sound_are_put_in_step() {
        let mut mux = Mux::new(&TRACKS);
        push(&mut mux, &[(0, 0, 500, 33, &[0]), (1, 0, 6000, 20, &[])]);
        // Their clock stood still meanwhile.
        for ms in (0..2000).step_by(20) {
            push(&mut mux, &[(1, 6000 + ms, 6001 + ms, 20, &[]), (0, 600 + ms, 601 + ms, 20, &[600])]);
        }
        mux.flush();
        let clusters = mux.take();
        let segments = clusters.chunk_by(|a, b| Arc::ptr_eq(&a.segment, &b.segment)).count();
        assert_eq!(segments, 3, "with pictures, without, and with them again");
        let newest = |number| {
            clusters.iter().flat_map(blocks).filter(|block| block.0 == number).map(|block| block.1).max()
        };
        let (sound, picture) = (newest(1).unwrap(), newest(2).unwrap());
        assert!(sound.abs_diff(picture) < STILL, "sound to {sound}, pictures to {picture}");
    }

    #[test]
    fn a_keyframe_with_another_description_begins_a_segment_that_has_it() {
        let mut mux = Mux::new(&[Track::video(Codec::H264)]);
        let [one, other] = [&b"\x01\x42\xe0\x1f"[..], b"\x01\x64\x00\x1f"].map(Bytes::from_static);
        for (ms, private) in [(0, &one), (40, &one), (80, &Bytes::new()), (120, &other), (160, &other)] {
            let (time, keyframe) = (Duration::from_millis(ms), !private.is_empty());
            let frame = Frame { time, keyframe, ..Frame::of(0, Bytes::from_static(b"picture")) };
            mux.push(&Frame { private: private.clone(), ..frame }, Instant::now());
        }
        mux.flush();
        let clusters = mux.take();
        let begins: Vec<(u64, &str)> = clusters
            .chunk_by(|a, b| Arc::ptr_eq(&a.segment, &b.segment))
            .map(|of| (of[0].start, &*of[0].segment.mime))
            .collect();
        let expected = ["42e01f", "64001f"].map(|id| format!("video/x-matroska;codecs=\"avc1.{id}\""));
        assert_eq!(begins, [(0, &*expected[0]), (120, &*expected[1])]);
    }

    /// Pushes what two chunks bring, each followed by a pause, and the end; gives all pictures, each with how
    /// long it is said to last.
    fn paused(mux: &mut Mux, chunks: [Rows; 2], silence: u64) -> Vec<(u64, u64)> {
        let mut clusters = Vec::new();
        for rows in chunks {
            push(mux, rows);
            for ms in [250, silence] {
                mux.pause(Duration::from_millis(ms));
            }
            clusters.extend(mux.take());
        }
        mux.flush();
        clusters.extend(mux.take());
        let all: Vec<_> = clusters.iter().flat_map(blocks).collect();
        let heard: Vec<u64> = all.iter().filter(|block| block.0 == 1).map(|block| block.1).collect();
        assert!(heard.is_sorted(), "{heard:?}");
        all.iter()
            .filter(|block| block.0 == 2 || heard.is_empty())
            .map(|block| (block.1, block.2.unwrap()))
            .collect()
    }

    #[test]
    fn a_picture_before_a_pause_lasts_until_the_next_one_whenever_that_comes() {
        let sound: Rows = &[(0, 0, 400, 33, &[0]), (1, 0, 500, 20, &[])];
        for next in [420, 480, 700, 1400, 2200] {
            for silence in [500, 1500, 2000, 9000] {
                let mut mux = Mux::new(&TRACKS);
                let rows = [(0, next, 3000, 33, &[][..]), (1, 500, 3000, 20, &[])];
                let pictures = paused(&mut mux, [sound, &rows], silence);
                assert_eq!(pictures.len(), 13 + (3000 - next as usize).div_ceil(33));
                for pair in pictures.windows(2) {
                    assert!(pair[1].0 - pair[0].0 <= 2 * pair[0].1, "{next}, {silence}: {pair:?}");
                }
                // Beyond that it is not waited for.
                if silence < AWAY && next - 396 <= STILL {
                    let told = pictures.iter().find(|picture| picture.0 == 396).unwrap();
                    assert_eq!(told.1, next - 396, "{next}, {silence}");
                }
            }
        }
        for next in [420, 480, 700, 1390] {
            let mut mux = Mux::new(&TRACKS[..1]);
            let rows = [(0, next, 3000, 33, &[][..])];
            let pictures = paused(&mut mux, [&sound[..1], &rows], 9000);
            for pair in pictures.windows(2) {
                assert!(pair[1].0 - pair[0].0 <= 2 * pair[0].1, "{next} alone: {pair:?}");
            }
        }
    }

    #[test]
    fn a_picture_of_few_does_not_wait_for_the_next_one() {
        let mut mux = Mux::new(&TRACKS[..1]);
        push(&mut mux, &[(0, 0, 1, 1, &[0])]);
        mux.pause(Duration::from_millis(250));
        push(&mut mux, &[(0, 600, 601, 1, &[])]);
        mux.pause(Duration::from_millis(250));
        let seen: Vec<u64> = mux.take().iter().flat_map(blocks).map(|block| block.1).collect();
        assert_eq!(seen, [0, 600]);
    }

    #[test]
    fn viewers_are_spared_the_time_a_publisher_was_away() {
        let mut mux = Mux::new(&TRACKS);
        push(&mut mux, &[(0, 0, 500, 33, &[0]), (1, 0, 500, 20, &[])]);
        push(&mut mux, &[(0, 9000, 9500, 33, &[9000]), (1, 9000, 9500, 20, &[])]);
        mux.flush();
        let clusters = mux.take();
        let times: Vec<u64> = clusters.iter().flat_map(blocks).map(|block| block.1).collect();
        let widest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
        assert!(widest <= Some(SEAM), "{times:?}");
        assert_eq!(clusters.iter().map(|cluster| cluster.frames).sum::<u64>(), 2 * (16 + 25));
    }
}
