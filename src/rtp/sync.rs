//! All tracks on one timeline (T1).
//!
//! One track leads: its media clock is the file's clock, so its frames keep exactly the distances the
//! camera gave them, whatever the network did. It is the video where there is any: pictures are
//! stamped by the publisher's clock, but sound by counting samples, and a microphone that stumbles
//! loses some. The others are placed beside it: by sender reports (RFC 3550 section 6.4.1) once both
//! have one, before that by the smallest delay seen, for packets can be late but not early. Corrections
//! move a track by at most [`SLEW`] a frame, and never backwards; only a source whose clock stood still
//! while nothing came is moved on at once, over the hole ([`Resumption`]).
//!
//! Browsers' reports of sound place it late: Firefox's tell when a packet was sent, as if its sound had begun then,
//! by Chromium's it leaves 0 to 12 ms after it began. But a microphone's packet isn't sent before its sound is over,
//! so that such reports are found out ([`Timeline::doubt`]), and give way to when packets came. What is played
//! from a file may be sent so early, and be 20 ms early for it; as may be what comes by a path of much jitter,
//! where reports are rare.

use crate::rtp::resumption::{LONG, PROMPT, Resumption, SILENCE, Verdict};
use std::time::Duration;

/// The largest correction of one frame, in microseconds: too small to be seen or heard.
const SLEW: i64 = 5_000;
/// The file's clock ticks in milliseconds.
const TICK: i64 = 1_000;
/// Half of the sliding window of the smallest delay: long enough to hold an undelayed packet, short
/// enough to follow two clocks that drift apart (100 ppm are 1 ms in 10 s).
const HALF_WINDOW: i64 = 10_000_000;
/// The same where a microphone that loses sound is to be followed.
const HALF_RECENT: i64 = 1_000_000;
/// A packet cannot be early: by this much its source has jumped ahead.
const EARLY: i64 = 1_000_000;
/// Nor does a network hold packets for this long: its source has jumped back.
const LATE: i64 = 15_000_000;
/// A report that contradicts the one before by this much tells of a clock that was set.
const CLOCK_SET: i64 = 100_000;
/// So long the reports of one clock may contradict each other, until all tracks have a new one.
const SETTLING: i64 = 10_000_000;
/// So many reports are looked at, of which the fastest tells how long they are on their way at least.
const ENOUGH: u32 = 3;
/// Reports of sound that tell of sending are wrong by this much at most: a packet of 20 ms, and what they wander.
const SENDING: i64 = 50_000;
/// Pictures that were captured this long before they were sent, or more, have reports that tell so.
const CAPTURED: i64 = 2_000;
/// A report that comes by so much later was sent later.
const AFTER: i64 = 500_000;
/// Sound is that late only if its clock stood still: it takes no time to encode, and pacers let it pass.
const LATE_SOUND: i64 = 100_000;
/// Pictures may take that long from the camera to the network.
const LATE_PICTURE: i64 = 500_000;

/// The smallest delay (arrival − media time) of one to two halves of a window, if packets come that often. All
/// windows end at the same moments, so that a path that becomes longer is one for all tracks.
#[derive(Debug)]
struct Smallest {
    half: i64,
    older: i64,
    newer: i64,
    since: i64,
}

impl Smallest {
    /// Of the last 10 to 20 s.
    fn new(delay: i64, arrived: i64) -> Self {
        Self { half: HALF_WINDOW, older: delay, newer: delay, since: arrived }
    }

    /// Of the last one to two seconds.
    fn recent(delay: i64, arrived: i64) -> Self {
        Self { half: HALF_RECENT, ..Self::new(delay, arrived) }
    }

    fn add(&mut self, delay: i64, arrived: i64) {
        if arrived.div_euclid(self.half) != self.since.div_euclid(self.half) {
            (self.older, self.newer, self.since) = (self.newer, delay, arrived);
        }
        self.newer = self.newer.min(delay);
    }

    fn get(&self) -> i64 {
        self.older.min(self.newer)
    }
}

#[derive(Debug, Default)]
struct Track {
    delay: Option<Smallest>,
    /// The smallest delay of the last one to two seconds.
    recent: Option<Smallest>,
    /// When a packet arrived last, and the newest media time.
    heard: Option<(i64, i64)>,
    /// When one arrived last that was not late.
    prompt: Option<i64>,
    /// It was silent, and has just come back.
    resumption: Option<Resumption>,
    /// The media time up to which its clock ran before it stood still last, and for how long it did.
    stood: Option<(i64, i64)>,
    /// Sender's wall clock − media time, by its reports.
    reported: Option<i64>,
    /// The same by the newest report, and when that came: no packet has come since.
    claimed: Option<(i64, i64)>,
    /// How long the sound of the newest packet is; pictures are of an instant.
    lasts: i64,
    /// Its reports tell when packets were sent.
    reports_sending: bool,
    /// What is added to media time.
    offset: Option<i64>,
    last: Option<i64>,
    /// The next packet is another source's.
    replaced: bool,
}

