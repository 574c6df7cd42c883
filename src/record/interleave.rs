//! Puts the frames of several tracks into one order of time, without keeping any of them long.

use crate::media::{Frame, Gap, GapReason, Kind, Track, opus};
use crate::record::silence::{Clock, Silence};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest a last picture counts: the interval before it may have been a gap.
const MAX_LAST_INTERVAL: Duration = Duration::from_secs(1);

/// Frames on their way into a cluster, and the silence that is to fill holes between those of sound.
///
/// Bounded by time: the recorder releases all of them `hold` after the oldest was pushed, and the
/// tap before it is bounded in bytes.
#[derive(Debug)]
pub(super) struct Interleaver {
    tracks: Vec<TrackState>,
    clock: Clock,
}

#[derive(Debug)]
struct TrackState {
    kind: Kind,
    queue: VecDeque<QueuedFrame>,
    /// The newest frame: its time, and when it was pushed.
    newest: Option<(Duration, Instant)>,
    /// How long the newest frame lasts, as far as the one before it tells.
    interval: Duration,
    /// What fills its holes; sound only.
    silence: Option<Silence>,
    /// A video track begins with a keyframe: nothing before one can be decoded.
    begun: bool,
    /// Times of the first and the newest frame dropped for want of a keyframe.
    dropped: Option<(Duration, Duration)>,
    /// A hole that the next frame ends.
    gap: Option<Gap>,
}

/// A frame, when it was pushed, and the hole it ends.
#[derive(Debug)]
pub(super) struct QueuedFrame {
    pub at: Instant,
    pub frame: Frame,
    pub gap: Option<Gap>,
    /// It was never received: it fills a hole.
    pub silent: bool,
}

impl Interleaver {
    /// Fills holes of sound that did not come within `window` of what it belongs to; `None` leaves them.
    pub fn new(tracks: &[Track], window: Option<Duration>) -> Self {
        let track = |track: &Track| TrackState {
            kind: track.codec.kind(),
            queue: VecDeque::new(),
            newest: None,
            interval: Duration::ZERO,
            silence: window.and_then(|_| Silence::of(track)),
            begun: track.codec.kind() == Kind::Audio,
            dropped: None,
            gap: None,
        };
        let clock = Clock::new(window.unwrap_or_default());
        Self { tracks: tracks.iter().map(track).collect(), clock }
    }

    /// Takes a frame; returns whether it was kept.
    pub fn push(&mut self, at: Instant, frame: Frame) -> bool {
        let Some(track) = self.tracks.get_mut(frame.track) else { return false };
        if !track.begun && !frame.keyframe {
            let (from, to) = track.dropped.unwrap_or((frame.time, frame.time));
            track.dropped = Some((from, to.max(frame.time)));
            return false;
        }
        if track.silence.as_mut().is_some_and(|silence| silence.is_too_late(&frame, self.clock.newest())) {
            let to = frame.time + Duration::from_millis(1);
            let gap = Gap { track: frame.track, from: frame.time, to, reason: GapReason::Loss };
            track.gap = Some(union(track.gap, gap));
            return false;
        }
        self.clock.see(at, frame.time);
        track.begun = true;
        if let Some((from, _)) = track.dropped.take() {
            let gap = Gap { track: frame.track, from, to: frame.time, reason: GapReason::Loss };
            track.gap = Some(union(track.gap, gap));
        }
        if let Some((newest, _)) = track.newest {
            track.interval = frame.time.saturating_sub(newest).min(MAX_LAST_INTERVAL);
        }
        let time = track.newest.map_or(frame.time, |(newest, _)| newest.max(frame.time));
        track.newest = Some((time, at));
        let gap = track.gap.take();
        track.queue.push_back(QueuedFrame { at, frame, gap, silent: false });
        true
    }

    /// Notes a hole that the next frame of its track ends.
    pub fn gap(&mut self, gap: Gap) {
        if let Some(track) = self.tracks.get_mut(gap.track) {
            track.gap = Some(union(track.gap, gap));
        }
    }

