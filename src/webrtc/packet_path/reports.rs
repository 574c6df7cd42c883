//! Receiver reports: what has come of each source (RFC 3550 sections 6.4.2, A.3 and A.8).

use super::header::Header;
use std::time::{Duration, Instant};

/// How often sources are reported on.
const INTERVAL: Duration = Duration::from_secs(1);
/// As many as SRTP takes packets from.
const MAX_SOURCES: usize = 64;
/// Their number has five bits in a report.
const MAX_BLOCKS: usize = 31;
/// Of a report block, in 32-bit words.
const BLOCK_WORDS: usize = 6;

/// Counts the packets of all sources, and reports on those that were heard.
pub struct ReceiverReports {
    sender_ssrc: u32,
    /// When the first packet arrived.
    start: Option<Instant>,
    sources: Vec<Source>,
    last_found: usize,
    due: Option<Instant>,
}

impl ReceiverReports {
    /// `sender_ssrc` is our own.
    pub fn new(sender_ssrc: u32) -> Self {
        Self { sender_ssrc, start: None, sources: Vec::new(), last_found: 0, due: None }
    }

    /// An authentic packet, of a source whose timestamps run at `clock_rate` in Hz. Of what was repeated on the way or is
    /// too late, SRTP has left nothing: all that comes is counted.
    pub fn received(&mut self, header: &Header<'_>, clock_rate: u32, arrived: Instant) {
        let start = *self.start.get_or_insert(arrived);
        let Some(source) = self.source(header.ssrc) else { return };
        source.count(header.sequence);
        source.time(header.timestamp, clock_rate, start, arrived);
        self.due.get_or_insert(arrived + INTERVAL);
    }

    /// A sender report of this source, which shows `ntp` on its sender's clock (RFC 3550 section 4).
    pub fn sender_report(&mut self, ssrc: u32, ntp: u64, arrived: Instant) {
        if let Some(source) = self.source(ssrc) {
            source.sender_report = Some(((ntp >> 16) as u32, arrived));
        }
    }

    /// When the next report is to be written; `None` until a source is heard.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Appends one RTCP packet if one is due; to be called again while it says so.
    pub fn write(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        let blocks = self.sources.iter().filter(|source| source.heard).count().min(MAX_BLOCKS);
        if blocks == 0 {
            self.due = None;
            return false;
        }
        // V=2 with the number of blocks, and the type of a receiver report.
        out.extend_from_slice(&[0x80 | blocks as u8, 201]);
        out.extend_from_slice(&((1 + BLOCK_WORDS * blocks) as u16).to_be_bytes());
        out.extend_from_slice(&self.sender_ssrc.to_be_bytes());
        for source in self.sources.iter_mut().filter(|source| source.heard).take(blocks) {
            source.write(now, out);
        }
        if !self.sources.iter().any(|source| source.heard) {
            self.due = None;
        }
        true
    }

    /// `None` if there is no room for one more.
    fn source(&mut self, ssrc: u32) -> Option<&mut Source> {
        if self.sources.get(self.last_found).is_none_or(|source| source.ssrc != ssrc) {
            let known = self.sources.iter().position(|source| source.ssrc == ssrc);
            if known.is_none() {
                if self.sources.len() == MAX_SOURCES {
                    return None;
                }
                self.sources.push(Source::new(ssrc));
            }
            self.last_found = known.unwrap_or(self.sources.len() - 1);
        }
        self.sources.get_mut(self.last_found)
    }
}

/// What a source has sent.
struct Source {
    ssrc: u32,
    /// The first and the newest sequence number, rollovers counted.
    range: Option<(i64, i64)>,
    /// Packets that came, and of those the ones before the last report.
    received: i64,
    received_before: i64,
    /// Packets that should have come by the last report.
    expected_before: i64,
    /// A packet came since the last report.
    heard: bool,
    clock_rate: u32,
    /// By how much the newest packet's arrival is behind its timestamp, in units of that.
    transit: Option<u32>,
    /// 16 times the mean of its changes.
    jitter: u64,
    /// The newest sender report: the middle of its NTP time, and its arrival.
    sender_report: Option<(u32, Instant)>,
}

