//! Silence for the holes of a sound track: most players and converters put one packet behind the other, so
//! that what is behind a hole comes early by its length.
//!
//! For them all that a track's times moved on without a packet counts, holes or not: sound that is put into
//! step with its pictures by a few milliseconds a packet, a clock that drifts, what a hole leaves beside
//! whole packets. So the file keeps count of where they are ([`Silence::due`]).
//!
//! Nothing of it waits anywhere: a packet is made when the file comes to its time, whether the hole is of
//! a packet or of hours. Times are those of the stream.

use crate::media::{Codec, Frame, Track, opus};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a packet is taken to be before the first one has come.
const USUAL_PACKET: Duration = Duration::from_millis(20);
/// What is shorter than the sound of a track, longest first: the lengths of one frame of silence
/// (RFC 6716 section 3.1).
const SHORTER: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(5), Duration::from_micros(2_500)];
/// Sound that goes on is held up by a packet of this length once it is early by as much: less is not
/// noticed.
const EARLY: Duration = SHORTER[0];
/// That is heard in the middle of a word, so it waits for a moment that is quieter, but not until sound is
/// early by this much,
const TOO_EARLY: Duration = Duration::from_millis(25);
/// nor longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest packet of a silent encoder, in bytes.
const SILENT: usize = 3;
/// The file's clock ticks in milliseconds.
const TICK: Duration = Duration::from_millis(1);
/// The most that a track's sound is taken to come later than pictures of its time as a rule: a recorder's
/// chunks may hold 10 s of one track, and then 10 s of the other.
const MAX_LAG: Duration = Duration::from_secs(10);
/// Silence that may be written beyond the time that has passed. Uploads may be faster than they play, but
/// a publisher whose times leap must not fill a disk with nothing.
const AHEAD_OF_TIME: Duration = Duration::from_secs(3600);

/// What a track of sound needs so that each of its packets begins where those before it end, put one behind
/// the other.
#[derive(Debug)]
pub(super) struct Silence {
    /// How long its packets are, and whether of two channels.
    length: Duration,
    stereo: bool,
    /// Where all packets so far end, one put behind the other; `None` before the file begins.
    due: Option<Duration>,
    /// When the newest packet begins and ends by its time; `None` behind silence.
    sound: Option<(Duration, Duration)>,
    /// How large loud packets are, in bytes: the largest of the last one or two seconds.
    loud: usize,
    /// The time of the first packet that was early enough to be held up.
    early: Option<Duration>,
    /// The newest packet was silence, made before the sound behind it was there.
    guessed: bool,
    /// The most that sound came later than pictures of its time.
    lag: Duration,
}

impl Silence {
    /// For a track of Opus; `None` for any other.
    pub fn of(track: &Track) -> Option<Self> {
        (track.codec == Codec::Opus).then_some(Self {
            length: USUAL_PACKET,
            stereo: track.channels > 1,
            due: None,
            sound: None,
            loud: 0,
            early: None,
            guessed: false,
            lag: Duration::ZERO,
        })
    }

