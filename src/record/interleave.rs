//! Puts the frames of several tracks into one order of time, without keeping any of them long.

use crate::media::{Frame, Gap, GapReason, Kind, Track, opus};
use crate::record::silence::{Clock, Silence};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest a last picture counts: the interval before it may have been a gap.
const MAX_LAST_INTERVAL: Duration = Duration::from_secs(1);

/// Frames on their way into a cluster, and the silence that is to fill holes between those of sound.
///
/// Bounded by time: whoever owns it releases all of them `hold` after the oldest was pushed, and the
/// tap before it is bounded in bytes.
#[derive(Debug)]
pub(super) struct Interleaver {
    lanes: Vec<TrackState>,
    clock: Clock,
}

#[derive(Debug)]
struct TrackState {
    kind: Kind,
    held: VecDeque<Held>,
    /// The newest frame: its time, and when it was pushed.
    newest: Option<(Duration, Instant)>,
    /// How long the newest frame lasts, as far as the one before it tells.
    interval: Duration,
    /// What fills its holes; sound only.
    silence: Option<Silence>,
    /// A video lane begins with a keyframe: nothing before one can be decoded.
    begun: bool,
    /// Times of the first and the newest frame dropped for want of a keyframe.
    dropped: Option<(Duration, Duration)>,
    /// A hole that the next frame ends.
    gap: Option<Gap>,
}

/// A frame, when it was pushed, and the hole it ends.
#[derive(Debug)]
pub(super) struct Held {
    pub at: Instant,
    pub frame: Frame,
    pub gap: Option<Gap>,
    /// It was never received: it fills a hole.
    pub silent: bool,
}

impl Interleaver {
    /// Fills holes of sound that did not come within `window` of what it belongs to; `None` leaves them.
    pub fn new(tracks: &[Track], window: Option<Duration>) -> Self {
        let lane = |track: &Track| TrackState {
            kind: track.codec.kind(),
            held: VecDeque::new(),
            newest: None,
            interval: Duration::ZERO,
            silence: window.and_then(|_| Silence::of(track)),
            begun: track.codec.kind() == Kind::Audio,
            dropped: None,
            gap: None,
        };
        let clock = Clock::new(window.unwrap_or_default());
        Self { lanes: tracks.iter().map(lane).collect(), clock }
    }

    /// Takes a frame; returns whether it was kept.
    pub fn push(&mut self, at: Instant, frame: Frame) -> bool {
        let Some(lane) = self.lanes.get_mut(frame.track) else { return false };
        if !lane.begun && !frame.keyframe {
            let (from, to) = lane.dropped.unwrap_or((frame.time, frame.time));
            lane.dropped = Some((from, to.max(frame.time)));
            return false;
        }
        if lane.silence.as_mut().is_some_and(|silence| silence.is_too_late(&frame, self.clock.newest())) {
            let to = frame.time + Duration::from_millis(1);
            let gap = Gap { track: frame.track, from: frame.time, to, reason: GapReason::Loss };
            lane.gap = Some(union(lane.gap, gap));
            return false;
        }
        self.clock.see(at, frame.time);
        lane.begun = true;
        if let Some((from, _)) = lane.dropped.take() {
            let gap = Gap { track: frame.track, from, to: frame.time, reason: GapReason::Loss };
            lane.gap = Some(union(lane.gap, gap));
        }
        if let Some((newest, _)) = lane.newest {
            lane.interval = frame.time.saturating_sub(newest).min(MAX_LAST_INTERVAL);
        }
        let time = lane.newest.map_or(frame.time, |(newest, _)| newest.max(frame.time));
        lane.newest = Some((time, at));
        let gap = lane.gap.take();
        lane.held.push_back(Held { at, frame, gap, silent: false });
        true
    }

    /// Notes a hole that the next frame of its track ends.
    pub fn gap(&mut self, gap: Gap) {
        if let Some(lane) = self.lanes.get_mut(gap.track) {
            lane.gap = Some(union(lane.gap, gap));
        }
    }

    /// Takes the holes that no frame has ended: nothing comes any more.
    pub fn rest(&mut self) -> Vec<Gap> {
        let rest = |(track, lane): (usize, &mut TrackState)| {
            let loss = |(from, to)| Gap { track, from, to, reason: GapReason::Loss };
            match (lane.gap.take(), lane.dropped.take().map(loss)) {
                (gap, Some(dropped)) => Some(union(gap, dropped)),
                (gap, None) => gap,
            }
        };
        self.lanes.iter_mut().enumerate().filter_map(rest).collect()
    }

    /// Whether frames came that can't be used before a keyframe does.
    pub fn is_waiting_for_keyframe(&self) -> bool {
        self.lanes.iter().any(|lane| lane.dropped.is_some())
    }

