//! Transport-wide congestion control: which packets came, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). The sender finds its bitrate by it.

use std::time::{Duration, Instant};

/// How long arrivals are gathered for a report.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many packets the newest may be ahead of one that is still told of: 2 s of 20 Mbit/s.
const KEPT: i64 = 4096;
/// A report fits a datagram with SRTP's and the network's own headers.
const MAX_REPORT: usize = 1150;
/// Up to the first chunk (section 3.1).
const HEAD: usize = 20;
/// Arrivals are told in these units (section 3.1.5).
const TICK_MICROS: i64 = 250;
/// Ticks of the unit of the reference time, 64 ms.
const REFERENCE: i64 = 256;
/// What the clock of reports shows when the first packet arrives. Arrivals of a batch aren't in order: one that comes
/// up after it may have arrived before.
const FIRST_ARRIVAL: i64 = 16 * REFERENCE;
/// The arrival of a packet that hasn't come.
const MISSING: i64 = i64::MIN;

/// What is told of a packet (section 3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Missing = 0,
    /// It came 0 to 255 ticks after the one before: one byte says how many.
    Near = 1,
    /// It came before that one, or later: two bytes.
    Far = 2,
}

impl Status {
    fn delta_length(self) -> usize {
        self as usize
    }
}

/// Counts the packets of one transport, whatever their sources, and reports on them.
pub struct TransportFeedback {
    sender_ssrc: u32,
    /// The source of the newest packet: the format wants one, though a report is of all.
    media_ssrc: u32,
    /// When the first packet arrived.
    start: Option<Instant>,
    /// Arrivals of the last [`KEPT`] packets, in ticks, each at its number modulo that.
    arrivals: Vec<i64>,
    /// One behind the number of the newest. Numbers are those of the packets with their rollovers counted.
    end: i64,
    /// Where the next report begins: all before has been reported.
    next: i64,
    /// The number that makes a sender begin anew, far behind: it follows one that was as far.
    restart: Option<u16>,
    due: Option<Instant>,
    reports: u8,
    /// Of the report that is written; kept for its memory.
    statuses: Vec<Status>,
}

impl TransportFeedback {
    /// `sender_ssrc` is our own.
    pub fn new(sender_ssrc: u32) -> Self {
        Self {
            sender_ssrc,
            media_ssrc: 0,
            start: None,
            arrivals: Vec::new(),
            end: 0,
            next: 0,
            restart: None,
            due: None,
            reports: 0,
            statuses: Vec::new(),
        }
    }

    /// A packet of the source `media_ssrc` with this transport-wide number. Only its first arrival counts. One that
    /// was reported as missing is reported again, with all behind it.
    pub fn received(&mut self, media_ssrc: u32, sequence: u16, arrived: Instant) {
        let start = *self.start.get_or_insert(arrived);
        if self.arrivals.is_empty() {
            self.arrivals = vec![MISSING; KEPT as usize];
            self.begin(i64::from(sequence));
        }
        // Nearest to the newest.
        let ahead = sequence.wrapping_sub((self.end - 1) as u16) as i16;
        let mut number = self.end - 1 + i64::from(ahead);
        if number < self.end - KEPT {
            if self.restart.replace(sequence.wrapping_add(1)) != Some(sequence) {
                return;
            }
            number = i64::from(sequence);
            self.begin(number);
        }
        self.restart = None;
        if number >= self.end {
            if number - self.end < KEPT {
                (self.end..number).for_each(|missed| *self.arrival_mut(missed) = MISSING);
            } else {
                self.arrivals.fill(MISSING);
            }
            self.end = number + 1;
            self.next = self.next.max(self.end - KEPT);
        } else if self.arrival(number) != MISSING {
            return;
        }
        *self.arrival_mut(number) = ticks(start, arrived);
        self.media_ssrc = media_ssrc;
        self.next = self.next.min(number);
        self.due.get_or_insert(arrived + INTERVAL);
    }