    /// Takes the holes that no frame has ended: nothing comes any more.
    pub fn rest(&mut self) -> Vec<Gap> {
        let rest = |(index, track): (usize, &mut TrackState)| {
            let loss = |(from, to)| Gap { track: index, from, to, reason: GapReason::Loss };
            match (track.gap.take(), track.dropped.take().map(loss)) {
                (gap, Some(dropped)) => Some(union(gap, dropped)),
                (gap, None) => gap,
            }
        };
        self.tracks.iter_mut().enumerate().filter_map(rest).collect()
    }

    /// Whether frames came that can't be used before a keyframe does.
    pub fn is_waiting_for_keyframe(&self) -> bool {
        self.tracks.iter().any(|track| track.dropped.is_some())
    }

    /// Bytes of memory of the frames that wait.
    pub fn bytes(&self) -> usize {
        self.tracks.iter().flat_map(|track| &track.queue).map(|queued| queued.frame.footprint()).sum()
    }

    /// When the oldest frame that waits was pushed.
    pub fn oldest(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(|track| track.queue.front()).map(|queued| queued.at).min()
    }

    /// Frames up to this time can leave: no flowing track will deliver an earlier one. Frames that
    /// have waited for `hold` leave in any case, and with them those that soon will have: order is
    /// worth less than getting to the disk in time, and a wake-up for each of them costs more.
    pub fn releasable(&self, now: Instant, hold: Duration) -> Duration {
        let flowing = self.tracks.iter().filter_map(|track| track.newest).filter(|(_, at)| *at + hold > now);
        let in_order = flowing.map(|(time, _)| time).min().unwrap_or(Duration::MAX);
        if self.oldest().is_none_or(|at| at + hold > now) {
            return in_order;
        }
        let soon = |queued: &&QueuedFrame| queued.at + hold * 3 / 4 <= now;
        let waiting = self.tracks.iter().flat_map(|track| track.queue.iter().take_while(soon));
        waiting.map(|queued| queued.frame.time).max().map_or(in_order, |time| time.max(in_order))
    }

    /// The next frame in order of time, of those up to `limit`; of equal ones the picture, so that a
    /// keyframe opens its cluster.
    pub fn peek(&self, limit: Duration) -> Option<&QueuedFrame> {
        self.tracks[self.next(limit)?].queue.front()
    }

    /// Takes what [`Interleaver::peek`] shows.
    pub fn pop(&mut self, limit: Duration) -> Option<QueuedFrame> {
        let index = self.next(limit)?;
        let track = &mut self.tracks[index];
        let queued = track.queue.pop_front()?;
        match &mut track.silence {
            Some(silence) if queued.silent => {
                silence.add_silence(queued.frame.time, &queued.frame.data, track.queue.is_empty());
            }
            Some(silence) => silence.add_sound(queued.frame.time, &queued.frame.data),
            None => {}
        }
        Some(queued)
    }

    /// A file begins at `at`.
    pub fn begin(&mut self, at: Duration) {
        self.tracks
            .iter_mut()
            .filter_map(|track| track.silence.as_mut())
            .for_each(|silence| silence.begin(at));
    }