    /// Bytes of memory of the frames that wait.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().flat_map(|lane| &lane.held).map(|held| held.frame.footprint()).sum()
    }

    /// When the oldest frame that waits was pushed.
    pub fn oldest(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| lane.held.front()).map(|held| held.at).min()
    }

    /// Frames up to this time can leave: no flowing track will deliver an earlier one. Frames that
    /// have waited for `hold` leave in any case, and with them those that soon will have: order is
    /// worth less than getting to the disk in time, and a wake-up for each of them costs more.
    pub fn releasable(&self, now: Instant, hold: Duration) -> Duration {
        let flowing = self.lanes.iter().filter_map(|lane| lane.newest).filter(|(_, at)| *at + hold > now);
        let in_order = flowing.map(|(time, _)| time).min().unwrap_or(Duration::MAX);
        if self.oldest().is_none_or(|at| at + hold > now) {
            return in_order;
        }
        let soon = |held: &&Held| held.at + hold * 3 / 4 <= now;
        let waiting = self.lanes.iter().flat_map(|lane| lane.held.iter().take_while(soon));
        waiting.map(|held| held.frame.time).max().map_or(in_order, |time| time.max(in_order))
    }

    /// The next frame in order of time, of those up to `limit`; of equal ones the picture, so that a
    /// keyframe opens its cluster.
    pub fn peek(&self, limit: Duration) -> Option<&Held> {
        self.lanes[self.next(limit)?].held.front()
    }

    /// Takes what [`Interleaver::peek`] shows.
    pub fn pop(&mut self, limit: Duration) -> Option<Held> {
        let lane = self.next(limit)?;
        let lane = &mut self.lanes[lane];
        let held = lane.held.pop_front()?;
        match &mut lane.silence {
            Some(silence) if held.silent => {
                silence.filled(held.frame.time, &held.frame.data, lane.held.is_empty());
            }
            Some(silence) => silence.took(held.frame.time, &held.frame.data),
            None => {}
        }
        Some(held)
    }

    /// A file begins at `at`.
    pub fn begin(&mut self, at: Duration) {
        self.lanes.iter_mut().filter_map(|lane| lane.silence.as_mut()).for_each(|silence| silence.begin(at));
    }

    /// Has the next packet of silence wait before the frames, on each track where one is due.
    pub fn fill(&mut self, limit: Duration) {
        for (track, lane) in self.lanes.iter_mut().enumerate() {
            let Some(silence) = &lane.silence else { continue };
            let (first, newest) = (lane.held.front(), lane.newest.map(|(_, at)| at));
            if first.is_some_and(|held| held.silent) {
                continue;
            }
            let due =
                silence.due(first.map(|held| (held.frame.time, &held.frame.data[..])), self.clock.passed());
            let Some((time, data)) = due.filter(|(time, _)| *time <= limit) else { continue };
            let length = opus::duration(&data).unwrap_or_default();
            let Some(at) = first.map(|held| held.at).or(newest).or(self.clock.began()) else { continue };
            if self.clock.take(length) {
                let frame = Frame { time, keyframe: true, ..Frame::of(track, data) };
                lane.held.push_front(Held { at, frame, gap: None, silent: true });
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
        self.lanes.iter_mut().filter_map(|lane| lane.silence.as_mut()).for_each(Silence::end);
        let pictures = self.lanes.iter().filter(|lane| lane.kind == Kind::Video);
        let ends = pictures.filter_map(|lane| Some(lane.newest?.0 + lane.interval));
        if let Some(end) = ends.max() {
            self.clock.settle(end);
        }
    }

    fn next(&self, limit: Duration) -> Option<usize> {
        let heads = self.lanes.iter().enumerate().filter_map(|(index, lane)| {
            let time = lane.held.front()?.frame.time;
            (time <= limit).then_some((time, lane.kind != Kind::Video, index))
        });
        heads.min().map(|(.., index)| index)
    }

    /// Whether pictures have come within `patience`.
    pub fn has_pictures(&self, now: Instant, patience: Duration) -> bool {
        let fresh = |lane: &TrackState| lane.newest.is_some_and(|(_, at)| at + patience > now);
        self.lanes.iter().any(|lane| lane.kind == Kind::Video && fresh(lane))
    }

    /// Pictures must begin anew with a keyframe: they go into another file.
    pub fn want_keyframe(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.kind == Kind::Video) {
            lane.begun = lane.held.front().is_some_and(|held| held.frame.keyframe);
        }
    }

    /// Frames that reached no file come back, in front of those that wait, to go into another one:
    /// pictures begin anew with a keyframe. Returns whether one is still to come.
    pub fn put_back(&mut self, frames: Vec<Held>) -> bool {
        for lane in &mut self.lanes {
            if lane.held.front().is_some_and(|held| held.silent) {
                lane.held.pop_front();
            }
            lane.silence.as_mut().into_iter().for_each(Silence::begin_anew);
        }
        for held in frames.into_iter().rev() {
            self.lanes[held.frame.track].held.push_front(held);
        }
        self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.kind == Kind::Video).fold(
            false,
            |waits, (track, lane)| {
                lane.begin_anew(track);
                waits | !lane.begun
            },
        )
    }
}

impl TrackState {
    /// Leaves out what comes before the first keyframe that waits, or what waits, if there is none.
    fn begin_anew(&mut self, track: usize) {
        let keyframe = self.held.iter().position(|held| held.frame.keyframe);
        self.begun = keyframe.is_some();
        for Held { frame, gap, .. } in self.held.drain(..keyframe.unwrap_or(self.held.len())) {
            let (from, to) = self.dropped.unwrap_or((frame.time, frame.time));
            self.dropped = Some((from, to.max(frame.time)));
            self.gap = gap.map(|gap| union(self.gap, gap)).or(self.gap);
        }
        if let (Some(first), Some((from, _))) = (self.held.front_mut(), self.dropped) {
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
            .map(|held| (held.frame.track, held.frame.time.as_millis() as u64))
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
    fn no_frame_waits_longer_than_it_may_and_a_silent_track_holds_nobody() {
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
        let held = queue.pop(Duration::MAX).unwrap();
        let gap = Gap { track: 0, from: ms(0), to: ms(66), reason: GapReason::Loss };
        assert_eq!(held.gap, Some(gap));
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
        let seen: Vec<_> = all.iter().map(|held| (held.frame.track, held.frame.time, held.gap)).collect();
        let gap = Gap { track: 0, from: ms(33), to: ms(66), reason: GapReason::Loss };
        assert_eq!(seen, [(1, ms(0), None), (1, ms(60), None), (0, ms(66), Some(gap))]);

        let delta = |time| Held { at: start, frame: frame(0, time, false), gap: None, silent: false };
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