    /// When the next report is to be written; `None` until there is something to tell.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Appends one RTCP packet if one is due; to be called again while it says so.
    pub fn write(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        let Some(first) = (self.next..self.end).find(|number| self.arrival(*number) != MISSING) else {
            // The newest has always come.
            self.due = None;
            return false;
        };
        let reference = self.arrival(first).div_euclid(REFERENCE);
        let end = self.gather(first, reference * REFERENCE);
        let begin = out.len();
        // V=2 with the format, and the type of transport layer feedback; the length follows.
        out.extend_from_slice(&[0x80 | 15, 205, 0, 0]);
        out.extend_from_slice(&self.sender_ssrc.to_be_bytes());
        out.extend_from_slice(&self.media_ssrc.to_be_bytes());
        out.extend_from_slice(&(self.next as u16).to_be_bytes());
        out.extend_from_slice(&(self.statuses.len() as u16).to_be_bytes());
        out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
        out.push(self.reports);
        write_chunks(&self.statuses, out);
        let mut before = reference * REFERENCE;
        for (number, status) in (self.next..end).zip(&self.statuses) {
            if *status != Status::Missing {
                let delta = ((self.arrival(number) - before) as i16).to_be_bytes();
                out.extend_from_slice(&delta[2 - status.delta_length()..]);
                before = self.arrival(number);
            }
        }
        finish(out, begin);
        self.reports = self.reports.wrapping_add(1);
        self.next = end;
        if self.next == self.end {
            self.due = None;
        }
        true
    }

    /// Begins anew at this packet, which is still to be noted.
    fn begin(&mut self, number: i64) {
        self.arrivals.fill(MISSING);
        (self.next, self.end) = (number, number + 1);
    }

    fn arrival(&self, number: i64) -> i64 {
        self.arrivals.get(number.rem_euclid(KEPT) as usize).copied().unwrap_or(MISSING)
    }

    fn arrival_mut(&mut self, number: i64) -> &mut i64 {
        &mut self.arrivals[number.rem_euclid(KEPT) as usize]
    }

    /// Finds the statuses of as many packets as one report holds, and says where it ends: at one that has come. `first`
    /// is the first of those, and `before` the time that its own is counted from.
    fn gather(&mut self, first: i64, mut before: i64) -> i64 {
        self.statuses.clear();
        let (mut end, mut received, mut deltas) = (self.next, 0, 0);
        for number in first..self.end {
            let arrival = self.arrival(number);
            if arrival == MISSING {
                continue;
            }
            let delta = arrival - before;
            let status = if (0..256).contains(&delta) { Status::Near } else { Status::Far };
            let length = (number + 1 - self.next) as usize;
            (received, deltas) = (received + 1, deltas + status.delta_length());
            // A chunk tells of 7 packets at least, but for the last; and of two there is one with a packet that came.
            let chunks = (length / 7 + 1).min(2 * received);
            if HEAD + 2 * chunks + deltas > MAX_REPORT || i16::try_from(delta).is_err() {
                break;
            }
            self.statuses.resize(length - 1, Status::Missing);
            self.statuses.push(status);
            (before, end) = (arrival, number + 1);
        }
        end
    }
}

/// Ticks of the clock of reports at this time.
fn ticks(start: Instant, arrived: Instant) -> i64 {
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 2);
    let since = match arrived.checked_duration_since(start) {
        Some(after) => micros(after),
        None => -micros(start.duration_since(arrived)),
    };
    FIRST_ARRIVAL + (since + TICK_MICROS / 2).div_euclid(TICK_MICROS)
}

/// Appends the packet chunks (sections 3.1.3 and 3.1.4): runs of one status where that is shorter, otherwise 14 statuses
/// of one bit, or 7 of two.
fn write_chunks(statuses: &[Status], out: &mut Vec<u8>) {
    const MAX_RUN: usize = (1 << 13) - 1;
    let mut rest = statuses;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take(MAX_RUN).take_while(|status| **status == first).count();
        let one_bit = rest.iter().take(14).all(|status| *status != Status::Far);
        let (bits, capacity) = if one_bit { (1, 14) } else { (2, 7) };
        let listed = capacity.min(rest.len());
        let (chunk, told) = if run >= listed {
            (u16::from(first as u8) << 13 | run as u16, run)
        } else {
            let list = rest[..listed].iter().fold(0, |list, status| list << bits | u16::from(*status as u8));
            let unused = bits * (capacity - listed);
            (1 << 15 | (bits as u16 - 1) << 14 | list << unused, listed)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        rest = &rest[told..];
    }
}

