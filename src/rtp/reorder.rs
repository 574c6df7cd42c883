//! Packets into order: holes wait for their packets, which are asked for again and again until the
//! window closes.
//!
//! In order, a packet passes without being held. Memory is bounded by [`MAX_HELD`],
//! [`MAX_HELD_BYTES`] and [`MAX_HOLES`]; when one is exceeded, the oldest hole closes early.

use crate::rtp::sequence::Sequences;
use crate::rtp::{Counts, PACKET, Packet};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Packets that may wait behind a hole: a second of 40 Mbit/s. It bounds what they hold in memory, too,
/// however small their payloads are.
const MAX_HELD: usize = 4096;
/// Their payloads together; packets of 1200 bytes come to less than this.
const MAX_HELD_BYTES: usize = 8 << 20;
const _: () = assert!(MAX_HELD * PACKET <= MAX_HELD_BYTES);
/// Missing packets that are remembered: half of what may wait.
const MAX_HOLES: usize = 2048;
/// Missing packets that may be asked for at the same time; a larger hole is no loss but another
/// source, or one that paused.
const MAX_MISSING: i64 = 1000;
/// A packet this many places late has overtaken nothing: it is missing. Fewer may be reordering.
const REORDERED: i64 = 3;
/// So long it may still be reordering, too.
const PATIENCE: Duration = Duration::from_millis(10);
/// Before the first measurement. Most paths are shorter; a repetition too many costs little.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// A retransmission that has not come by then won't be asked for more often than this.
const MIN_REPEAT: Duration = Duration::from_millis(20);
/// Requests in one message (RFC 4585 section 6.2.1): at most four bytes each.
const MAX_NACKS: usize = 200;

/// What comes out, in sending order.
#[derive(Debug)]
pub(super) enum Item {
    Packet(Packet),
    /// These many packets in a row never came.
    Lost(u32),
}

#[derive(Debug)]
struct Missing {
    sequence: i64,
    since: Instant,
    /// When to ask (again).
    ask: Instant,
    asked: Option<(Instant, u32)>,
}

/// One track's packets on their way into order.
#[derive(Debug)]
pub(super) struct Reorder {
    window: Duration,
    nack: bool,
    sequences: Sequences,
    /// The next to be released.
    next: Option<i64>,
    /// The newest received.
    newest: i64,
    held: BTreeMap<i64, Packet>,
    held_bytes: usize,
    missing: VecDeque<Missing>,
    /// The earliest `ask`; exact enough for a timer.
    ask: Option<Instant>,
    round_trip: Duration,
    /// The first packet of what may be another source (RFC 3550 appendix A.1).
    stranger: Option<u16>,
    released: VecDeque<Item>,
    /// What became of packets, since somebody took it.
    pub counts: Counts,
}

