//! All tracks on one timeline (T1).
//!
//! One track leads: its media clock is the file's clock, so its frames keep exactly the distances the
//! camera gave them, whatever the network did. It is the video where there is any: pictures are
//! stamped by the publisher's clock, but sound by counting samples, and a microphone that stumbles
//! loses some. The others are placed beside it: by sender reports (RFC 3550 section 6.4.1) once both
//! have one, before that by the smallest delay seen, for packets can be late but not early. Corrections
//! move a track by at most [`SLEW`] a frame, and never backwards; only a source whose clock stood still
//! while nothing came is moved on at once, over the hole.

use std::time::Duration;

/// The largest correction of one frame, in microseconds: too small to be seen or heard.
const SLEW: i64 = 5_000;
/// The file's clock ticks in milliseconds.
const TICK: i64 = 1_000;
/// Half of the sliding window of the smallest delay: long enough to hold an undelayed packet, short
/// enough to follow two clocks that drift apart (100 ppm are 1 ms in 10 s).
const HALF_WINDOW: i64 = 10_000_000;
/// A packet cannot be early: by this much its source has jumped ahead.
const EARLY: i64 = 1_000_000;
/// Nor does a network hold packets for this long: its source has jumped back.
const LATE: i64 = 15_000_000;
/// A report that contradicts the one before by this much tells of a clock that was set.
const CLOCK_SET: i64 = 100_000;
/// So long the reports of one clock may contradict each other, until all tracks have a new one.
const SETTLING: i64 = 10_000_000;
/// After a silence this long a source's clock may have stood still meanwhile.
const SILENCE: i64 = 500_000;
/// Half of the time that its packets are watched then.
const WATCH: i64 = 500_000;
/// A queue that empties shortens the delay by more than this from one half to the other.
const STEADY: i64 = 50_000;
/// A smaller delay than this is the network's.
const STOOD: i64 = 250_000;

/// The smallest delay (arrival − media time) of the last 10 to 20 s.
#[derive(Debug)]
struct Smallest {
    older: i64,
    newer: i64,
    since: i64,
}

impl Smallest {
    fn new(delay: i64, arrived: i64) -> Self {
        Self { older: delay, newer: delay, since: arrived }
    }

    fn add(&mut self, delay: i64, arrived: i64) {
        if arrived - self.since > HALF_WINDOW {
            (self.older, self.newer, self.since) = (self.newer, delay, arrived);
        }
        self.newer = self.newer.min(delay);
    }

    fn get(&self) -> i64 {
        self.older.min(self.newer)
    }
}

/// A source that comes back after a silence. A computer that was asleep counts its samples on from
/// where it was: each packet is late by the silence, and they come at the pace of the microphone. What a
/// network held up comes faster than that, and its delay falls.
#[derive(Debug)]
struct Return {
    since: i64,
    /// The smallest delay in each half of the time it is watched.
    halves: [i64; 2],
}

impl Return {
    fn new(since: i64) -> Self {
        Self { since, halves: [i64::MAX; 2] }
    }

    /// Takes a packet's delay; once it is clear, how long the clock stood still, `Some(0)` if not at all.
    fn watch(&mut self, delay: i64, usual: i64, arrived: i64) -> Option<i64> {
        let half = (arrived - self.since) / WATCH;
        if let Some(smallest) = self.halves.get_mut(half as usize) {
            *smallest = (*smallest).min(delay);
            return None;
        }
        let [first, second] = self.halves;
        let stood = second.saturating_sub(usual);
        if stood < STOOD {
            return Some(0);
        }
        if first.abs_diff(second) < STEADY.unsigned_abs() {
            return Some(stood);
        }
        *self = Self::new(arrived);
        None
    }
}

#[derive(Debug, Default)]
struct Track {
    delay: Option<Smallest>,
    /// When the newest packet arrived.
    heard: Option<i64>,
    /// It was silent, and has just come back.
    returns: Option<Return>,
    /// Sender's wall clock − media time, by its reports.
    reported: Option<i64>,
    /// What is added to media time.
    offset: Option<i64>,
    /// The last frame's time.
    last: Option<i64>,
    /// The next packet is another source's.
    replaced: bool,
}

impl Track {
    /// Another source, or the same with another clock: what was known of the old one goes, its distance
    /// to arrival stays.
    fn jump(&mut self, by: i64, delay: i64, arrived: i64) {
        self.offset = self.offset.map(|offset| offset + by);
        self.reported = None;
        self.returns = None;
        self.delay = Some(Smallest::new(delay, arrived));
    }
}

