//! When a keyframe is asked for (T2, T4).

use std::time::{Duration, Instant};

/// An encoder's answer takes a round trip and a picture; asked again sooner, it would make two.
const REPEAT: Duration = Duration::from_millis(500);
/// The pause grows up to this, for a sender that does not answer.
const MAX_REPEAT: Duration = Duration::from_secs(2);
/// Viewers together ask for at most one in this time, but for repetitions of one that isn't answered.
const WANTED: Duration = Duration::from_secs(1);
/// A keyframe that came this short a time ago may still be on its way to them.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// A loss right after a request may have hit the keyframe that was on its way, but hardly sooner.
const AFTER_LOSS: Duration = Duration::from_millis(100);

/// Why a keyframe is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// None has come yet.
    Start,
    /// Nothing can be decoded without one.
    Loss,
    /// The newest is old: files should seek.
    Interval,
    /// A viewer begins to watch.
    Viewer,
}

#[derive(Debug)]
pub(super) struct Keyframes {
    interval: Duration,
    newest: Option<Instant>,
    asked: Option<Instant>,
    /// When one was last asked for because of viewers.
    viewers: Option<Instant>,
    pause: Duration,
    due: bool,
    /// Why the newest request was made.
    reason: Reason,
    /// Nothing can be decoded without one.
    needed: bool,
}

impl Keyframes {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            newest: None,
            asked: None,
            viewers: None,
            pause: REPEAT,
            due: false,
            reason: Reason::Start,
            needed: true,
        }
    }

    pub fn arrived(&mut self, now: Instant) {
        (self.newest, self.asked, self.pause) = (Some(now), None, REPEAT);
        (self.due, self.needed) = (false, false);
    }

    /// Nothing can be decoded any more.
    pub fn lost(&mut self, now: Instant) {
        if !self.needed {
            self.needed = true;
            self.pause = REPEAT;
            self.due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= AFTER_LOSS);
        }
    }

    /// A viewer needs one. A keyframe that came for another reason before is of no use to it.
    pub fn wanted(&mut self, now: Instant) {
        let within = |pause: Duration, at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) < pause)
        };
        let spared =
            within(WANTED, self.asked) || within(WANTED, self.viewers) || within(ON_ITS_WAY, self.newest);
        self.due |= !spared;
    }

    /// When to ask, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.asked, self.newest) {
            (Some(asked), _) => Some(asked + self.pause),
            (None, Some(newest)) if !self.needed => Some(newest + self.interval),
            _ => None,
        }
    }

    /// Why to ask now, if it is time to.
    pub fn ask(&mut self, now: Instant) -> Option<Reason> {
        let first = self.needed && self.asked.is_none();
        if !self.due && !first && self.deadline().is_none_or(|at| now < at) {
            return None;
        }
        self.reason = self.why();
        if self.reason == Reason::Viewer {
            self.viewers = Some(now);
        }
        if self.asked.is_some() && !self.due {
            self.pause = (self.pause * 3 / 2).min(MAX_REPEAT);
        }
        (self.due, self.asked) = (false, Some(now));
        Some(self.reason)
    }

    /// A repetition has the reason of the first request.
    fn why(&self) -> Reason {
        match (self.needed, self.newest, self.due, self.asked) {
            (true, None, ..) => Reason::Start,
            (true, Some(_), ..) => Reason::Loss,
            (false, _, true, _) => Reason::Viewer,
            (false, _, false, Some(_)) => self.reason,
            (false, _, false, None) => Reason::Interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_at_the_start_after_a_loss_and_when_the_newest_is_old() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut keyframes = Keyframes::new(Duration::from_secs(4));
        let mut asked = Vec::new();
        for ms in (0..20_000).step_by(10) {
            match ms {
                1200 | 6000 | 9050 => keyframes.arrived(at(ms)),
                8000 | 8010 => keyframes.lost(at(ms)),
                _ => {}
            }
            if let Some(reason) = keyframes.ask(at(ms)) {
                asked.push((ms, reason));
            }
        }
        // Start with repetitions; 4 s after 1200; the loss with repetitions; 4 s after 9050, unanswered.
        let times: Vec<_> = asked.iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [0, 500, 5200, 5700, 8000, 8500, 13_050, 13_550, 14_300, 15_430, 17_120, 19_120]);
        let why =
            |from: usize, to: usize| asked[from..to].iter().map(|(_, reason)| *reason).collect::<Vec<_>>();
        assert_eq!(why(0, 2), [Reason::Start; 2]);
        assert_eq!(why(2, 4), [Reason::Interval; 2]);
        assert_eq!(why(4, 6), [Reason::Loss; 2]);
        assert_eq!(why(6, 12), [Reason::Interval; 6]);
    }

    #[test]
    fn viewers_get_at_most_one_a_second() {
        let start = Instant::now();
        let mut keyframes = Keyframes::new(Duration::from_secs(4));
        keyframes.arrived(start);
        let mut asked = 0;
        for ms in (0..3000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            keyframes.wanted(now);
            if let Some(reason) = keyframes.ask(now) {
                assert_eq!(reason, Reason::Viewer);
                asked += 1;
                keyframes.arrived(now);
            }
        }
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_viewer_gets_one_of_its_own_right_after_one_that_came_before_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut keyframes = Keyframes::new(Duration::from_secs(4));
        keyframes.arrived(at(0));
        assert_eq!(keyframes.ask(at(4000)), Some(Reason::Interval));
        keyframes.arrived(at(4040));
        // It may not have been handed on yet, so it may do.
        keyframes.wanted(at(4060));
        assert_eq!(keyframes.ask(at(4060)), None);
        keyframes.wanted(at(4150));
        assert_eq!(keyframes.ask(at(4150)), Some(Reason::Viewer));
    }
}
