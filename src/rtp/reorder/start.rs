//! Where a sequence begins: the first packet to come may have overtaken those before it, or they were lost.

use super::{Item, Missing, NACK_DELAY, Reorder};
use crate::rtp::Packet;
use std::time::{Duration, Instant};

/// So long the first packet may have overtaken those before it.
pub(super) const OPEN: Duration = Duration::from_millis(50);
/// Packets before the first that are asked for where it doesn't begin a picture: a keyframe of 40 kB. A
/// sender passes over those that it never sent.
const BEFORE: i64 = 32;
/// So long they are waited for: two requests and their answers on a long path.
pub(super) const BEFORE_WAIT: Duration = Duration::from_millis(500);

/// Whether a packet can be the first of a sequence: only there does a decoder begin.
pub(in crate::rtp) type Begins = fn(&Packet) -> bool;

/// The sequence's beginning, while it is not known. Nothing is released meanwhile.
#[derive(Debug)]
pub(super) struct Start {
    /// It is what has come by then.
    pub until: Instant,
    /// The packets before the first have been asked for.
    pub asked: bool,
}

impl Start {
    pub fn open(now: Instant) -> Self {
        Self { until: now + OPEN, asked: false }
    }
}

impl Reorder {
    /// At the start, one that was overtaken, or that was asked for, is the lowest now.
    pub(super) fn reach_back(&mut self, sequence: i64, next: i64, now: Instant) -> bool {
        let Some(start) = &self.start else { return false };
        if !start.asked {
            let ask = now + NACK_DELAY;
            let between = (sequence + 1..next).rev();
            between.for_each(|sequence| self.missing.push_front(Missing::new(sequence, now, ask)));
            self.ask = Some(self.ask.map_or(ask, |at| at.min(ask)));
        } else if self.missing.front().is_none_or(|first| sequence < first.sequence) {
            return false;
        }
        self.next = Some(sequence);
        true
    }

    /// Whether the lowest packet with media is one that nothing comes before.
    pub(super) fn is_whole_at_the_start(&self) -> bool {
        let (Some(begins), true) = (self.begins, self.start.is_some()) else { return false };
        self.held.values().find_map(Item::media).is_some_and(begins)
    }

    /// The sequence begins with the lowest that came; what was looked for before it is not lost.
    pub(super) fn begin(&mut self) {
        self.start = None;
        let Some((&first, _)) = self.held.first_key_value() else { return };
        while self.missing.front().is_some_and(|missing| missing.sequence < first) {
            self.missing.pop_front();
        }
        self.next = Some(first);
        self.release();
    }

    /// Whether the first packets may still be overtaken.
    pub fn opens(&self) -> bool {
        self.start.as_ref().is_some_and(|start| !start.asked)
    }

    /// The start has been open long enough: asks for what must come before it, or begins without.
    pub(super) fn close_start(&mut self, now: Instant) {
        let (Some(start), Some(next)) = (&self.start, self.next) else { return };
        if now < start.until {
            return;
        }
        if start.asked || !self.nack || self.begins.is_none() {
            self.begin();
            return;
        }
        let before = (next - BEFORE..next).rev();
        before.for_each(|sequence| self.missing.push_front(Missing::new(sequence, now, now)));
        self.ask = Some(now);
        self.start = Some(Start { until: now + BEFORE_WAIT.min(self.window), asked: true });
    }
}
