//! A recorder's clock → the stream's.
//!
//! Only differences count: a recorder's first frame may have any time. Where its clock is set, back or
//! far ahead, its frames go on behind the newest one, after a pause as long as the bytes were silent,
//! less what they tell themselves; each track follows with its own first frame of the new clock. Pure:
//! arrival is an argument.

use std::time::Duration;

/// A frame that is so much behind the one before it was recorded by a clock that was set; less than that
/// is the jitter of encoders, whose frames are put a tick apart.
const STEP: i128 = 200_000_000;
/// A frame that is so much later than when it arrived explains was recorded by a clock that was set:
/// a client that is silent for that long keeps no connection.
const LEAP: i128 = 300_000_000_000;
/// Pictures that are shown before one that was sent before them: no more can wait in a decoder of H.264
/// (MaxDpbFrames, ITU-T H.264 section A.3.1).
const MAX_REORDERED: usize = 16;
/// No picture waits that long to be shown; a block may lie 32 s before its cluster at most.
const MAX_EARLY: i128 = 5_000_000_000;
/// No recording is longer: a time beyond it is rubbish.
const MAX_TIME: i128 = 366 * 24 * 3600 * 1_000_000_000;
/// A frame's length where nothing tells it.
const FRAME: Duration = Duration::from_millis(20);
/// No frame is believed to be longer.
const MAX_FRAME: Duration = Duration::from_millis(200);
/// A file's clock ticks in milliseconds, and frames of a track are a tick apart at least.
const TICK: i128 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// Index of the recorder's track.
    pub track: usize,
    /// The recorder's time, in nanoseconds.
    pub time: i128,
    /// It may be shown before frames that were sent before it.
    pub may_be_early: bool,
}

/// When that is on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamTime {
    pub time: Duration,
    /// How long before that it is shown.
    pub early: Duration,
    /// The newest frame of its track, if the recorder's clock was set since.
    pub set_after: Option<Duration>,
}

#[derive(Debug, Default)]
struct TrackState {
    /// Stream time of the recorder's time 0, in nanoseconds.
    base: Option<i128>,
    newest: Option<i128>,
    /// The recorder's latest times, ascending, if frames may be early.
    shown: Vec<i128>,
}

#[derive(Debug, Default)]
pub(super) struct Clock {
    tracks: Vec<TrackState>,
    /// That of the newest track.
    base: Option<i128>,
    /// The newest frame's stream time, and how long it lasts.
    newest: Option<(Duration, Duration)>,
    /// When the frames before these came.
    arrived: Duration,
    /// How much time the frames that came since then tell of.
    brought: i128,
    /// The newest of them, by the recorder's clock.
    last: Option<i128>,
    /// The earliest of them that belongs to the first.
    first: i128,
    /// Some have been placed.
    any: bool,
}

impl Clock {
    /// Another recorder, with a clock of its own.
    pub fn restart(&mut self) {
        self.tracks.clear();
        (self.base, self.last) = (None, None);
    }

    /// Frames that are about to be placed.
    pub fn expect(&mut self, frames: impl Iterator<Item = Stamp>) {
        let mut first = None;
        let mut together = true;
        for frame in frames {
            let ahead = self.last.map_or(0, |last| frame.time - last);
            let is_jitter = ahead <= 0 && (-ahead <= STEP || frame.may_be_early);
            let goes_on = is_jitter || (0..=LEAP).contains(&ahead);
            together &= goes_on || first.is_none();
            let earliest = first.filter(|first| !together || *first <= frame.time);
            first = earliest.or(Some(frame.time));
            self.brought += if goes_on { ahead.max(0) } else { 0 };
            self.last = self.last.filter(|_| is_jitter).or(Some(frame.time));
        }
        self.first = first.unwrap_or(self.first);
    }