    /// The file begins, or another one does.
    pub fn begin(&mut self, at: Duration) {
        (self.due, self.sound) = (Some(at), None);
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

    /// The packet that is due before the sound `next`, or before the stream's time `passed` where none has
    /// come, and its time. Behind a hole sound is early by less than 2.5 ms then.
    pub fn due(&self, next: Option<(Duration, &[u8])>, passed: Duration) -> Option<(Duration, Bytes)> {
        let due = self.due?;
        let Some((begins, data)) = next else {
            let fits = due + self.length <= passed.saturating_sub(self.lag);
            return fits.then(|| (due, opus::silence(self.length, self.stereo)));
        };
        let early = begins.saturating_sub(due);
        // Behind the beginning of the packet before it, even if what has been put ends before that.
        let time = self.sound.map_or(due, |(before, _)| due.max(before + TICK));
        let packet = if self.sound.is_none_or(|(_, ends)| begins.saturating_sub(ends) > self.length / 2) {
            let length = [self.length].into_iter().chain(SHORTER).find(|length| *length <= early)?;
            opus::silence(length, self.stereo)
        } else {
            self.holds_up(begins, data, early).then(|| opus::concealment(self.stereo))?
        };
        (time < begins).then_some((time, packet))
    }

    /// Whether sound that goes on is held up before this packet.
    fn holds_up(&self, time: Duration, data: &[u8], early: Duration) -> bool {
        let is_quiet = data.len() <= SILENT.max(self.loud / 2);
        let has_waited = self.early.is_some_and(|since| time > since + PATIENCE);
        early >= TOO_EARLY || early >= EARLY && (is_quiet || has_waited)
    }

    /// A packet of sound goes into the file, at its time.
    pub fn add_sound(&mut self, time: Duration, data: &[u8]) {
        if let Some(length) = opus::duration(data) {
            (self.length, self.stereo) = (length, opus::is_stereo(data));
        }
        // A hole for which no silence could be made stays.
        let due = self.due.filter(|due| time < *due + TOO_EARLY).unwrap_or(time);
        self.early = self.early.or(Some(time)).filter(|_| due + EARLY <= time);
        self.loud = data.len().max(self.loud - self.loud.div_ceil(64));
        self.due = Some(due + self.length);
        (self.sound, self.guessed) = (Some((time, time + self.length)), false);
    }

    /// A packet that was due does, before the sound that it was due for, or where none has come.
    pub fn add_silence(&mut self, time: Duration, packet: &[u8], guessed: bool) {
        let length = opus::duration(packet).unwrap_or(self.length);
        self.due = Some(self.due.unwrap_or(time) + length);
        let goes_on = self.sound.filter(|_| packet == opus::concealment(self.stereo));
        self.sound = goes_on.map(|(_, ends)| (time, ends.max(time + length)));
        self.guessed = guessed;
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
    use crate::media::{Codec, Frame, Gap, GapReason, Track, opus};
    use crate::record::interleave::{Interleaver, QueuedFrame};
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
            queue.queue_silence(limit);
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

    /// Sound of 20 ms at these microseconds, of so many bytes, in a file that begins at 0: by how much each
    /// packet is late where one is put behind the other, and what is put in between: before which and how
    /// long.
    fn laid(sound: impl IntoIterator<Item = (u64, usize)>) -> (Vec<i64>, Vec<(usize, Duration)>) {
        let start = Instant::now();
        let mut queue = Interleaver::new(&TRACKS[1..], Some(WINDOW));
        queue.begin(ms(0));
        let (mut late, mut filled, mut end) = (Vec::new(), Vec::new(), Duration::ZERO);
        for (time, size) in sound {
            let data = Bytes::from(vec![0xfc; size]);
            queue.push(start, Frame { time: Duration::from_micros(time), data, ..frame(0, 0) });
            loop {
                queue.queue_silence(Duration::MAX);
                let Some(QueuedFrame { frame, silent, .. }) = queue.pop(Duration::MAX) else { break };
                let length = opus::duration(&frame.data).unwrap();
                if silent {
                    filled.push((late.len(), length));
                } else {
                    late.push(end.as_micros() as i64 - frame.time.as_micros() as i64);
                }
                end += length;
            }
        }
        (late, filled)
    }

    #[test]
    fn behind_a_hole_of_any_length_sound_is_at_its_time_where_packets_are_put_one_behind_the_other() {
        let pauses = (0..200).map(|pause| pause * 431_300).flat_map(|begins| [begins, begins + 20_000]);
        let (late, filled) = laid(pauses.map(|time| (time, 100)));
        assert!(late.iter().all(|late| (-2_500..=0).contains(late)), "{late:?} us");
        assert!(filled.iter().filter(|(_, length)| *length < ms(20)).count() <= 3 * 200, "{filled:?}");
        let (late, _) = laid([(1_000_000, 100), (1_020_000, 100)]);
        assert!(late.iter().all(|late| (-2_500..=0).contains(late)), "{late:?} us");
    }

    #[test]
    fn sound_that_moves_in_time_is_held_up_where_it_is_quiet_so_that_it_stays_in_step_end_to_end() {
        let worst = |late: &[i64]| late.iter().map(|late| late.abs()).max();
        // Put into step with its pictures; a clock that is slow by 200 ppm for an hour.
        let into_step = |n| n * 20_000 + 5_000 * u64::min(n, 12);
        let drifts = |n| n * 20_000 + n * 4;
        let voice = |n| if n % 25 < 20 { 100 } else { 40 };
        for (name, (late, filled), bound) in [
            ("step", laid((0..400).map(|n| (into_step(n), 3))), 10_000),
            ("drift", laid((0..180_000).map(|n| (drifts(n), voice(n)))), 10_100),
            ("step in a word", laid((0..400).map(|n| (into_step(n), voice(n)))), 25_000),
            ("music", laid((0..180_000).map(|n| (drifts(n), 100))), 10_500),
        ] {
            println!("{name}: {} packets in between, {:?} us at worst", filled.len(), worst(&late));
            assert!(worst(&late) < Some(bound), "{name}: {:?} us", worst(&late));
            assert!(filled.iter().all(|(_, length)| *length == ms(10)), "{filled:?}");
            let quiet = filled.iter().filter(|(before, _)| voice(*before as u64) == 40).count();
            assert!(name != "drift" || quiet == filled.len(), "{quiet} of {}", filled.len());
        }
        let jitter = |n: u64| n * 20_000 + [0, 7_000, 3_000, 9_000][n as usize % 4];
        let (late, filled) = laid((0..1_000).map(|n| (jitter(n), 3)));
        assert!(filled.is_empty(), "times that are only uneven: {filled:?}");
        assert!(worst(&late) < Some(10_000), "{late:?}");
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
        queue.queue_silence(Duration::MAX);
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