/// Pads the RTCP packet that begins at `begin`, and writes its length (RFC 3550 section 6.4.1).
fn finish(out: &mut Vec<u8>, begin: usize) {
    let padding = (out.len() - begin).wrapping_neg() % 4;
    if padding > 0 {
        out.resize(out.len() + padding - 1, 0);
        out.push(padding as u8);
        out[begin] |= 0x20;
    }
    let words = ((out.len() - begin) / 4 - 1) as u16;
    out[begin + 2..begin + 4].copy_from_slice(&words.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
    };
    use rtc::shared::marshal::Unmarshal;
    use std::collections::BTreeMap;

    /// A report as its receiver reads it: what is said of each packet from `base` on, with arrivals in microseconds
    /// since the first.
    struct Read {
        base: u16,
        packets: Vec<Option<i64>>,
        count: u8,
        length: usize,
        media_ssrc: u32,
    }

    fn read(report: &[u8]) -> Read {
        let parsed = TransportLayerCc::unmarshal(&mut &report[..]).unwrap();
        assert_eq!(parsed.sender_ssrc, 77);
        assert_eq!(report.len() % 4, 0);
        assert!(report.len() <= MAX_REPORT + 3, "{} bytes", report.len());
        let mut symbols: Vec<_> = parsed
            .packet_chunks
            .iter()
            .flat_map(|chunk| match chunk {
                PacketStatusChunk::RunLengthChunk(run) => {
                    vec![run.packet_status_symbol; run.run_length.into()]
                }
                PacketStatusChunk::StatusVectorChunk(list) => list.symbol_list.clone(),
            })
            .collect();
        let count = usize::from(parsed.packet_status_count);
        assert!(symbols.len() >= count && symbols.len() - count < 14, "{} of {count}", symbols.len());
        assert!(symbols[count..].iter().all(|symbol| *symbol == SymbolTypeTcc::PacketNotReceived));
        symbols.truncate(count);
        assert_ne!(symbols.last(), Some(&SymbolTypeTcc::PacketNotReceived), "it ends at one that came");
        // The reference time goes around at 24 bits, here also below 0.
        let reference = i64::from((parsed.reference_time << 8) as i32 >> 8);
        let mut time = (reference - FIRST_ARRIVAL / REFERENCE) * 64_000;
        let mut deltas = parsed.recv_deltas.iter();
        let packets = symbols
            .into_iter()
            .map(|symbol| {
                if symbol == SymbolTypeTcc::PacketNotReceived {
                    return None;
                }
                time += deltas.next().unwrap().delta;
                Some(time)
            })
            .collect();
        assert!(deltas.next().is_none());
        let (base, count, media_ssrc) = (parsed.base_sequence_number, parsed.fb_pkt_count, parsed.media_ssrc);
        Read { base, packets, count, length: report.len(), media_ssrc }
    }

    fn reports(feedback: &mut TransportFeedback, now: Instant) -> Vec<Read> {
        let (mut read_all, mut out) = (Vec::new(), vec![9; 5]);
        loop {
            let begin = out.len();
            if !feedback.write(now, &mut out) {
                assert_eq!(out.len(), begin);
                return read_all;
            }
            read_all.push(read(&out[begin..]));
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_told_before_anything_came_and_then_each_100_ms() {
        let start = Instant::now();
        let mut feedback = TransportFeedback::new(77);
        assert!(feedback.due().is_none() && reports(&mut feedback, start + 1000 * MS).is_empty());
        for packet in 0..8 {
            feedback.received(5, packet, start + 10 * MS * packet.into());
        }
        assert_eq!(feedback.due(), Some(start + 100 * MS));
        assert!(reports(&mut feedback, start + 99 * MS).is_empty());
        let [report] = &reports(&mut feedback, start + 100 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, report.media_ssrc, report.count), (0, 5, 0));
        assert_eq!(report.packets, (0..8).map(|packet| Some(packet * 10_000)).collect::<Vec<_>>());
        assert_eq!(report.length, HEAD + 2 + 8 + 2);
        assert!(feedback.due().is_none() && reports(&mut feedback, start + 1000 * MS).is_empty());
        feedback.received(6, 9, start + 2000 * MS);
        assert_eq!(feedback.due(), Some(start + 2100 * MS));
        let [report] = &reports(&mut feedback, start + 2100 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, report.media_ssrc, report.count), (8, 6, 1));
        assert_eq!(report.packets, [None, Some(2_000_000)]);
    }

    #[test]
    fn a_late_packet_is_reported_with_all_behind_it_and_a_repetition_never() {
        let start = Instant::now();
        let mut feedback = TransportFeedback::new(77);
        for packet in [65_534, 65_535, 1, 2] {
            feedback.received(5, packet, start);
        }
        assert_eq!(reports(&mut feedback, start + 100 * MS)[0].packets.len(), 5);
        for repeated in [65_535, 1, 2] {
            feedback.received(5, repeated, start + 150 * MS);
        }
        assert_eq!(feedback.due(), None);
        feedback.received(5, 0, start + 150 * MS);
        let [report] = &reports(&mut feedback, start + 250 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, &report.packets[..]), (0, &[Some(150_000), Some(0), Some(0)][..]));
    }

    #[test]
    fn a_pause_that_no_delta_spans_begins_another_report() {
        let start = Instant::now();
        let mut feedback = TransportFeedback::new(77);
        let minutes = 60_000 * MS;
        for (packet, arrived) in
            [(3, start), (4, start + 5 * minutes), (6, start + 5 * minutes + 8190 * MS), (5, start)]
        {
            feedback.received(5, packet, arrived);
        }
        let read: Vec<_> = reports(&mut feedback, start + 6 * minutes)
            .into_iter()
            .map(|report| (report.base, report.packets))
            .collect();
        let at = |arrived: i64| vec![Some(arrived * 1000)];
        assert_eq!(read, [(3, at(0)), (4, at(300_000)), (5, at(0)), (6, at(308_190))]);
    }

    #[test]
    fn a_jump_is_bounded_and_a_sender_that_begins_anew_is_followed() {
        let start = Instant::now();
        let mut feedback = TransportFeedback::new(77);
        feedback.received(5, 10, start);
        feedback.received(5, 30_010, start);
        feedback.received(5, 30_009, start);
        let [report] = &reports(&mut feedback, start + 100 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, report.packets.len()), (30_011 - 4096, 4096));
        assert!(report.packets[..4094].iter().all(Option::is_none));
        assert!(report.length < 40, "{} bytes", report.length);
        // As far behind as the numbers go, once and by itself: too late to be told of.
        feedback.received(5, 5_000, start);
        feedback.received(5, 30_011, start + 100 * MS);
        feedback.received(5, 5_000, start);
        feedback.received(5, 5_001, start + 200 * MS);
        feedback.received(5, 5_002, start + 200 * MS);
        let [report] = &reports(&mut feedback, start + 300 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, &report.packets[..]), (5_001, &[Some(200_000); 2][..]));
    }

    #[test]
    fn a_second_of_20_mbit_is_told_in_datagrams_that_fit() {
        let start = Instant::now();
        for (step, reports_expected) in [(1, 3), (2, 4), (13, 3)] {
            let mut feedback = TransportFeedback::new(77);
            let mut arrived = BTreeMap::new();
            for packet in (0..2000 * step as u16).step_by(step).take(4096 / step) {
                feedback.received(5, packet, start + MS * (u32::from(packet) / 2));
                arrived.insert(packet, i64::from(packet) / 2 * 1000);
            }
            let reports = reports(&mut feedback, start + 5000 * MS);
            assert!(reports.len() <= reports_expected, "{} reports at a step of {step}", reports.len());
            let told: BTreeMap<_, _> = reports
                .iter()
                .flat_map(|report| (report.base..).zip(&report.packets))
                .filter_map(|(packet, arrived)| Some((packet, (*arrived)?)))
                .collect();
            assert_eq!(told, arrived);
        }
    }

    #[test]
    fn of_a_batch_the_packet_that_arrived_before_the_first_is_told_so() {
        let start = Instant::now() + 1000 * MS;
        let mut feedback = TransportFeedback::new(77);
        feedback.received(5, 1, start);
        feedback.received(5, 0, start - 3 * MS);
        feedback.received(5, 2, start - MS);
        let [report] = &reports(&mut feedback, start + 100 * MS)[..] else { panic!("not one report") };
        assert_eq!((report.base, &report.packets[..]), (0, &[Some(-3000), Some(0), Some(-1000)][..]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Loss, overtaking, repetitions, pauses of minutes, and reports written late: each packet that came is told
        /// of with its time, and no other.
        #[test]
        fn what_is_told_is_what_came(
            first in any::<u16>(),
            packets in vec((
                prop_oneof![8 => 0..3000u64, 1 => 0..200_000u64, 1 => 0..300_000_000u64],
                prop_oneof![6 => Just(0u64), 2 => 0..5_000u64, 1 => 0..900_000u64],
                prop_oneof![9 => Just(1usize), 1 => Just(0usize), 1 => Just(2usize)],
                prop_oneof![20 => Just(1u64), 1 => 1..300u64],
            ), 1..400),
            lateness in 0..200_000u64,
        ) {
            let start = Instant::now() + Duration::from_secs(1);
            let (mut sent, mut number, mut arrivals) = (0, u64::from(first), Vec::new());
            for (pause, delay, copies, step) in packets {
                (sent, number) = (sent + pause, number + step);
                for copy in 0..copies as u64 {
                    arrivals.push((sent + delay + copy * 700, number));
                }
            }
            arrivals.sort_unstable();
            // Within a batch, neighbours may be exchanged.
            arrivals.chunks_mut(5).for_each(<[_]>::reverse);
            let mut feedback = TransportFeedback::new(77);
            let mut came: BTreeMap<u64, i64> = BTreeMap::new();
            let mut told: BTreeMap<u64, i64> = BTreeMap::new();
            let (mut count, mut clock) = (0u8, 0);
            let zero = arrivals.first().map_or(0, |(arrived, _)| *arrived);
            let mut take = |reports: Vec<Read>, came: &BTreeMap<u64, i64>| {
                let newest = *came.last_key_value().unwrap().0;
                for report in reports {
                    assert_eq!(report.count, count);
                    count = count.wrapping_add(1);
                    let base = (0..=newest).rev().find(|number| *number as u16 == report.base).unwrap();
                    for (number, arrived) in (base..).zip(report.packets) {
                        let Some(arrived) = arrived else { continue };
                        let real = came.get(&number).expect("a packet that came");
                        assert!((arrived - real).abs() <= TICK_MICROS / 2, "{number}: {arrived} for {real}");
                        told.insert(number, arrived);
                    }
                }
            };
            let at = |micros: u64| start + Duration::from_micros(micros);
            for (arrived, number) in arrivals {
                clock = arrived.max(clock);
                while feedback.due().is_some_and(|due| due + Duration::from_micros(lateness) <= at(clock)) {
                    let reports = reports(&mut feedback, at(clock));
                    take(reports, &came);
                }
                if came.last_key_value().is_some_and(|(newest, _)| number + 4000 < *newest) {
                    continue;
                }
                feedback.received(5, number as u16, at(arrived));
                came.entry(number).or_insert(arrived as i64 - zero as i64);
            }
            if let Some(due) = feedback.due() {
                let reports = reports(&mut feedback, due);
                take(reports, &came);
            }
            prop_assert!(feedback.due().is_none());
            prop_assert_eq!(told.keys().collect::<Vec<_>>(), came.keys().collect::<Vec<_>>());
        }

        #[test]
        fn no_numbers_and_no_times_make_it_panic_or_grow(
            packets in vec((any::<u16>(), 0..u64::from(u32::MAX), any::<bool>()), 0..300),
        ) {
            let start = Instant::now();
            let mut feedback = TransportFeedback::new(77);
            for (number, arrived, write) in packets {
                feedback.received(5, number, start + Duration::from_millis(arrived));
                if write && let Some(due) = feedback.due() {
                    reports(&mut feedback, due);
                    prop_assert!(feedback.due().is_none());
                }
            }
            prop_assert!(feedback.arrivals.len() <= 4096 && feedback.statuses.capacity() <= 8192);
        }
    }
}