    /// The stream time of a frame that arrived at `at`; `None` if it lies beyond any recording.
    pub fn stream_time(&mut self, frame: Stamp, at: Duration) -> Option<StreamTime> {
        if self.tracks.len() <= frame.track {
            self.tracks.resize_with(frame.track + 1, TrackState::default);
        }
        let track = &self.tracks[frame.track];
        let (before, newest) = (track.base, track.newest);
        let early = track.is_early(frame);
        let fits = |base: &i128| early || self.fits(newest, base + frame.time, at);
        let known = [before, self.base].into_iter().flatten().find(fits);
        let base = known.unwrap_or_else(|| self.begin(frame, at));
        let shown = (base + frame.time).max(0);
        let time = newest.map_or(shown, |newest| shown.max(newest + TICK));
        let set = newest.is_some() && before != Some(base);
        self.tracks[frame.track].took(frame, base, time);
        let placed = StreamTime {
            time: nanos(time)?,
            early: if early { nanos(time - shown)? } else { Duration::ZERO },
            set_after: newest.filter(|_| set).and_then(nanos),
        };
        self.note(placed.time);
        Some(placed)
    }

    /// Whether a frame of a track with this newest one may be at `time`.
    fn fits(&self, newest: Option<i128>, time: i128, at: Duration) -> bool {
        let Some((stream, _)) = self.newest else { return true };
        let stream = stream.as_nanos() as i128;
        let explained = at.saturating_sub(self.arrived).as_nanos() as i128;
        let earliest = newest.map_or(stream - LEAP, |newest| newest - STEP);
        (earliest..=stream + explained + LEAP).contains(&time)
    }

    /// Goes on behind the newest frame with this one.
    fn begin(&mut self, frame: Stamp, at: Duration) -> i128 {
        let first = if self.base.is_none() { self.first } else { frame.time };
        let brought = nanos(self.brought).unwrap_or(Duration::MAX);
        let begins = match self.newest {
            None => at.saturating_sub(brought),
            Some((newest, lasts)) => {
                newest + lasts.max(at.saturating_sub(self.arrived).saturating_sub(brought))
            }
        };
        *self.base.insert(begins.as_nanos() as i128 - first)
    }

    fn note(&mut self, time: Duration) {
        self.any = true;
        if self.newest.is_none_or(|(newest, _)| time > newest) {
            let step = self.newest.map(|(newest, _)| time - newest);
            self.newest = Some((time, step.map_or(FRAME, |step| step.clamp(FRAME, MAX_FRAME))));
        }
    }

    /// All that came until `at` is placed.
    pub fn is_done(&mut self, at: Duration) {
        if std::mem::take(&mut self.any) {
            (self.arrived, self.brought) = (at, 0);
        }
    }
}

impl TrackState {
    /// Whether a frame is shown before one that was sent before it.
    fn is_early(&self, frame: Stamp) -> bool {
        let (Some(first), Some(last)) = (self.shown.first(), self.shown.last()) else { return false };
        frame.may_be_early
            && frame.time < *last
            && last - frame.time <= MAX_EARLY
            && (self.shown.len() < MAX_REORDERED || frame.time > *first)
            && !self.shown.contains(&frame.time)
    }

    fn took(&mut self, frame: Stamp, base: i128, time: i128) {
        if self.base != Some(base) {
            self.shown.clear();
        }
        (self.base, self.newest) = (Some(base), Some(time));
        let at = self.shown.partition_point(|shown| *shown < frame.time);
        self.shown.insert(at, frame.time);
        if self.shown.len() > MAX_REORDERED {
            self.shown.remove(0);
        }
    }
}