    /// Has the next packet of silence wait before the frames, on each track where one is due.
    pub fn queue_silence(&mut self, limit: Duration) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            let Some(silence) = &track.silence else { continue };
            let (first, newest) = (track.queue.front(), track.newest.map(|(_, at)| at));
            if first.is_some_and(|queued| queued.silent) {
                continue;
            }
            let due = silence
                .due(first.map(|queued| (queued.frame.time, &queued.frame.data[..])), self.clock.passed());
            let Some((time, data)) = due.filter(|(time, _)| *time <= limit) else { continue };
            let length = opus::duration(&data).unwrap_or_default();
            let Some(at) = first.map(|queued| queued.at).or(newest).or(self.clock.began()) else { continue };
            if self.clock.take(length) {
                let frame = Frame { time, keyframe: true, ..Frame::of(index, data) };
                track.queue.push_front(QueuedFrame { at, frame, gap: None, silent: true });
            }
        }
    }

    /// Sound that has not come for what the media showed a window ago is not waited for any more.
    pub fn pass(&mut self, now: Instant) {
        self.clock.pass(now);
    }

    /// What is before `time` goes into the file that ends there. Returns whether that is news.
    pub fn settle(&mut self, time: Duration) -> bool {
        let news = time > self.clock.passed();
        self.clock.settle(time);
        news
    }

    /// Nothing comes any more: sound that ends before the pictures is filled up to their end.
    pub fn end(&mut self) {
        self.tracks.iter_mut().filter_map(|track| track.silence.as_mut()).for_each(Silence::end);
        let pictures = self.tracks.iter().filter(|track| track.kind == Kind::Video);
        let ends = pictures.filter_map(|track| Some(track.newest?.0 + track.interval));
        if let Some(end) = ends.max() {
            self.clock.settle(end);
        }
    }

    fn next(&self, limit: Duration) -> Option<usize> {
        let heads = self.tracks.iter().enumerate().filter_map(|(index, track)| {
            let time = track.queue.front()?.frame.time;
            (time <= limit).then_some((time, track.kind != Kind::Video, index))
        });
        heads.min().map(|(.., index)| index)
    }

    /// Whether pictures have come within `patience`.
    pub fn has_pictures(&self, now: Instant, patience: Duration) -> bool {
        let fresh = |track: &TrackState| track.newest.is_some_and(|(_, at)| at + patience > now);
        self.tracks.iter().any(|track| track.kind == Kind::Video && fresh(track))
    }

    /// Pictures must begin anew with a keyframe: they go into another file.
    pub fn want_keyframe(&mut self) {
        for track in self.tracks.iter_mut().filter(|track| track.kind == Kind::Video) {
            track.begun = track.queue.front().is_some_and(|queued| queued.frame.keyframe);
        }
    }

    /// Frames that reached no file come back, in front of those that wait, to go into another one:
    /// pictures begin anew with a keyframe. Returns whether one is still to come.
    pub fn put_back(&mut self, frames: Vec<QueuedFrame>) -> bool {
        for track in &mut self.tracks {
            if track.queue.front().is_some_and(|queued| queued.silent) {
                track.queue.pop_front();
            }
            track.silence.as_mut().into_iter().for_each(Silence::begin_anew);
        }
        for queued in frames.into_iter().rev() {
            self.tracks[queued.frame.track].queue.push_front(queued);
        }
        self.tracks.iter_mut().enumerate().filter(|(_, track)| track.kind == Kind::Video).fold(
            false,
            |waits, (index, track)| {
                track.begin_anew(index);
                waits | !track.begun
            },
        )
    }
}

impl TrackState {
    /// Leaves out what comes before the first keyframe that waits, or what waits, if there is none.
    fn begin_anew(&mut self, track: usize) {
        let keyframe = self.queue.iter().position(|queued| queued.frame.keyframe);
        self.begun = keyframe.is_some();
        for QueuedFrame { frame, gap, .. } in self.queue.drain(..keyframe.unwrap_or(self.queue.len())) {
            let (from, to) = self.dropped.unwrap_or((frame.time, frame.time));
            self.dropped = Some((from, to.max(frame.time)));
            self.gap = gap.map(|gap| union(self.gap, gap)).or(self.gap);
        }
        if let (Some(first), Some((from, _))) = (self.queue.front_mut(), self.dropped) {
            let hole = Gap { track, from, to: first.frame.time, reason: GapReason::Loss };
            first.gap = Some(union(self.gap.take(), union(first.gap, hole)));
            self.dropped = None;
        }
    }
}