/// The tracks of one publisher. All times are microseconds since the stream's origin.
#[derive(Debug)]
pub(super) struct Timeline {
    tracks: Vec<Track>,
    leader: usize,
    /// The sender's clock was set: no corrections until then.
    settling: Option<i64>,
}

impl Timeline {
    /// `leader` is the index of the track whose clock is the file's.
    pub fn new(tracks: usize, leader: usize) -> Self {
        Self { tracks: (0..tracks).map(|_| Track::default()).collect(), leader, settling: None }
    }

    /// A packet with media time `media` arrived.
    pub fn arrived(&mut self, track: usize, media: i64, arrived: i64) {
        let delay = arrived - media;
        let this = &mut self.tracks[track];
        let replaced = std::mem::take(&mut this.replaced);
        if this.heard.replace(arrived).is_some_and(|heard| arrived - heard > SILENCE) {
            this.returns = Some(Return::new(arrived));
        }
        match &mut this.delay {
            Some(smallest) if !replaced && (-EARLY..LATE).contains(&(delay - smallest.get())) => {
                smallest.add(delay, arrived);
                let usual = smallest.get();
                if let Some(stood) = this.returns.as_mut().and_then(|it| it.watch(delay, usual, arrived)) {
                    this.returns = None;
                    if stood > 0 {
                        this.jump(stood, usual + stood, arrived);
                    }
                }
            }
            Some(smallest) => {
                let jumped = delay - smallest.get();
                this.jump(jumped, delay, arrived);
            }
            None => this.delay = Some(Smallest::new(delay, arrived)),
        }
    }

    /// The next packet of this track is another source's, which has another clock: it goes on by arrival.
    pub fn replaced(&mut self, track: usize) {
        self.tracks[track].replaced = true;
    }

    /// A report says that media time `media` was at `wall` on the sender's wall clock.
    pub fn reported(&mut self, track: usize, media: i64, wall: i64, arrived: i64) {
        let new = wall - media;
        let this = &mut self.tracks[track];
        match this.reported {
            Some(old) if (new - old).abs() < CLOCK_SET => this.reported = Some(old + (new - old) / 2),
            Some(_) if self.settling.is_some() => {
                this.reported = Some(new);
                self.settling = None;
            }
            Some(_) => {
                this.reported = Some(new);
                self.settling = Some(arrived + SETTLING);
            }
            None => this.reported = Some(new),
        }
    }

    /// The time of a frame with media time `media`.
    pub fn place(&mut self, track: usize, media: i64, now: i64) -> Duration {
        let target = self.target(track, now);
        let this = &mut self.tracks[track];
        let offset = match (this.offset, target) {
            (Some(offset), Some(target)) => offset + (target - offset).clamp(-SLEW, SLEW),
            (Some(offset), None) => offset,
            (None, Some(target)) => target,
            (None, None) => this.delay.as_ref().map_or(now - media, Smallest::get),
        };
        this.offset = Some(offset);
        let earliest = this.last.map_or(0, |last| last + TICK);
        let time = (media + offset).max(earliest);
        this.last = Some(time);
        Duration::from_micros(time.unsigned_abs())
    }

    /// Where the track belongs; `None` leaves it where it is.
    fn target(&mut self, track: usize, now: i64) -> Option<i64> {
        if track == self.leader {
            // Only where it begins: beside what has come before it.
            let first = (0..self.tracks.len()).find(|other| self.tracks[*other].offset.is_some())?;
            return if self.tracks[track].offset.is_none() { self.beside(track, first) } else { None };
        }
        if self.settling.is_some_and(|until| now < until) {
            return None;
        }
        self.settling = None;
        self.beside(track, self.leader)
    }

    /// The offset at which two tracks are in step.
    fn beside(&self, track: usize, other: usize) -> Option<i64> {
        let (this, other) = (&self.tracks[track], &self.tracks[other]);
        let offset = other.offset?;
        match (this.reported, other.reported) {
            (Some(reported), Some(other)) => Some(offset + reported - other),
            _ => Some(offset + this.delay.as_ref()?.get() - other.delay.as_ref()?.get()),
        }
    }
}

