//! Silence for the holes of a sound track: most players and converters play what is behind a hole early
//! by its length.
//!
//! Nothing of it waits anywhere: a packet is made when the file comes to its time, whether the hole is of
//! a packet or of hours. Times are those of the stream.

use crate::media::{Codec, Frame, Track, opus};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a packet is taken to be before the first one has come.
const USUAL_PACKET: Duration = Duration::from_millis(20);
/// The most that a track's sound is taken to come later than pictures of its time as a rule: a recorder's
/// chunks may hold 10 s of one track, and then 10 s of the other.
const MAX_LAG: Duration = Duration::from_secs(10);
/// Silence that may be written beyond the time that has passed. Uploads may be faster than they play, but
/// a publisher whose times leap must not fill a disk with nothing.
const AHEAD_OF_TIME: Duration = Duration::from_secs(3600);

/// What a track of sound needs so that each of its packets begins where the one before it ends.
#[derive(Debug)]
pub(super) struct Silence {
    packet: Bytes,
    length: Duration,
    /// Where the next packet belongs; `None` before the file begins.
    due: Option<Duration>,
    /// The newest packet was silence, made before the sound behind it was there.
    guessed: bool,
    /// The most that sound came later than pictures of its time.
    lag: Duration,
}

impl Silence {
    /// For a track of Opus; `None` for any other.
    pub fn of(track: &Track) -> Option<Self> {
        (track.codec == Codec::Opus).then(|| Self {
            packet: opus::silence(USUAL_PACKET, track.channels > 1),
            length: USUAL_PACKET,
            due: None,
            guessed: false,
            lag: Duration::ZERO,
        })
    }

    /// The file begins, or another one does.
    pub fn begin(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |due| due.max(at)));
    }

    /// What was due went into no file: it is due anew where the next one begins.
    pub fn begin_anew(&mut self) {
        (self.due, self.guessed) = (None, false);
    }

    /// Sound comes while the stream is at `clock`. Returns whether its time is already filled: it came too
    /// late to be heard where it belongs, and elsewhere it would push aside what follows.
    pub fn is_too_late(&mut self, frame: &Frame, clock: Duration) -> bool {
        self.lag = self.lag.max(clock.saturating_sub(frame.time).min(MAX_LAG));
        self.guessed && self.due.is_some_and(|due| frame.time + self.length / 2 < due)
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        self.lag = Duration::ZERO;
    }

    /// The time of the packet of silence that is due before the sound at `next`, or before the stream's
    /// time `passed` where none has come. A hole of less than half a packet stays.
    pub fn due(&self, next: Option<Duration>, passed: Duration) -> Option<Duration> {
        let until = next.unwrap_or(passed.saturating_sub(self.lag));
        self.due.filter(|due| *due + self.length / 2 <= until)
    }

    /// The packet, and how long it lasts.
    pub fn packet(&self) -> (Bytes, Duration) {
        (self.packet.clone(), self.length)
    }

    /// A packet of sound goes into the file, at its time.
    pub fn took(&mut self, time: Duration, data: &[u8]) {
        if let Some(length) = opus::duration(data) {
            let packet = opus::silence(length, opus::is_stereo(data));
            if packet != self.packet {
                (self.packet, self.length) = (packet, length);
            }
        }
        (self.due, self.guessed) = (Some(time + self.length), false);
    }

    /// A packet of silence does, at its time.
    pub fn filled(&mut self, time: Duration, guessed: bool) {
        (self.due, self.guessed) = (Some(time + self.length), guessed);
    }
}

/// The stream's clock, which is that of its media: what it showed a window ago is not waited for any more.
/// While nothing comes, it stands still.
#[derive(Debug)]
pub(super) struct Clock {
    window: Duration,
    newest: Duration,
    /// When it showed what, a twentieth of the window apart: up to 22. What is filled is so much further behind.
    shown: VecDeque<(Instant, Duration)>,
    passed: Duration,
    /// Silence that may still be made: that of [`AHEAD_OF_TIME`], and as much as has passed.
    began: Option<Instant>,
    latest: Option<Instant>,
    made: Duration,
}