impl Reorder {
    pub fn new(window: Duration, nack: bool) -> Self {
        Self {
            window,
            nack,
            sequences: Sequences::default(),
            next: None,
            newest: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            missing: VecDeque::new(),
            ask: None,
            round_trip: ROUND_TRIP,
            stranger: None,
            released: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Whether this packet has been waited for.
    pub fn lacks(&self, sequence: u16) -> bool {
        self.missing.iter().any(|missing| missing.sequence as u16 == sequence)
    }

    /// Whether a copy of this packet is of use: it has neither come nor been given up.
    pub fn wants(&self, sequence: u16) -> bool {
        let Some(next) = self.next else { return false };
        let sequence = next + i64::from(sequence.wrapping_sub(next as u16) as i16);
        (next..=self.newest + MAX_MISSING).contains(&sequence) && !self.held.contains_key(&sequence)
    }

    /// Takes a copy of a packet that came with another one (RED). Whether it was asked for says nothing.
    pub fn push_copy(&mut self, packet: Packet, now: Instant) {
        let before = self.counts;
        self.push(packet, now);
        self.counts = Counts { copied: before.copied + 1, lost: self.counts.lost, ..before };
    }

    /// Takes a packet.
    pub fn push(&mut self, packet: Packet, now: Instant) {
        if let Some(next) = self.next {
            let distance = i64::from(packet.sequence.wrapping_sub(self.newest as u16) as i16);
            if distance > MAX_MISSING || (distance < -MAX_MISSING && self.newest - next < MAX_MISSING) {
                self.jump(packet, now);
                return;
            }
        }
        self.stranger = None;
        let sequence = self.sequences.extend(packet.sequence);
        let next = *self.next.get_or_insert(sequence);
        if sequence < next {
            self.counts.late += 1;
            return; // Late, or a duplicate of what has gone.
        }
        if sequence > self.newest && self.newest >= next {
            self.note_missing(self.newest + 1..sequence, now);
        } else if sequence > next && self.newest < next {
            self.note_missing(next..sequence, now);
        }
        if sequence < self.newest {
            self.repaired(sequence, now);
        }
        self.newest = self.newest.max(sequence);
        if sequence == next && self.held.is_empty() {
            self.next = Some(next + 1);
            self.released.push_back(Item::Packet(packet));
            return;
        }
        self.held_bytes += packet.payload.len();
        if let Some(twice) = self.held.insert(sequence, packet) {
            self.held_bytes -= twice.payload.len();
            self.counts.late += 1;
        }
        self.release();
        while self.held.len() > MAX_HELD || self.held_bytes > MAX_HELD_BYTES || self.missing.len() > MAX_HOLES
        {
            self.close_hole();
        }
    }

    /// A jump is another source once two packets in a row agree on it.
    fn jump(&mut self, packet: Packet, now: Instant) {
        if self.stranger.replace(packet.sequence.wrapping_add(1)) != Some(packet.sequence) {
            return;
        }
        while !self.held.is_empty() {
            self.close_hole();
            self.release();
        }
        self.restart();
        self.counts.lost += 1;
        self.released.push_back(Item::Lost(1));
        self.push(packet, now);
    }

    fn note_missing(&mut self, range: std::ops::Range<i64>, now: Instant) {
        let ask = now + PATIENCE;
        self.ask = Some(self.ask.map_or(ask, |at| at.min(ask)));
        self.missing.extend(range.map(|sequence| Missing { sequence, since: now, ask, asked: None }));
    }

    fn repaired(&mut self, sequence: i64, now: Instant) {
        let Ok(at) = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence) else { return };
        // Only a packet asked for once tells how long the way is (Karn's rule).
        match self.missing.remove(at).and_then(|missing| missing.asked) {
            Some((asked, times)) => {
                self.counts.retransmitted += 1;
                if times == 1 {
                    let sample = now.saturating_duration_since(asked);
                    self.round_trip = (self.round_trip * 7 + sample) / 8;
                }
            }
            None => self.counts.reordered += 1,
        }
    }

    /// The round trip as somebody else measured it.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Releases what is in order.
    fn release(&mut self) {
        let Some(mut next) = self.next else { return };
        while let Some(packet) = self.held.remove(&next) {
            self.held_bytes -= packet.payload.len();
            self.released.push_back(Item::Packet(packet));
            next += 1;
        }
        self.next = Some(next);
    }

    /// Gives up on everything before the oldest packet held.
    fn close_hole(&mut self) {
        let (Some(next), Some((&first, _))) = (self.next, self.held.first_key_value()) else { return };
        self.give_up(first - next);
    }

    fn give_up(&mut self, packets: i64) {
        let Some(next) = self.next else { return };
        let next = next + packets;
        while self.missing.front().is_some_and(|missing| missing.sequence < next) {
            self.missing.pop_front();
        }
        if packets > 0 {
            self.counts.lost += packets.cast_unsigned();
            self.released.push_back(Item::Lost(u32::try_from(packets).unwrap_or(u32::MAX)));
        }
        self.next = Some(next);
        self.release();
    }

    /// Closes the holes whose window is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let (Some(next), Some(oldest)) = (self.next, self.missing.front()) {
            if now < oldest.since + self.window {
                return;
            }
            // All that went missing with it and before it, up to the next packet we have.
            let end = oldest.sequence + 1;
            let run = self
                .missing
                .iter()
                .skip(1)
                .zip(end..)
                .take_while(|(m, s)| m.sequence == *s && now >= m.since + self.window);
            let packets = end - next + run.count() as i64;
            self.give_up(packets.max(1));
        }
    }

    /// The sequence numbers that should be asked for now.
    pub fn nacks(&mut self, now: Instant) -> Vec<u16> {
        let far = |missing: &Missing, newest: i64| {
            missing.asked.is_none() && newest - missing.sequence >= REORDERED
        };
        let newest = self.newest;
        let due =
            self.ask.is_some_and(|at| now >= at) || self.missing.back().is_some_and(|last| far(last, newest));
        if !self.nack || !due {
            return Vec::new();
        }
        let pause = (self.round_trip * 5 / 4).max(MIN_REPEAT);
        let mut asked = Vec::new();
        for missing in &mut self.missing {
            if asked.len() == MAX_NACKS {
                break;
            }
            if now >= missing.ask || far(missing, newest) {
                missing.ask = now + pause;
                missing.asked = Some((now, missing.asked.map_or(1, |(_, times)| times + 1)));
                asked.push(missing.sequence as u16);
            }
        }
        self.ask = self.missing.iter().map(|missing| missing.ask).min();
        self.counts.asked += asked.len() as u64;
        asked
    }

    /// When `handle_timeout` or `nacks` has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let close = self.missing.front()?.since + self.window;
        Some(if self.nack { self.ask.map_or(close, |ask| ask.min(close)) } else { close })
    }

    /// Whether a packet waits behind a hole.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Releases all that is held, holes or not.
    pub fn finish(&mut self) {
        while !self.held.is_empty() {
            self.close_hole();
        }
    }

    /// What comes next has numbers of its own. Nothing may be held.
    pub fn restart(&mut self) {
        self.missing.clear();
        self.sequences = Sequences::default();
        (self.next, self.newest, self.stranger) = (None, 0, None);
    }

    pub fn pop(&mut self) -> Option<Item> {
        self.released.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const WINDOW: Duration = Duration::from_secs(1);

    fn packet(sequence: u16) -> Packet {
        Packet { sequence, timestamp: 0, marker: false, payload: Bytes::new(), red: false }
    }

    fn drain(reorder: &mut Reorder) -> Vec<String> {
        std::iter::from_fn(|| reorder.pop())
            .map(|item| match item {
                Item::Packet(packet) => packet.sequence.to_string(),
                Item::Lost(packets) => format!("-{packets}"),
            })
            .collect()
    }

    #[test]
    fn a_packet_between_two_holes_that_close_at_once_is_kept_and_comes_in_its_place() {
        for nack in [true, false] {
            let (mut reorder, start) = (Reorder::new(WINDOW, nack), Instant::now());
            for sequence in [0, 2, 4, 5, 8] {
                reorder.push(packet(sequence), start);
            }
            reorder.handle_timeout(start + 2 * WINDOW);
            assert_eq!(drain(&mut reorder), ["0", "-1", "2", "-1", "4", "5", "-2", "8"]);
            assert_eq!((reorder.counts.lost, reorder.held.len(), reorder.held_bytes), (4, 0, 0));
            reorder.push(packet(9), start + 2 * WINDOW);
            reorder.finish();
            assert_eq!(drain(&mut reorder), ["9"], "what was released once came again");
        }
    }

    #[test]
    fn a_hole_waits_for_its_packet_and_is_asked_for_until_the_window_closes() {
        let (mut reorder, start) = (Reorder::new(WINDOW, true), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for sequence in [65534, 65535, 2] {
            reorder.push(packet(sequence), at(0));
        }
        assert_eq!(drain(&mut reorder), ["65534", "65535"]);
        assert!(reorder.nacks(at(5)).is_empty(), "it may be reordering");
        assert_eq!(reorder.nacks(at(10)), [0, 1]);
        assert!(reorder.nacks(at(100)).is_empty(), "asked again before the answer can be here");
        reorder.push(packet(0), at(70));
        assert_eq!(reorder.round_trip, Duration::from_micros(95_000), "learnt from the repair");
        assert_eq!(drain(&mut reorder), ["0"]);
        assert_eq!(reorder.nacks(at(140)), [1]);
        reorder.handle_timeout(at(999));
        assert!(drain(&mut reorder).is_empty());
        reorder.handle_timeout(at(1000));
        assert_eq!(drain(&mut reorder), ["-1", "2"]);
        assert_eq!(reorder.deadline(), None);
        reorder.push(packet(1), at(1001));
        assert!(drain(&mut reorder).is_empty(), "too late");
        let counts = reorder.counts;
        assert_eq!((counts.asked, counts.retransmitted, counts.lost, counts.late), (3, 1, 1, 1));
        reorder.push(packet(4), at(1002));
        reorder.push(packet(3), at(1003));
        assert_eq!((reorder.counts.reordered, reorder.counts.retransmitted), (1, 1), "it was not asked for");
    }

    #[test]
    fn another_source_needs_two_packets_and_memory_is_bounded() {
        let (mut reorder, now) = (Reorder::new(WINDOW, true), Instant::now());
        reorder.push(packet(10), now);
        reorder.push(packet(30_000), now);
        reorder.push(packet(11), now);
        reorder.push(packet(40_000), now);
        reorder.push(packet(40_001), now);
        assert_eq!(drain(&mut reorder), ["10", "11", "-1", "40001"]);
        for n in 0..20_000u16 {
            reorder.push(packet(40_003u16.wrapping_add(n)), now);
            assert!(reorder.held.len() <= MAX_HELD);
        }
    }

    #[test]
    fn neither_sparse_nor_huge_packets_take_more_memory_than_they_may() {
        let (mut reorder, now) = (Reorder::new(WINDOW, true), Instant::now());
        let mut given_up = 0;
        for n in 0..5000u16 {
            let payload = Bytes::from_static(&[0; 60_000]);
            reorder.push(Packet { payload, ..packet(n.wrapping_mul(900)) }, now);
            assert!(reorder.missing.len() <= MAX_HOLES, "{} missing", reorder.missing.len());
            let sum: usize = reorder.held.values().map(|packet| packet.payload.len()).sum();
            assert_eq!(sum, reorder.held_bytes);
            assert!(sum <= MAX_HELD_BYTES, "{sum} bytes held");
            given_up += drain(&mut reorder).iter().filter(|item| item.starts_with('-')).count();
        }
        assert!(given_up > 4900, "{given_up} holes were given up");
    }

    #[test]
    fn a_copy_is_wanted_unless_its_packet_came_or_was_given_up() {
        let (mut reorder, now) = (Reorder::new(WINDOW, false), Instant::now());
        assert!(!reorder.wants(9), "nothing has come yet");
        for sequence in [10, 13] {
            reorder.push(packet(sequence), now);
        }
        let wanted: Vec<u16> = (8..17).filter(|sequence| reorder.wants(*sequence)).collect();
        assert_eq!(wanted, [11, 12, 14, 15, 16]);
        assert!(!reorder.wants(20_000), "another source's");
        reorder.handle_timeout(now + WINDOW);
        assert!(!reorder.wants(12) && reorder.wants(14));
    }
}