/// A time that a recording can have.
fn nanos(nanos: i128) -> Option<Duration> {
    let nanos = u64::try_from(nanos).ok().filter(|nanos| i128::from(*nanos) <= MAX_TIME)?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i128 = 3_600_000;

    /// Places frames of `(track, ms)` that came at once: `(ms, ms early, clock was set)`.
    fn place(
        clock: &mut Clock,
        at: u64,
        may_be_early: bool,
        frames: &[(usize, i128)],
    ) -> Vec<(u128, u128, bool)> {
        let stamp = |(track, ms): &(usize, i128)| Stamp { track: *track, time: ms * 1_000_000, may_be_early };
        let at = Duration::from_millis(at);
        clock.expect(frames.iter().map(stamp));
        let mut placed = Vec::new();
        for frame in frames.iter().map(stamp) {
            let StreamTime { time, early, set_after } = clock.stream_time(frame, at).unwrap();
            placed.push((time.as_millis(), early.as_millis(), set_after.is_some()));
        }
        clock.is_done(at);
        placed
    }

    #[test]
    fn only_differences_count_whatever_the_first_time_is() {
        let far = i128::from(u64::MAX) * 1_000;
        for first in [0, 1_795_000_000_000, i128::from(i64::MAX), far - 40, -5] {
            let frames = [(0, first), (1, first + 7), (0, first + 20), (1, first + 40)];
            let placed = place(&mut Clock::default(), 40, false, &frames);
            assert_eq!(placed, [(0, 0, false), (7, 0, false), (20, 0, false), (40, 0, false)], "{first}");
        }
    }

    #[test]
    fn a_clock_that_is_set_goes_on_by_arrival_and_each_track_follows() {
        for set in [-5_000, 3 * HOUR, -20 * HOUR] {
            let mut clock = Clock::default();
            place(&mut clock, 60, false, &[(0, 5_000), (1, 5_007), (0, 5_020), (1, 5_040), (0, 5_060)]);
            // The second track has a frame from before still.
            let next = 5_080 + set;
            let frames = [(0, next), (1, 5_080), (0, next + 20), (1, next + 7), (1, next + 40)];
            let placed = place(&mut clock, 60, false, &frames);
            let expected = [(80, 0, true), (80, 0, false), (100, 0, false), (87, 0, true), (120, 0, false)];
            assert_eq!(placed, expected, "{set} ms");
        }
    }

    #[test]
    fn a_pause_at_a_set_clock_is_as_long_as_nothing_came() {
        let mut clock = Clock::default();
        place(&mut clock, 1_000, false, &[(0, 9_000), (0, 9_500), (0, 10_000)]);
        let placed = place(&mut clock, 6_000, false, &[(0, 10_500), (0, 100), (0, 600), (0, 1_100)]);
        // Five seconds, one and a half of which the frames tell of.
        assert_eq!(placed[0], (1_500, 0, false));
        assert_eq!(placed[1], (5_000, 0, true));
    }

    #[test]
    fn jitter_is_put_in_order_and_silence_that_arrival_explains_is_silence() {
        let mut clock = Clock::default();
        let placed = place(&mut clock, 60, false, &[(0, 0), (0, 40), (0, 30), (0, 60)]);
        assert_eq!(placed, [(0, 0, false), (40, 0, false), (41, 0, false), (60, 0, false)]);
        let hour = HOUR as u64;
        let placed = place(&mut clock, hour, false, &[(0, HOUR)]);
        assert_eq!(placed, [(HOUR as u128, 0, false)]);
    }

    #[test]
    fn pictures_keep_the_order_they_were_sent_in_and_the_time_they_are_shown() {
        let mut clock = Clock::default();
        let frames = [0, 120, 40, 80, 240, 160, 200].map(|ms| (0, ms));
        let placed = place(&mut clock, 240, true, &frames);
        assert!(placed.windows(2).all(|pair| pair[0].0 < pair[1].0), "{placed:?}");
        let shown: Vec<_> = placed.iter().map(|(time, early, _)| (time - early) as i128).collect();
        assert_eq!(shown, frames.map(|(_, ms)| ms));
        assert!(placed.iter().all(|placed| !placed.2));
        // Where more wait than can, the clock was set.
        let more: Vec<_> = (6..40).map(|step| (0, 40 * step + 80)).chain([(0, 1000)]).collect();
        let placed = place(&mut clock, 2_000, true, &more);
        assert!(placed.last().unwrap().2, "{placed:?}");
    }
}