impl Clock {
    /// A clock whose track of sound may be `window` behind.
    pub fn new(window: Duration) -> Self {
        let shown = VecDeque::new();
        let (newest, passed, made) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Self { window, newest, shown, passed, began: None, latest: None, made }
    }

    /// A frame of this time came.
    pub fn see(&mut self, at: Instant, time: Duration) {
        self.newest = self.newest.max(time);
        self.began.get_or_insert(at);
        self.latest = self.latest.max(Some(at));
        if self.shown.back().is_none_or(|(last, _)| *last + self.window / 20 <= at) {
            self.shown.push_back((at, self.newest));
        }
    }

    /// When the first frame came.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// What it shows.
    pub fn newest(&self) -> Duration {
        self.newest
    }

    /// Looks what has passed.
    pub fn pass(&mut self, now: Instant) {
        while let Some((at, shown)) = self.shown.front().copied()
            && at + self.window <= now
        {
            self.passed = self.passed.max(shown);
            self.shown.pop_front();
        }
    }

    /// All up to here has passed.
    pub fn settle(&mut self, at: Duration) {
        self.passed = self.passed.max(at);
    }

    /// What no sound can come for any more.
    pub fn passed(&self) -> Duration {
        self.passed
    }

    /// Takes so much silence from what may be made; `false` if that is used up.
    pub fn take(&mut self, length: Duration) -> bool {
        let (Some(began), Some(latest)) = (self.began, self.latest) else { return false };
        let fits = self.made + length <= latest.saturating_duration_since(began) + AHEAD_OF_TIME;
        if fits {
            self.made += length;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use crate::media::{Codec, Frame, Gap, GapReason, Track};
    use crate::record::interleave::Interleaver;
    use bytes::Bytes;
    use std::time::{Duration, Instant};

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];
    const WINDOW: Duration = Duration::from_secs(1);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn frame(track: usize, millis: u64) -> Frame {
        let data = Bytes::from_static(&[0xfc, 1, 2]);
        Frame { time: ms(millis), keyframe: true, ..Frame::of(track, data) }
    }

    /// What leaves by then: times of silence and of sound.
    fn leave(queue: &mut Interleaver, now: Instant) -> (Vec<u64>, Vec<u64>) {
        let (mut silence, mut sound) = (Vec::new(), Vec::new());
        queue.pass(now);
        let limit = queue.releasable(now, ms(900));
        loop {
            queue.fill(limit);
            let Some(held) = queue.pop(limit) else { break (silence, sound) };
            let to = if held.silent { &mut silence } else { &mut sound };
            if held.frame.track == 1 {
                to.push(held.frame.time.as_millis() as u64);
            }
        }
    }

    #[test]
    fn a_hole_is_filled_once_the_media_is_past_it_by_the_window_and_not_by_waiting() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, Some(WINDOW));
        queue.push(start, frame(0, 0));
        queue.push(start, frame(1, 0));
        queue.begin(ms(0));
        assert_eq!(leave(&mut queue, start), (vec![], vec![0]));
        for step in 1..=30 {
            queue.push(start + ms(step * 100), frame(0, step * 100));
        }
        let (silence, _) = leave(&mut queue, start + ms(3_000));
        let last = silence.last().copied().unwrap();
        assert!((1_700..=2_000).contains(&last), "a window behind: {last} ms");
        assert!(silence.iter().copied().eq((1..=last / 20).map(|step| step * 20)), "{silence:?}");
        let (silence, _) = leave(&mut queue, start + ms(4_000));
        let last = silence.last().copied().unwrap();
        assert!((2_700..=3_000).contains(&last), "up to the last picture: {last} ms");
        // Nothing comes for a minute: an upload that pauses.
        assert_eq!(leave(&mut queue, start + ms(64_000)), (vec![], vec![]));
        // The sound goes on, and what was not yet filled is.
        queue.push(start + ms(64_000), frame(0, 3_100));
        queue.push(start + ms(64_000), frame(1, 3_100));
        let (silence, sound) = leave(&mut queue, start + ms(66_000));
        assert_eq!((silence.last(), sound), (Some(&3_080), vec![3_100]));
    }

    #[test]
    fn sound_for_a_time_that_is_filled_is_left_out_and_told() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, Some(WINDOW));
        queue.push(start, frame(0, 0));
        queue.begin(ms(0));
        for step in 1..=40 {
            queue.push(start + ms(step * 100), frame(0, step * 100));
        }
        let (silence, _) = leave(&mut queue, start + ms(4_000));
        let filled = silence.last().copied().unwrap() + 20;
        assert!(!queue.push(start + ms(4_000), frame(1, filled - 20)));
        assert!(queue.push(start + ms(4_000), frame(1, filled)));
        queue.push(start + ms(4_000), frame(1, filled + 20));
        queue.end();
        queue.fill(Duration::MAX);
        let next =
            std::iter::from_fn(|| queue.pop(Duration::MAX)).find(|held| held.frame.track == 1).unwrap();
        let gap = Gap { track: 1, from: ms(filled - 20), to: ms(filled - 19), reason: GapReason::Loss };
        assert_eq!((next.frame.time, next.gap), (ms(filled), Some(gap)));
    }

    #[test]
    fn sound_that_is_always_late_is_not_taken_for_a_hole() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, Some(WINDOW));
        queue.push(start, frame(0, 0));
        queue.begin(ms(0));
        let (mut silence, mut sound) = (0, 0);
        for step in 1..=500u64 {
            let now = start + ms(step * 20);
            queue.push(now, frame(0, step * 20));
            // 1.6 s behind its pictures: a part of its start is filled before that is known, and nothing else.
            if step >= 130 {
                assert!(queue.push(now, frame(1, step * 20 - 1_600)) || step < 165, "at {step}");
            }
            let (filled, heard) = leave(&mut queue, now);
            (silence, sound) = (silence + filled.len(), sound + heard.len());
        }
        assert!(silence <= 85 && sound > 280, "{silence} of silence, {sound} of sound");
    }

    #[test]
    fn silence_is_no_further_behind_pictures_than_sound_that_was_lost_and_sent_again() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, Some(WINDOW));
        queue.push(start, frame(0, 0));
        queue.begin(ms(0));
        let (mut newest, mut back) = (0, 0);
        for step in 1..=300u64 {
            let now = start + ms(step * 33);
            queue.push(now, frame(0, step * 33));
            // As the recorder does about once a second.
            if step % 30 == 0 {
                let (silence, _) = leave(&mut queue, now);
                back = back.max(silence.first().map_or(0, |first| newest - first.min(&newest)));
                newest = step * 33;
            }
        }
        println!("{back} ms behind");
        assert!((1..=1_000 + 100).contains(&back), "{back} ms behind the pictures");
    }

    #[test]
    fn eight_hours_of_silence_take_no_memory_and_no_leap_of_times_fills_a_disk() {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS, Some(WINDOW));
        queue.push(start, frame(0, 0));
        queue.begin(ms(0));
        let (mut packets, mut most) = (0, 0);
        for second in 1..=8 * 3600u64 {
            let now = start + ms(second * 1000);
            queue.push(now, frame(0, second * 1000));
            most = most.max(queue.bytes());
            packets += leave(&mut queue, now).0.len();
        }
        let due = 8 * 3600 * 50;
        assert!(packets <= due && packets + 200 > due, "{packets} of {due} packets");
        assert!(most < 4_096, "{most} bytes");
        let now = start + ms(8 * 3_600_000 + 1_000);
        for year in 1..=20u64 {
            queue.push(now, frame(1, year * 31_557_600_000));
        }
        queue.end();
        let (silence, sound) = leave(&mut queue, now + ms(5_000));
        println!("{} packets for 20 years", silence.len());
        assert_eq!(sound.len(), 20);
        assert!(silence.len() <= 3600 * 50 + 200, "{} packets", silence.len());
    }
}
