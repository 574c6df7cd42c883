//! Packets into order: holes wait for their packets, which are asked for again and again until the
//! window closes.
//!
//! In order, a packet passes without being held. Only where the sequence begins is not known by its first
//! packet: it may have overtaken the one before it, or that one was lost ([`Start`]). Memory is bounded by
//! [`MAX_HELD`], [`MAX_HELD_BYTES`] and [`MAX_HOLES`]; when one is exceeded, the oldest hole closes early.

mod start;

pub(super) use start::Begins;

use crate::rtp::sequence::Sequences;
use crate::rtp::{Counts, PACKET, Packet};
use start::Start;
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
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
/// A packet this many positions late has overtaken nothing: it is missing. Fewer may be reordering.
const REORDERED: i64 = 3;
/// So long it may still be reordering, too.
const NACK_DELAY: Duration = Duration::from_millis(10);
/// Before the first measurement. Most paths are shorter; a repetition too many costs little.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// A retransmission that has not come by then won't be asked for more often than this.
const MIN_REPEAT: Duration = Duration::from_millis(20);
/// Packets that are looked at for the position of a copy: more than a sender of copies has under way.
const COPY_REACH: usize = 64;
/// Requests in one message (RFC 4585 section 6.2.1): at most four bytes each.
const MAX_NACKS: usize = 200;

/// What comes out, in sending order.
#[derive(Debug)]
pub(super) enum Item {
    Packet(Packet),
    /// A packet that came as a copy in another only.
    Copy(Packet),
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

impl Missing {
    fn new(sequence: i64, since: Instant, ask: Instant) -> Self {
        Self { sequence, since, ask, asked: None }
    }
}

impl Item {
    fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Packet(packet) | Self::Copy(packet) => Some(packet),
            Self::Lost(_) => None,
        }
    }

    /// The packet, unless it is padding, which was sent to probe the path.
    fn media(&self) -> Option<&Packet> {
        self.packet().filter(|packet| !packet.payload.is_empty())
    }

    fn bytes(&self) -> usize {
        self.packet().map_or(0, |packet| packet.payload.len())
    }
}

/// One track's packets on their way into order.
#[derive(Debug)]
pub(super) struct Reorder {
    window: Duration,
    nack: bool,
    /// `None` where any packet can be the first.
    begins: Option<Begins>,
    sequences: Sequences,
    start: Option<Start>,
    /// The next to be released; at the start the lowest that came.
    next: Option<i64>,
    newest: i64,
    held: BTreeMap<i64, Item>,
    held_bytes: usize,
    missing: VecDeque<Missing>,
    /// The earliest `ask`; exact enough for a timer.
    ask: Option<Instant>,
    round_trip: Duration,
    /// The number after that of the last packet out of range: the next may show that another source has
    /// begun (RFC 3550 appendix A.1).
    bad_seq: Option<u16>,
    released: VecDeque<Item>,
    /// What became of packets, since the counts were taken.
    pub counts: Counts,
}