impl Track {
    /// Another source, or the same with another clock: what was known of the old one goes, its distance
    /// to arrival stays.
    fn jump(&mut self, by: i64, delay: i64, arrived: i64) {
        self.offset = self.offset.map(|offset| offset + by);
        (self.reported, self.claimed, self.resumption, self.stood) = (None, None, None, None);
        (self.reports_sending, self.recent) = (false, None);
        self.delay = Some(Smallest::new(delay, arrived));
    }

    /// The same clock, which stood still while nothing came: all that is known of it has moved by as much.
    fn stood(&mut self, resumption: &Resumption, by: i64, now: i64) {
        self.offset = self.offset.map(|offset| offset + by);
        self.reported = self.reported.map(|reported| reported + by);
        self.claimed = None;
        self.delay = self.delay.take().map(|delay| Smallest::new(delay.get() + by, now));
        // What came behind the hole and before that was clear is of neither clock.
        self.recent = self.delay.as_ref().map(|delay| Smallest::recent(delay.get(), now));
        self.stood = Some((resumption.before, by));
    }

    fn judge(&mut self, verdict: Verdict, now: i64) {
        if verdict != Verdict::Unclear
            && let Some(resumption) = self.resumption.take()
            && let Verdict::Stopped(by) = verdict
        {
            self.stood(&resumption, by, now);
        }
    }
}

/// The tracks of one publisher. All times are microseconds since the stream's origin.
#[derive(Debug)]
pub(super) struct Timeline {
    tracks: Vec<Track>,
    leader: usize,
    /// The smallest delay of reports by the sender's wall clock, and how many have come.
    network: Option<Smallest>,
    reports: u32,
    /// The sender's clock was set, as this track's report said then: no corrections for a while.
    settling: Option<(usize, i64)>,
}

impl Timeline {
    /// `leader` is the index of the track whose clock is the file's.
    pub fn new(tracks: usize, leader: usize) -> Self {
        let tracks = (0..tracks).map(|_| Track::default()).collect();
        Self { tracks, leader, network: None, reports: 0, settling: None }
    }

    pub fn arrived(&mut self, track: usize, media: i64, arrived: i64) {
        let others = self.tracks.iter().enumerate().filter(|(other, _)| *other != track);
        let prompt = others.filter_map(|(_, other)| other.prompt).max();
        let least = if track == self.leader { LATE_PICTURE } else { LATE_SOUND };
        let delay = arrived - media;
        let this = &mut self.tracks[track];
        let replaced = std::mem::take(&mut this.replaced);
        let heard = this.heard.replace((arrived, media)).filter(|_| !replaced);
        if let Some((last, newest)) = heard {
            this.heard = Some((arrived, newest.max(media)));
            if arrived - last > SILENCE {
                this.resumption = Some(Resumption::new(arrived, arrived - last, newest, least));
            }
        }
        match &mut this.delay {
            Some(smallest) if !replaced && (-EARLY..LATE).contains(&(delay - smallest.get())) => {
                let late = delay - smallest.get();
                smallest.add(delay, arrived);
                if late < PROMPT {
                    this.prompt = Some(arrived);
                }
                if let Some(resumption) = &mut this.resumption {
                    let verdict = resumption.watch(late, arrived, prompt);
                    this.judge(verdict, arrived);
                }
            }
            Some(smallest) => {
                let jumped = delay - smallest.get();
                this.jump(jumped, delay, arrived);
                this.heard = Some((arrived, media));
            }
            None => this.delay = Some(Smallest::new(delay, arrived)),
        }
        let recent = || Smallest::recent(delay, arrived);
        self.tracks[track].recent.get_or_insert_with(recent).add(delay, arrived);
        self.believe(track);
    }

    /// Lets time pass: what is clear by now of a source that is back.
    pub fn handle_timeout(&mut self, track: usize, now: i64) {
        let this = &mut self.tracks[track];
        if let Some(resumption) = &mut this.resumption {
            let verdict = resumption.verdict(now);
            this.judge(verdict, now);
        }
    }

    /// Whether a frame with media time `media` has to wait for its time: [`Self::deadline`] ends that.
    pub fn is_unsettled(&self, track: usize, media: i64) -> bool {
        self.tracks[track].resumption.as_ref().is_some_and(|resumption| resumption.holds(media))
    }

    /// When a frame that waits has its time at the latest.
    pub fn deadline(&self) -> Option<i64> {
        self.tracks.iter().filter_map(|track| track.resumption.as_ref()?.deadline()).min()
    }

    /// Nothing waits any longer: the track's times are what they seem to be.
    pub fn settle(&mut self, track: usize) {
        let this = &mut self.tracks[track];
        let now = this.heard.map_or(0, |(arrived, _)| arrived);
        let verdict = this.resumption.as_ref().map_or(Verdict::Ran, Resumption::verdict_now);
        this.judge(verdict, now);
    }

