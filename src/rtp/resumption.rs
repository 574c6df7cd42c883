//! A source that is back after a silence: did its clock stand still meanwhile?
//!
//! A microphone that was taken away and given back, or a computer that was asleep, counts its samples on
//! from where it was: each packet is late by the silence. What a network held up is late, too, but then a
//! packet of another track that was sent later doesn't come earlier; and it comes faster than it was sent,
//! so that its lateness falls. Until that is clear the frames wait. All times are microseconds.

/// After a silence this long a clock may have stood still meanwhile.
pub(super) const SILENCE: i64 = 200_000;
/// A silence that is believed to be a clock's without another track that proves it.
pub(super) const LONG: i64 = 500_000;
/// A packet that is late by less is not late. One that came so much before another, and was sent after it,
/// overtook it on no network: packets of one path come in order, but for its jitter.
pub(super) const PROMPT: i64 = 60_000;
/// With a proof frames wait for so long: a publisher that had just fallen behind sends the rest at once, and
/// the least lateness of some packets is nearer to the truth than that of one.
const PROVEN: i64 = 100_000;
/// Without one, half of the time that lateness is watched: the queue of a path that carries a tenth more
/// than is sent falls by 30 ms meanwhile, and of 15 packets one comes without much jitter.
const HALF: i64 = 300_000;
/// A queue that empties falls by more than this from one half to the other.
const STEADY: i64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Unclear,
    /// The clock ran on.
    Ran,
    /// The clock stood still for so long.
    Stopped(i64),
}

/// A source that is back.
#[derive(Debug)]
pub(super) struct Resumption {
    since: i64,
    /// The media time of the newest packet before the silence.
    pub before: i64,
    silence: i64,
    /// Lateness below this is the network's, or the encoder's.
    least: i64,
    first: i64,
    /// The least lateness in each half of the time it is watched.
    halves: [i64; 2],
    proven: bool,
    /// Frames wait.
    holds: bool,
}

impl Resumption {
    /// Back at `since` after a `silence` of more than [`SILENCE`]; `least` is the lateness that this kind of
    /// source can have otherwise.
    pub fn new(since: i64, silence: i64, before: i64, least: i64) -> Self {
        let (least, halves) = (least.max(silence / 2), [i64::MAX; 2]);
        Self { since, before, silence, least, first: i64::MAX, halves, proven: false, holds: true }
    }

    /// A packet came so late. `prompt` is when one of another track came last that was not late.
    pub fn watch(&mut self, late: i64, arrived: i64, prompt: Option<i64>) -> Verdict {
        if late < self.least {
            return Verdict::Ran;
        }
        if self.first == i64::MAX {
            self.first = late;
        }
        // This one was sent `late` ago.
        self.proven |= prompt.is_some_and(|prompt| prompt > arrived - late + PROMPT);
        if let Some(half) = self.halves.get_mut(((arrived - self.since) / HALF) as usize) {
            *half = (*half).min(late);
        }
        self.verdict(arrived)
    }

    /// What has become clear by now.
    pub fn verdict(&mut self, now: i64) -> Verdict {
        let watched = now - self.since;
        let [first, second] = self.halves;
        let least = first.min(second);
        if watched < PROVEN || least == i64::MAX {
            Verdict::Unclear
        } else if self.proven {
            Verdict::Stopped(least)
        } else if self.silence < LONG {
            Verdict::Ran
        } else if watched < 2 * HALF {
            Verdict::Unclear
        } else if second >= first.saturating_sub(STEADY) {
            Verdict::Stopped(least)
        } else {
            // A queue that empties. It is watched on, but nothing waits for it.
            (self.since, self.halves, self.holds) = (now, [i64::MAX; 2], false);
            Verdict::Unclear
        }
    }

    /// The verdict where no more can be waited for.
    pub fn verdict_now(&self) -> Verdict {
        let least = self.halves[0].min(self.halves[1]);
        let believed = self.silence >= LONG && self.first.saturating_sub(least) < PROMPT;
        if least < i64::MAX && (self.proven || believed) { Verdict::Stopped(least) } else { Verdict::Ran }
    }

    /// Whether a frame of this media time waits.
    pub fn holds(&self, media: i64) -> bool {
        self.holds && media > self.before
    }

    /// When there is a verdict, if frames wait for one.
    pub fn deadline(&self) -> Option<i64> {
        let short = self.proven || self.silence < LONG;
        self.holds.then_some(self.since + if short { PROVEN } else { 2 * HALF })
    }
}