/// Two holes before the same frame are one.
fn union(before: Option<Gap>, gap: Gap) -> Gap {
    match before {
        Some(before) => Gap { from: before.from.min(gap.from), to: before.to.max(gap.to), ..gap },
        None => gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;
    use bytes::Bytes;

    const HOLD: Duration = Duration::from_millis(900);
    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn frame(track: usize, time: u64, keyframe: bool) -> Frame {
        Frame { time: ms(time), keyframe, ..Frame::of(track, Bytes::new()) }
    }

    fn order(queue: &mut Interleaver, limit: Duration) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| queue.pop(limit))
            .map(|queued| (queued.frame.track, queued.frame.time.as_millis() as u64))
            .collect()
    }

    #[test]
    fn frames_leave_in_order_of_time_and_wait_for_the_slower_track() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, None);
        for (track, time) in [(0, 0), (1, 0), (1, 20), (1, 40), (1, 60), (0, 33)] {
            queue.push(start, frame(track, time, time == 0 || track == 1));
        }
        let limit = queue.releasable(start, HOLD);
        assert_eq!(limit, ms(33));
        assert_eq!(order(&mut queue, limit), [(0, 0), (1, 0), (1, 20), (0, 33)]);
        assert_eq!(queue.oldest(), Some(start), "later sound waits for the next picture");
    }

    #[test]
    fn no_frame_waits_longer_than_it_may_and_a_silent_track_holds_no_other() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, None);
        queue.push(start, frame(0, 0, true));
        queue.push(start + ms(10), frame(1, 500, true));
        assert_eq!(queue.releasable(start + ms(20), HOLD), ms(0));
        order(&mut queue, ms(0));
        assert_eq!(queue.releasable(start + ms(899), HOLD), ms(0));
        queue.push(start + ms(200), frame(1, 690, true));
        queue.push(start + ms(890), frame(0, 400, false));
        queue.push(start + ms(900), frame(1, 1390, true));
        let limit = queue.releasable(start + ms(910), HOLD);
        assert_eq!(limit, ms(690), "what has waited long enough, or nearly, and nothing else");
        assert_eq!(order(&mut queue, limit), [(0, 400), (1, 500), (1, 690)]);
        order(&mut queue, Duration::MAX);
        queue.push(start + ms(1800), frame(1, 2290, true));
        assert_eq!(queue.releasable(start + ms(1801), HOLD), ms(2290), "no picture for over {HOLD:?}");
    }

    #[test]
    fn pictures_before_the_first_keyframe_are_dropped_and_told() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, None);
        assert!(!queue.push(start, frame(0, 0, false)));
        assert!(!queue.push(start, frame(0, 33, false)) && queue.is_waiting_for_keyframe());
        assert!(queue.push(start, frame(0, 66, true)));
        let queued = queue.pop(Duration::MAX).unwrap();
        let gap = Gap { track: 0, from: ms(0), to: ms(66), reason: GapReason::Loss };
        assert_eq!(queued.gap, Some(gap));
        assert!(queue.oldest().is_none() && !queue.is_waiting_for_keyframe());
    }

    #[test]
    fn frames_that_come_back_go_on_with_a_keyframe_and_tell_what_is_left_out() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, None);
        for (track, time, keyframe) in
            [(0, 0, true), (1, 0, true), (0, 33, false), (0, 66, true), (1, 60, true)]
        {
            queue.push(start, frame(track, time, keyframe));
        }
        let mut taken: Vec<_> = std::iter::from_fn(|| queue.pop(ms(40))).collect();
        taken.remove(0);
        assert!(!queue.put_back(taken), "the keyframe is there");
        let all: Vec<_> = std::iter::from_fn(|| queue.pop(Duration::MAX)).collect();
        let seen: Vec<_> =
            all.iter().map(|queued| (queued.frame.track, queued.frame.time, queued.gap)).collect();
        let gap = Gap { track: 0, from: ms(33), to: ms(66), reason: GapReason::Loss };
        assert_eq!(seen, [(1, ms(0), None), (1, ms(60), None), (0, ms(66), Some(gap))]);

        let delta = |time| QueuedFrame { at: start, frame: frame(0, time, false), gap: None, silent: false };
        assert!(queue.put_back(vec![delta(99), delta(133)]), "a keyframe has to come");
        assert!(!queue.push(start, frame(0, 166, false)));
        assert!(queue.push(start, frame(0, 199, true)));
        let gap = Gap { from: ms(99), to: ms(199), ..gap };
        assert_eq!(queue.pop(Duration::MAX).unwrap().gap, Some(gap));
    }

    #[test]
    fn holes_that_no_frame_ends_are_left_to_be_told() {
        let mut queue = Interleaver::new(&TRACKS, None);
        let gap = |track, from, to, reason| Gap { track, from: ms(from), to: ms(to), reason };
        queue.gap(gap(1, 100, 200, GapReason::Overrun));
        queue.gap(gap(0, 0, 10, GapReason::Overrun));
        for time in [20, 40, 60] {
            queue.push(Instant::now(), frame(0, time, false));
        }
        let rest = [gap(0, 0, 60, GapReason::Loss), gap(1, 100, 200, GapReason::Overrun)];
        assert_eq!(queue.rest(), rest);
        assert_eq!(queue.rest(), []);
    }
}