impl Reorder {
    pub fn new(window: Duration, nack: bool, begins: Option<Begins>) -> Self {
        Self {
            window,
            nack,
            begins,
            sequences: Sequences::default(),
            start: None,
            next: None,
            newest: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            missing: VecDeque::new(),
            ask: None,
            round_trip: ROUND_TRIP,
            bad_seq: None,
            released: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Whether this packet has been waited for.
    pub fn is_missing(&self, sequence: u16) -> bool {
        self.missing.iter().any(|missing| missing.sequence as u16 == sequence)
    }

    /// Takes a copy that came in the packet with number `carrier`, if a packet of its time is missing. Whether
    /// it was asked for says nothing.
    pub fn push_copy(&mut self, carrier: u16, copy: Packet, now: Instant) {
        let Some(sequence) = self.sequence_of_copy(carrier, copy.timestamp) else { return };
        let before = self.counts;
        self.insert(sequence, Item::Copy(copy), now);
        self.counts = Counts { copied: before.copied + 1, lost: self.counts.lost, ..before };
    }

    /// The last missing packet before `carrier` that is between the packets around this time. Counting back
    /// from the carrier would not do: padding takes sequence numbers.
    fn sequence_of_copy(&self, carrier: u16, timestamp: u32) -> Option<i64> {
        let next = self.next?;
        let mut after = next + i64::from(carrier.wrapping_sub(next as u16) as i16);
        self.held.get(&after)?;
        let mut before = next - 1;
        for (&sequence, item) in self.held.range(..after).rev().take(COPY_REACH) {
            let Some(packet) = item.media() else { continue };
            match packet.timestamp.wrapping_sub(timestamp).cast_signed() {
                0 => return None,
                1.. => after = sequence,
                _ => {
                    before = sequence;
                    break;
                }
            }
        }
        let end = self.missing.partition_point(|missing| missing.sequence < after);
        let last = end.checked_sub(1).map(|at| self.missing[at].sequence);
        last.filter(|sequence| *sequence > before)
    }

    /// Whether the packet with this number is the next, while none is missing or waits: it need not be pushed then.
    pub fn passes(&mut self, sequence: u16) -> bool {
        let in_order = self.start.is_none()
            && self.held.is_empty()
            && self.released.is_empty()
            && self.next == Some(self.newest + 1)
            && sequence == (self.newest + 1) as u16;
        if in_order {
            self.bad_seq = None;
            self.newest = self.sequences.extend(sequence);
            self.next = Some(self.newest + 1);
        }
        in_order
    }

    pub fn push(&mut self, packet: Packet, now: Instant) {
        if let Some(next) = self.next {
            let distance = i64::from(packet.sequence.wrapping_sub(self.newest as u16) as i16);
            if distance > MAX_MISSING || (distance < -MAX_MISSING && self.newest - next < MAX_MISSING) {
                self.jump(packet, now);
                return;
            }
        }
        self.bad_seq = None;
        let sequence = self.sequences.extend(packet.sequence);
        self.insert(sequence, Item::Packet(packet), now);
    }

    fn insert(&mut self, sequence: i64, item: Item, now: Instant) {
        let next = *self.next.get_or_insert_with(|| {
            self.newest = sequence - 1;
            self.start = Some(Start::open(now));
            sequence
        });
        if sequence < next && !self.reach_back(sequence, next, now) {
            self.counts.late += 1;
            return; // Late, or a duplicate of what has gone.
        }
        if sequence > self.newest {
            self.note_missing(self.newest + 1..sequence, now);
        } else {
            self.repaired(sequence, now);
        }
        self.newest = self.newest.max(sequence);
        if self.start.is_none() && sequence == next && self.held.is_empty() {
            self.next = Some(next + 1);
            self.released.push_back(item);
            return;
        }
        match self.held.entry(sequence) {
            Entry::Vacant(slot) => {
                self.held_bytes += item.bytes();
                slot.insert(item);
            }
            Entry::Occupied(_) => self.counts.late += 1,
        }
        if self.is_whole_at_the_start() {
            self.begin();
        }
        self.release();
        while self.held.len() > MAX_HELD || self.held_bytes > MAX_HELD_BYTES || self.missing.len() > MAX_HOLES
        {
            self.close_hole();
        }
    }

    /// A jump is another source once two packets in a row agree on it.
    fn jump(&mut self, packet: Packet, now: Instant) {
        if self.bad_seq.replace(packet.sequence.wrapping_add(1)) != Some(packet.sequence) {
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
        let ask = now + NACK_DELAY;
        self.ask = Some(self.ask.map_or(ask, |at| at.min(ask)));
        self.missing.extend(range.map(|sequence| Missing::new(sequence, now, ask)));
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

    /// The round trip as measured by ICE.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Releases what is in order.
    fn release(&mut self) {
        let (Some(mut next), None) = (self.next, &self.start) else { return };
        while let Some(item) = self.held.remove(&next) {
            self.held_bytes -= item.bytes();
            self.released.push_back(item);
            next += 1;
        }
        self.next = Some(next);
    }

    /// Gives up on everything before the oldest packet held.
    fn close_hole(&mut self) {
        if self.start.is_some() {
            self.begin();
            return;
        }
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
        self.close_start(now);
        if self.start.is_some() {
            return;
        }
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
        let close = match &self.start {
            Some(start) => start.until,
            None => self.missing.front()?.since + self.window,
        };
        let ask = self.ask.filter(|_| self.nack && !self.missing.is_empty());
        Some(ask.map_or(close, |ask| ask.min(close)))
    }

    /// Whether a packet waits: behind a hole, or for those before the first.
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
        (self.start, self.next, self.newest, self.bad_seq) = (None, None, 0, None);
    }

    pub fn pop(&mut self) -> Option<Item> {
        self.released.pop_front()
    }
}

#[cfg(test)]
mod tests;