impl Source {
    fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            range: None,
            received: 0,
            received_before: 0,
            expected_before: 0,
            heard: false,
            clock_rate: 0,
            transit: None,
            jitter: 0,
            sender_report: None,
        }
    }

    fn count(&mut self, sequence: u16) {
        let number = i64::from(sequence);
        let (_, newest) = self.range.get_or_insert((number, number));
        let ahead = sequence.wrapping_sub(*newest as u16) as i16;
        *newest += i64::from(ahead.max(0));
        self.received += 1;
        self.heard = true;
    }

    /// RFC 3550 section A.8.
    fn time(&mut self, timestamp: u32, clock_rate: u32, start: Instant, arrived: Instant) {
        let transit = units(start, arrived, clock_rate).wrapping_sub(timestamp);
        // What counts by another clock has nothing to be compared with.
        let before = self.transit.replace(transit).filter(|_| self.clock_rate == clock_rate);
        self.clock_rate = clock_rate;
        if let Some(before) = before {
            let change = (transit.wrapping_sub(before) as i32).unsigned_abs();
            self.jitter = self.jitter + u64::from(change) - ((self.jitter + 8) >> 4);
        }
    }

    /// Appends the report block, and begins the next interval (RFC 3550 sections 6.4.1 and A.3).
    fn write(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (first, newest) = self.range.unwrap_or_default();
        let expected = newest - first + 1;
        let expected_now = expected - self.expected_before;
        let lost_now = expected_now - (self.received - self.received_before);
        let fraction = if lost_now > 0 && expected_now > 0 { (lost_now << 8) / expected_now } else { 0 };
        // 24 bits with a sign: more has come than was expected where packets come from before the first.
        let lost = (expected - self.received).clamp(-(1 << 23), (1 << 23) - 1);
        let (middle, delay) = match self.sender_report {
            Some((middle, arrived)) => (middle, delay(now.saturating_duration_since(arrived))),
            None => (0, 0),
        };
        let jitter = u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.push(fraction.min(255) as u8);
        out.extend_from_slice(&(lost as i32).to_be_bytes()[1..]);
        for word in [newest as u32, jitter, middle, delay] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        (self.expected_before, self.received_before) = (expected, self.received);
        self.heard = false;
    }
}

/// Arrivals in units of a clock, from an arbitrary zero, modulo 2^32.
fn units(start: Instant, arrived: Instant, clock_rate: u32) -> u32 {
    let rate = u64::from(clock_rate);
    let of = |span: Duration| {
        let fraction = u64::from(span.subsec_nanos()) * rate / 1_000_000_000;
        span.as_secs().wrapping_mul(rate).wrapping_add(fraction) as u32
    };
    match arrived.checked_duration_since(start) {
        Some(after) => of(after),
        None => of(start.duration_since(arrived)).wrapping_neg(),
    }
}