/// Microseconds of an NTP time in 32.32 fixed point; `None` if the sender doesn't know (RFC 3550
/// section 6.4.1 has 0 for that).
pub(super) fn ntp_micros(ntp: u64) -> Option<i64> {
    let (seconds, fraction) = (ntp >> 32, ntp & 0xffff_ffff);
    (ntp != 0).then(|| (seconds * 1_000_000 + ((fraction * 1_000_000) >> 32)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: usize = 0;
    const AUDIO: usize = 1;

    /// A sender whose pictures and sounds of the same instant should come out at the same time.
    struct Sender {
        timeline: Timeline,
        seed: u64,
        /// Parts per million by which the audio's media clock is fast.
        audio_ppm: i64,
        /// Microseconds of delay of each track's path, beside the jitter.
        jitter: i64,
    }

    impl Sender {
        fn new(audio_ppm: i64, jitter: i64) -> Self {
            Self { timeline: Timeline::new(2, VIDEO), seed: 7, audio_ppm, jitter }
        }

        fn random(&mut self) -> i64 {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) as i64 % self.jitter.max(1)
        }

        fn media(&self, track: usize, captured: i64) -> i64 {
            match track {
                VIDEO => 5_000_000_000 + captured,
                _ => 77_000_000 + captured + captured * self.audio_ppm / 1_000_000,
            }
        }

        /// Sends what was captured at this instant; gives its time in the file.
        fn send(&mut self, track: usize, captured: i64) -> i64 {
            let (media, arrived) = (self.media(track, captured), captured + 20_000 + self.random());
            self.timeline.arrived(track, media, arrived);
            self.timeline.place(track, media, arrived).as_micros() as i64
        }

        fn report(&mut self, track: usize, captured: i64) {
            let media = self.media(track, captured);
            self.timeline.reported(track, media, 3_900_000_000_000_000 + captured, captured + 20_000);
        }

        /// Plays for some seconds; the largest error of audio against video (in milliseconds) in each.
        fn play(&mut self, seconds: i64, audio_from: i64, reports_from: Option<i64>) -> Vec<i64> {
            let mut worst = vec![0; seconds as usize];
            let mut lag = None;
            for tick in 0..seconds * 300 {
                let now = tick * 10_000 / 3;
                if reports_from.is_some_and(|from| now >= from && tick % 300 == 7) {
                    self.report(VIDEO, now);
                    self.report(AUDIO, now);
                }
                if tick % 10 == 0 {
                    lag = Some(self.send(VIDEO, now) - now);
                }
                if tick % 6 == 3 && now >= audio_from {
                    let error = self.send(AUDIO, now) - now - lag.unwrap();
                    let second = (now / 1_000_000) as usize;
                    worst[second] = i64::max(worst[second], error.abs() / 1000);
                }
            }
            worst
        }
    }

    #[test]
    fn reports_align_the_tracks_within_20_ms_and_before_them_the_smallest_delay_does_within_80() {
        let mut sender = Sender::new(0, 80_000);
        let worst = sender.play(30, 500_000, Some(3_000_000));
        assert!(worst[..5].iter().all(|error| *error <= 80), "{worst:?}");
        assert!(worst[5..].iter().all(|error| *error <= 20), "{worst:?}");
    }

    #[test]
    fn without_any_report_the_tracks_stay_within_40_ms() {
        let worst = Sender::new(0, 80_000).play(60, 500_000, None);
        assert!(worst[2..].iter().all(|error| *error <= 40), "{worst:?}");
        assert!(worst[..2].iter().all(|error| *error <= 80), "{worst:?}");
    }

    #[test]
    fn clocks_that_drift_apart_stay_together_for_an_hour() {
        for reports in [None, Some(3_000_000)] {
            let worst = Sender::new(100, 30_000).play(3600, 0, reports);
            let most = worst[5..].iter().max().unwrap();
            assert!(*most <= 20, "{most} ms with reports from {reports:?}");
        }
    }

    #[test]
    fn the_leaders_frames_keep_their_distances_whatever_the_network_does() {
        let mut sender = Sender::new(0, 80_000);
        let times: Vec<i64> = (0..900).map(|n| sender.send(VIDEO, n * 33_333)).collect();
        assert_eq!(times[899] - times[0], 899 * 33_333);
    }

    #[test]
    fn a_source_that_jumps_goes_on_by_arrival_and_never_backwards() {
        let mut timeline = Timeline::new(1, 0);
        let mut send = |media, arrived| {
            timeline.arrived(0, media, arrived);
            timeline.place(0, media, arrived).as_micros() as i64
        };
        assert_eq!(send(1_000_000, 20_000), 20_000);
        assert_eq!(send(900_000_000, 60_000), 60_000, "a jump ahead");
        assert_eq!(send(5_000_000, 100_000), 100_000, "a jump back");
        assert_eq!(send(5_040_000, 3_140_000), 140_000, "held up by the network");
        assert_eq!(send(5_040_000, 3_140_000), 141_000, "the same time twice");
    }

    #[test]
    fn a_sender_whose_clock_is_set_stays_in_step() {
        let mut sender = Sender::new(0, 10_000);
        sender.play(20, 0, Some(0));
        let media = sender.media(VIDEO, 20_000_000);
        sender.timeline.reported(VIDEO, media, 0, 20_000_000);
        let (video, audio) = (sender.send(VIDEO, 20_100_000), sender.send(AUDIO, 20_100_000));
        assert!((video - audio).abs() < 20_000, "half of the reports were believed: {}", video - audio);
    }

    #[test]
    fn a_microphone_whose_clock_stood_still_is_in_step_a_second_after_it_is_back() {
        const FROZEN: i64 = 5_000_000;
        for reports in [false, true] {
            let mut sender = Sender::new(0, 30_000);
            sender.play(20, 0, reports.then_some(1_000_000));
            let (mut lag, mut worst) = (0, [0; 10]);
            for tick in 0..3_000 {
                let now = 20_000_000 + FROZEN + tick * 10_000 / 3;
                if reports && tick % 300 == 7 {
                    sender.report(VIDEO, now);
                    let media = sender.media(AUDIO, now - FROZEN);
                    sender.timeline.reported(AUDIO, media, 3_900_000_000_000_000 + now, now + 20_000);
                }
                if tick % 10 == 0 {
                    lag = sender.send(VIDEO, now) - now;
                }
                if tick % 6 == 3 {
                    let (media, arrived) =
                        (sender.media(AUDIO, now - FROZEN), now + 20_000 + sender.random());
                    sender.timeline.arrived(AUDIO, media, arrived);
                    let time = sender.timeline.place(AUDIO, media, arrived).as_micros() as i64;
                    let second = (tick / 300) as usize;
                    worst[second] = i64::max(worst[second], (time - now - lag).abs() / 1000);
                }
            }
            println!("reports {reports}: {worst:?} ms");
            assert!(worst[2..].iter().all(|error| *error <= 40), "reports {reports}: {worst:?}");
        }
    }

    #[test]
    fn packets_that_a_network_held_up_are_no_clock_that_stood_still() {
        for (held, pace) in [(4_000_000, 2_000), (4_000_000, 9_000), (1_000_000, 18_000)] {
            let mut sender = Sender::new(0, 0);
            sender.play(20, 0, None);
            // Then delivered as fast as the queue empties; they were sent 20 ms apart.
            for step in 0..1_500i64 {
                let captured = 20_000_000 + step * 20_000;
                let queued = 20_000_000 + held + step * pace;
                let (media, arrived) = (sender.media(AUDIO, captured), captured.max(queued) + 20_000);
                sender.timeline.arrived(AUDIO, media, arrived);
                let time = sender.timeline.place(AUDIO, media, arrived).as_micros() as i64;
                let error = (time - captured - 20_000).abs();
                assert!(error < 40_000, "{error} µs off at {step}, {pace} µs apart");
            }
        }
    }

    #[test]
    fn sound_that_comes_first_is_joined_by_pictures_in_step() {
        let mut sender = Sender::new(0, 0);
        let sound: Vec<i64> = (0..50).map(|n| sender.send(AUDIO, n * 20_000) - n * 20_000).collect();
        let picture = sender.send(VIDEO, 1_000_000) - 1_000_000;
        let after = sender.send(AUDIO, 1_020_000) - 1_020_000;
        assert_eq!((picture, after), (sound[0], sound[0]));
    }

    #[test]
    fn a_microphone_that_loses_samples_does_not_shorten_the_file() {
        let mut sender = Sender::new(-5_000, 0);
        sender.play(60, 0, Some(1_000_000));
        let (picture, sound) = (sender.send(VIDEO, 60_000_000), sender.send(AUDIO, 60_000_000));
        assert_eq!(picture, 60_020_000, "the pictures' own time");
        assert!((picture - sound).abs() < 20_000, "{} µs apart", picture - sound);
    }

    #[test]
    fn ntp_time_is_read_as_fixed_point() {
        assert_eq!(ntp_micros(0), None);
        assert_eq!(ntp_micros(10 << 32 | 1 << 31), Some(10_500_000));
    }
}
