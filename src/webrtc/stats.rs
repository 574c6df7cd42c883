//! What the engine counts in its own memory and adds to the metrics each second: nothing a packet does
//! takes a lock.

use crate::base::heartbeat::{BEAT, Heartbeat};
use crate::base::metrics::{Counter, metrics};
use crate::media;
use crate::rtp::{Counts, KeyframeReason};
use crate::webrtc::route::Kind;
use crate::webrtc::session::Session;
use rustix::time::{ClockId, Timespec};
use std::time::{Duration, Instant};

/// A loop that takes more than this share of a processor is full,
const FULL: f64 = 0.6;
/// if it does so for as many beats.
const FULL_BEATS: u32 = 3;

/// Since the last beat.
pub(super) struct LoopStats {
    heartbeat: Heartbeat,
    /// The next beat, for which the loop wakes even if nothing happens.
    pub beat: Instant,
    lag: Duration,
    turn: Duration,
    load: Load,
    datagrams: u64,
    bytes: u64,
    /// In the order of [`Kind`].
    unknown: [u64; 4],
    unproven: u64,
    rtp: [Rtp; 2],
}

impl LoopStats {
    pub fn new(heartbeat: Heartbeat) -> Self {
        Self {
            heartbeat,
            beat: Instant::now() + BEAT,
            lag: Duration::ZERO,
            turn: Duration::ZERO,
            load: Load::default(),
            datagrams: 0,
            bytes: 0,
            unknown: [0; 4],
            unproven: 0,
            rtp: [Rtp::of("video"), Rtp::of("audio")],
        }
    }

    /// A turn that was to begin at `due`, if not by a packet before, began and ended.
    pub fn note_turn(&mut self, due: Instant, began: Instant, ended: Instant) {
        self.lag = self.lag.max(began.saturating_duration_since(due));
        self.turn = self.turn.max(ended.saturating_duration_since(began));
    }

    pub fn datagram(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }

    /// It is for none of the sessions.
    pub fn unknown(&mut self, kind: &Kind<'_>) {
        self.unknown[match kind {
            Kind::Request(_) => 0,
            Kind::Response(_) => 1,
            Kind::Media(_) => 2,
            Kind::Other => 3,
        }] += 1;
    }

    /// It is of a session's source, but comes from an unproven address.
    pub fn unproven(&mut self) {
        self.unproven += 1;
    }

    /// What a session's packets became.
    pub fn add(&self, session: &mut Session) {
        for (kind, counts) in session.take_counts() {
            self.rtp[usize::from(kind == media::Kind::Audio)].add(&counts);
        }
        let (asked, forged) = (session.take_unrecorded_keyframe_requests(), session.take_forged());
        if asked > 0 {
            metrics().rtp.keyframe_requests.add(["encoding"], asked);
        }
        if forged > 0 {
            metrics().port.dropped.add(["forged_stun"], forged);
        }
    }

    /// Whether the loop has no time left for much more; once each time that is found.
    pub fn is_full(&mut self) -> bool {
        std::mem::take(&mut self.load.full)
    }

    /// Shows that the loop turns and hands over what came together; true once each [`BEAT`].
    pub fn beats(&mut self, now: Instant) -> bool {
        if now < self.beat {
            return false;
        }
        self.beat = now + BEAT;
        self.heartbeat.beat(now);
        self.load.note(now, rustix::time::clock_gettime(ClockId::ThreadCPUTime));
        let (loops, port) = (&metrics().loops, &metrics().port);
        loops.media_lag.note(std::mem::take(&mut self.lag));
        loops.media_turn.note(std::mem::take(&mut self.turn));
        port.datagrams.inc_by(std::mem::take(&mut self.datagrams));
        port.bytes.inc_by(std::mem::take(&mut self.bytes));
        let [requests, responses, media, other] = std::mem::take(&mut self.unknown);
        for (why, dropped) in [
            ("unknown_stun_request", requests),
            ("unknown_stun_response", responses),
            ("unknown_media", media),
            ("unknown_other", other),
            ("unproven_media", std::mem::take(&mut self.unproven)),
        ] {
            if dropped > 0 {
                port.dropped.add([why], dropped);
            }
        }
        true
    }
}

/// How much of a processor the loop takes.
#[derive(Default)]
struct Load {
    /// At the last beat: when that was, and how long the thread had been running.
    last: Option<(Instant, Duration)>,
    /// Beats in a row between which it took more than [`FULL`].
    busy: u32,
    full: bool,
}

impl Load {
    fn note(&mut self, now: Instant, running: Timespec) {
        let running = Duration::try_from(running).unwrap_or_default();
        let Some((at, before)) = self.last.replace((now, running)) else { return };
        let share = running.saturating_sub(before).as_secs_f64() / (now - at).as_secs_f64();
        self.busy = if share > FULL { self.busy + 1 } else { 0 };
        if self.busy == FULL_BEATS {
            (self.busy, self.full) = (0, true);
        }
    }
}

/// The counts of one kind of track.
struct Rtp {
    received: Counter,
    lost: Counter,
    retransmitted: Counter,
    copied: Counter,
    reordered: Counter,
    late: Counter,
    asked: Counter,
}

impl Rtp {
    fn of(kind: &'static str) -> Self {
        let rtp = &metrics().rtp;
        // RED is for audio.
        let copied = if kind == "audio" { rtp.repaired.of([kind, "red"]) } else { Counter::default() };
        Self {
            received: rtp.received.of([kind]),
            lost: rtp.lost.of([kind]),
            retransmitted: rtp.repaired.of([kind, "retransmission"]),
            copied,
            reordered: rtp.reordered.of([kind]),
            late: rtp.late.of([kind]),
            asked: rtp.asked.of([kind]),
        }
    }

    fn add(&self, counts: &Counts) {
        self.received.inc_by(counts.received);
        self.lost.inc_by(counts.lost);
        self.retransmitted.inc_by(counts.retransmitted);
        self.copied.inc_by(counts.copied);
        self.reordered.inc_by(counts.reordered);
        self.late.inc_by(counts.late);
        self.asked.inc_by(counts.asked);
        let rtp = &metrics().rtp;
        rtp.withheld.inc_by(counts.withheld);
        for (reason, asked) in [
            (KeyframeReason::Start, "start"),
            (KeyframeReason::Loss, "loss"),
            (KeyframeReason::Interval, "interval"),
            (KeyframeReason::Viewer, "viewer"),
        ] {
            let requests = counts.keyframe_requests[reason as usize];
            if requests > 0 {
                rtp.keyframe_requests.add([asked], requests);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_full_when_it_takes_most_of_a_processor_for_three_seconds() {
        let (mut load, mut now, mut running) = (Load::default(), Instant::now(), 0);
        let mut full = Vec::new();
        for share in [0, 70, 70, 50, 70, 70, 70, 10, 90, 90, 90, 90] {
            now += BEAT;
            running += share * 10_000_000;
            load.note(now, Timespec { tv_sec: running / 1_000_000_000, tv_nsec: running % 1_000_000_000 });
            full.push(std::mem::take(&mut load.full));
        }
        let when: Vec<_> = (0..full.len()).filter(|at| full[*at]).collect();
        assert_eq!(when, [6, 10]);
    }
}