/// In units of 1/65536 s.
fn delay(since: Duration) -> u32 {
    u32::try_from(since.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::rtcp::reception_report::ReceptionReport;
    use rtc::shared::marshal::Unmarshal;

    const MS: Duration = Duration::from_millis(1);

    fn packet(reports: &mut ReceiverReports, ssrc: u32, sequence: u16, timestamp: u32, arrived: Instant) {
        let mut head = vec![0x80, 96];
        head.extend_from_slice(&sequence.to_be_bytes());
        head.extend_from_slice(&timestamp.to_be_bytes());
        head.extend_from_slice(&ssrc.to_be_bytes());
        reports.received(&Header::read(&head).unwrap(), 90_000, arrived);
    }

    fn read(reports: &mut ReceiverReports, now: Instant) -> Vec<Vec<ReceptionReport>> {
        let (mut read, mut out) = (Vec::new(), vec![3; 7]);
        loop {
            let begin = out.len();
            if !reports.write(now, &mut out) {
                assert_eq!(out.len(), begin);
                return read;
            }
            let report = ReceiverReport::unmarshal(&mut &out[begin..]).unwrap();
            assert_eq!((report.ssrc, report.profile_extensions.len()), (77, 0));
            assert_eq!(out.len() - begin, 8 + 24 * report.reports.len());
            read.push(report.reports);
        }
    }

    fn one(reports: &mut ReceiverReports, now: Instant) -> ReceptionReport {
        let all = read(reports, now);
        let [blocks] = &all[..] else { panic!("{all:?}") };
        let [block] = &blocks[..] else { panic!("{blocks:?}") };
        block.clone()
    }

    /// What 24 bits with a sign say.
    fn lost(block: &ReceptionReport) -> i32 {
        (block.total_lost << 8) as i32 >> 8
    }

    #[test]
    fn nothing_is_told_before_anything_came_and_then_each_second() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        assert!(reports.due().is_none() && read(&mut reports, start + 5000 * MS).is_empty());
        packet(&mut reports, 1, 10, 0, start);
        assert_eq!(reports.due(), Some(start + 1000 * MS));
        assert!(read(&mut reports, start + 999 * MS).is_empty());
        let block = one(&mut reports, start + 1000 * MS);
        let expected = ReceptionReport { ssrc: 1, last_sequence_number: 10, ..Default::default() };
        assert_eq!(block, expected);
        assert!(reports.due().is_none() && read(&mut reports, start + 5000 * MS).is_empty());
    }

    #[test]
    fn loss_is_told_of_the_interval_and_in_all() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        // 65530 to 5 without 65532 and 1.
        for sequence in (65_530..=65_535).chain(0..=5).filter(|sequence| ![65_532, 1].contains(sequence)) {
            packet(&mut reports, 1, sequence, 0, start);
        }
        let block = one(&mut reports, start + 1000 * MS);
        assert_eq!(block.last_sequence_number, 1 << 16 | 5);
        assert_eq!((lost(&block), block.fraction_lost), (2, (2 * 256 / 12) as u8));
        // They come after all, behind one that is lost for good.
        for sequence in [7, 1, 65_532] {
            packet(&mut reports, 1, sequence, 0, start + 1500 * MS);
        }
        let block = one(&mut reports, start + 2500 * MS);
        assert_eq!(block.last_sequence_number, 1 << 16 | 7);
        assert_eq!((lost(&block), block.fraction_lost), (1, 0), "more came than was new");
        packet(&mut reports, 1, 107, 0, start + 3000 * MS);
        let block = one(&mut reports, start + 4000 * MS);
        assert_eq!((lost(&block), block.fraction_lost), (100, (99 * 256 / 100) as u8));
    }

    #[test]
    fn what_comes_from_before_the_first_makes_the_loss_negative() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        for sequence in [100, 97, 98, 99] {
            packet(&mut reports, 1, sequence, 0, start);
        }
        let block = one(&mut reports, start + 1000 * MS);
        assert_eq!((lost(&block), block.fraction_lost, block.last_sequence_number), (-3, 0, 100));
    }

    #[test]
    fn loss_that_24_bits_do_not_hold_is_the_most_they_hold() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        for jump in 0..300u32 {
            packet(&mut reports, 1, (jump * 32_000) as u16, 0, start);
        }
        let block = one(&mut reports, start + 1000 * MS);
        assert_eq!((lost(&block), block.fraction_lost), ((1 << 23) - 1, 255));
        assert_eq!(block.last_sequence_number, 299 * 32_000);
    }

    #[test]
    fn jitter_is_that_of_rfc_3550_a_8() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        // Pictures of two packets each 40 ms, every second one 10 ms late: 900 units.
        let (mut expected, mut before) = (0i64, None);
        for count in 0..100u32 {
            let late = if count / 2 % 2 == 0 { 0 } else { 10 };
            let timestamp = (count / 2 * 3600).wrapping_sub(7200);
            packet(&mut reports, 1, count as u16, timestamp, start + MS * (count / 2 * 40 + late));
            let transit = i64::from(late) * 90;
            if let Some(before) = before.replace(transit) {
                expected += (transit - before).abs() - ((expected + 8) >> 4);
            }
        }
        let block = one(&mut reports, start + 5000 * MS);
        assert_eq!(i64::from(block.jitter), expected >> 4);
        assert!((400..500).contains(&block.jitter), "{}", block.jitter);
    }

    #[test]
    fn another_clock_adds_no_jitter() {
        let start = Instant::now() + 1000 * MS;
        let mut reports = ReceiverReports::new(77);
        let head = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        for (rate, arrived) in [(90_000, start), (48_000, start + 700 * MS), (0, start + 800 * MS)] {
            reports.received(&Header::read(&head).unwrap(), rate, arrived);
        }
        assert_eq!(one(&mut reports, start + 1000 * MS).jitter, 0);
        // 50 ms earlier by the same clock, of a batch that isn't in order.
        for arrived in [start + 20 * MS, start - 30 * MS] {
            reports.received(&Header::read(&head).unwrap(), 48_000, arrived);
        }
        assert_eq!(one(&mut reports, start + 2000 * MS).jitter, 2400 / 16);
    }

    #[test]
    fn each_source_is_told_its_own_newest_sender_report() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        reports.sender_report(1, 0x0000_1234_5678_0000, start);
        assert!(reports.due().is_none(), "a source that sent nothing");
        reports.sender_report(1, 0x1111_AAAA_BBBB_1111, start + 100 * MS);
        reports.sender_report(2, 0x0000_0007_0008_0000, start + 200 * MS);
        for ssrc in [1, 2, 3] {
            packet(&mut reports, ssrc, 5, 0, start + 300 * MS);
        }
        let all = read(&mut reports, start + 1600 * MS);
        let told: Vec<_> =
            all[0].iter().map(|block| (block.ssrc, block.last_sender_report, block.delay)).collect();
        let expected = [(1, 0xAAAA_BBBB, 65_536 * 3 / 2), (2, 0x0007_0008, 65_536 * 14 / 10), (3, 0, 0)];
        assert_eq!(told, expected);
        // Long after, and in front of it on the clock of a batch.
        packet(&mut reports, 1, 6, 0, start);
        assert_eq!(one(&mut reports, start + 100_000_000 * MS).delay, u32::MAX);
        reports.sender_report(1, 0, start + 900_000_000 * MS);
        packet(&mut reports, 1, 7, 0, start);
        assert_eq!(one(&mut reports, start + 100_000_000 * MS).delay, 0);
    }

    #[test]
    fn of_many_sources_those_that_were_heard_are_told_31_at_a_time() {
        let start = Instant::now();
        let mut reports = ReceiverReports::new(77);
        for ssrc in 0..100 {
            packet(&mut reports, ssrc, 1, 0, start);
        }
        let ids = |all: Vec<Vec<ReceptionReport>>| -> Vec<Vec<u32>> {
            all.iter().map(|blocks| blocks.iter().map(|block| block.ssrc).collect()).collect()
        };
        let all = ids(read(&mut reports, start + 1000 * MS));
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [31, 31, 2]);
        assert_eq!(all.concat(), (0..64).collect::<Vec<_>>());
        for ssrc in [50, 3, 99] {
            packet(&mut reports, ssrc, 2, 0, start + 1100 * MS);
        }
        assert_eq!(ids(read(&mut reports, start + 2100 * MS)), [[3, 50]]);
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_came(
            first in any::<u16>(),
            steps in vec((1..4i64, any::<bool>(), 0..1500i64), 1..300),
            reported in vec(any::<bool>(), 300),
        ) {
            let start = Instant::now();
            let mut number = i64::from(first);
            let mut packets: Vec<_> = steps
                .into_iter()
                .filter_map(|(step, lost, delay)| {
                    number += step;
                    (!lost).then_some((number + delay / 50, number))
                })
                .collect();
            packets.sort_unstable();
            let mut reports = ReceiverReports::new(77);
            let (mut newest, mut expected_before, mut received_before) = (0, 0, 0);
            for (received, ((_, number), report)) in (1..).zip(packets.iter().zip(reported)) {
                newest = newest.max(*number);
                packet(&mut reports, 1, *number as u16, 0, start);
                if !report {
                    continue;
                }
                let block = one(&mut reports, start + 1000 * MS);
                let expected = newest - packets[0].1 + 1;
                let (now, missed) = (expected - expected_before, expected - expected_before - (received - received_before));
                let fraction = if now == 0 || missed <= 0 { 0 } else { missed * 256 / now };
                prop_assert_eq!(i64::from(block.fraction_lost), fraction);
                prop_assert_eq!(i64::from(lost(&block)), expected - received);
                let rollovers = (newest - (packets[0].1 & !0xFFFF)) as u32;
                prop_assert_eq!(block.last_sequence_number, rollovers);
                (expected_before, received_before) = (expected, received);
            }
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(
            packets in vec((0..80u32, any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<bool>()), 0..300),
        ) {
            let start = Instant::now() + Duration::from_secs(1 << 33);
            let mut reports = ReceiverReports::new(77);
            for (ssrc, sequence, timestamp, rate, ntp, write) in packets {
                let head = [
                    &[0x80, 96][..], &sequence.to_be_bytes(), &timestamp.to_be_bytes(), &ssrc.to_be_bytes(),
                ].concat();
                let arrived = start + Duration::from_millis(ntp >> 24) - Duration::from_nanos(ntp >> 2);
                reports.sender_report(ssrc, ntp, arrived);
                reports.received(&Header::read(&head).unwrap(), rate, arrived);
                if write && let Some(due) = reports.due() {
                    read(&mut reports, due);
                    prop_assert!(reports.due().is_none());
                }
            }
            prop_assert!(reports.sources.len() <= 64);
        }
    }
}