    /// The newest packet has sound of this length.
    pub fn lasts(&mut self, track: usize, length: i64) {
        self.tracks[track].lasts = length;
    }

    /// The next packet of this track is another source's, which has another clock: it goes on by arrival.
    pub fn replaced(&mut self, track: usize) {
        self.tracks[track].replaced = true;
    }

    /// A report says that media time `media` was at `wall` on the sender's wall clock. It is believed with
    /// the next packet: a source that has just stopped may say where its clock stands while that stands still.
    pub fn reported(&mut self, track: usize, media: i64, wall: i64, arrived: i64) {
        let delay = arrived - wall;
        self.network.get_or_insert_with(|| Smallest::new(delay, arrived)).add(delay, arrived);
        self.reports = self.reports.saturating_add(1);
        let this = &mut self.tracks[track];
        // In a silence and right behind it nothing says of which of two clocks it tells.
        let silent = this.heard.is_none_or(|(heard, _)| arrived - heard > LONG);
        if !silent && this.resumption.is_none() {
            this.claimed = Some((wall - media, arrived));
        }
    }

    /// Takes the newest report for true if the track has gone on since and its clock ran.
    fn believe(&mut self, track: usize) {
        let this = &mut self.tracks[track];
        if this.resumption.is_some() {
            return;
        }
        let Some((new, arrived)) = this.claimed.take() else { return };
        match this.reported {
            Some(old) if (new - old).abs() < CLOCK_SET => {
                this.reported = Some(old + (new - old) / 2);
                // The clock is what it was: the other track's source stumbled, as a microphone does that
                // loses sound.
                if self.settling.is_some_and(|(other, since)| other != track && arrived > since + AFTER) {
                    self.settling = None;
                }
            }
            Some(_) if self.settling.is_some() => {
                this.reported = Some(new);
                self.settling = None;
            }
            Some(_) => {
                this.reported = Some(new);
                self.settling = Some((track, arrived));
            }
            None => this.reported = Some(new),
        }
        self.doubt(track);
    }

    /// Looks whether a track's packets are sent before they can be, by its reports, where the leader's are not.
    /// If both are, the reports of both tell of sending, and compare well.
    fn doubt(&mut self, track: usize) {
        let age = |track: usize, delay: Option<&Smallest>| {
            Some(delay?.get() - self.network.as_ref()?.get() - self.tracks[track].reported?)
        };
        let (this, leader) = (&self.tracks[track], &self.tracks[self.leader]);
        let ages = (age(track, this.recent.as_ref()), age(self.leader, leader.delay.as_ref()));
        if track != self.leader
            && self.reports >= ENOUGH
            && let (Some(age), Some(leaders)) = ages
            && leaders > CAPTURED
        {
            let this = &mut self.tracks[track];
            let bound = if this.reports_sending { this.lasts * 3 / 4 } else { this.lasts / 2 };
            // What is sooner still has another reason.
            if this.lasts > 0 && age > this.lasts - SENDING {
                this.reports_sending = age < bound;
            }
        }
    }

    /// Sender's wall clock − media time, as far as the reports are right.
    fn wall(&self, track: usize) -> Option<i64> {
        let (this, leader) = (&self.tracks[track], &self.tracks[self.leader]);
        let reported = this.reported?;
        if !this.reports_sending {
            return Some(reported);
        }
        // The first to come of all that was sent came right when its sound was over.
        let pictures = leader.delay.as_ref()?.get() - leader.reported?;
        let network = self.network.as_ref()?.get().min(pictures);
        Some((this.recent.as_ref()?.get() - network - this.lasts).clamp(reported - SENDING, reported))
    }

    /// The time of a frame with media time `media`.
    pub fn time_of(&mut self, track: usize, media: i64, now: i64) -> Duration {
        let target = self.target(track, now);
        let this = &mut self.tracks[track];
        let offset = match (this.offset, target) {
            (Some(offset), Some(target)) => offset + (target - offset).clamp(-SLEW, SLEW),
            (Some(offset), None) => offset,
            (None, Some(target)) => target,
            (None, None) => this.delay.as_ref().map_or(now - media, Smallest::get),
        };
        this.offset = Some(offset);
        // A picture that was still in pieces when its clock stood still belongs before that.
        let by = this.stood.filter(|(before, _)| media <= *before).map_or(0, |(_, by)| by);
        let earliest = this.last.map_or(0, |last| last + TICK);
        let time = (media + offset - by).max(earliest);
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
        if self.settling.is_some_and(|(_, since)| now < since + SETTLING) {
            return None;
        }
        self.settling = None;
        self.beside(track, self.leader)
    }

    /// The offset at which two tracks are in step.
    fn beside(&self, track: usize, other: usize) -> Option<i64> {
        let walls = (self.wall(track), self.wall(other));
        let (this, other) = (&self.tracks[track], &self.tracks[other]);
        let offset = other.offset?;
        match walls {
            (Some(this), Some(other)) => Some(offset + this - other),
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
mod tests;
