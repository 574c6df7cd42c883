//! Packets in any order, with what is missing among them.

use super::start::{BEFORE_WAIT, OPEN};
use super::*;
use bytes::Bytes;

const WINDOW: Duration = Duration::from_secs(1);

fn packet(sequence: u16) -> Packet {
    Packet { sequence, timestamp: 0, marker: false, payload: Bytes::from_static(&[0]), red: false }
}

fn padding(sequence: u16) -> Packet {
    Packet { payload: Bytes::new(), ..packet(sequence) }
}

fn drain(reorder: &mut Reorder) -> Vec<String> {
    std::iter::from_fn(|| reorder.pop())
        .map(|item| match item {
            Item::Packet(packet) | Item::Copy(packet) => packet.sequence.to_string(),
            Item::Lost(packets) => format!("-{packets}"),
        })
        .collect()
}

#[test]
fn a_packet_between_two_holes_that_close_at_once_is_kept_and_comes_in_its_place() {
    for nack in [true, false] {
        let (mut reorder, start) = (Reorder::new(WINDOW, nack, Some(|_| true)), Instant::now());
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
    let (mut reorder, start) = (Reorder::new(WINDOW, true, Some(|_| true)), Instant::now());
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
    let (mut reorder, now) = (Reorder::new(WINDOW, true, Some(|_| true)), Instant::now());
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
    let (mut reorder, now) = (Reorder::new(WINDOW, true, Some(|_| true)), Instant::now());
    let mut given_up = 0;
    for n in 0..5000u16 {
        let payload = Bytes::from_static(&[0; 60_000]);
        reorder.push(Packet { payload, ..packet(n.wrapping_mul(900)) }, now);
        assert!(reorder.missing.len() <= MAX_HOLES, "{} missing", reorder.missing.len());
        let sum: usize = reorder.held.values().map(Item::bytes).sum();
        assert_eq!(sum, reorder.held_bytes);
        assert!(sum <= MAX_HELD_BYTES, "{sum} bytes held");
        given_up += drain(&mut reorder).iter().filter(|item| item.starts_with('-')).count();
    }
    assert!(given_up > 4900, "{given_up} holes were given up");
}

/// One packet of sound in `ms`, 20 ms long.
fn sound(sequence: u16, ms: u32) -> Packet {
    Packet { timestamp: ms * 48, payload: Bytes::from_static(&[0x78]), ..packet(sequence) }
}

#[test]
fn a_copy_takes_the_place_that_its_time_has_whatever_padding_came_between() {
    // What came before the copies' carrier (number, time; padding has none), the carrier, the time of
    // its copy, and where that goes.
    type Came = &'static [(u16, Option<u32>)];
    type Row = (&'static str, Came, (u16, u32), u32, Option<i64>);
    let table: [Row; 9] = [
        ("nothing is missing", &[(10, Some(200))], (11, 220), 200, None),
        ("one is missing", &[(10, Some(200))], (12, 240), 220, Some(11)),
        ("of two the later", &[(10, Some(200))], (13, 260), 240, Some(12)),
        ("padding is missing", &[(10, Some(200))], (13, 220), 200, None),
        ("padding came", &[(10, Some(200)), (12, None), (13, None)], (14, 240), 220, Some(11)),
        ("it is held", &[(10, Some(200)), (12, Some(240))], (13, 260), 240, None),
        ("older than all", &[(10, Some(200)), (12, Some(240))], (13, 260), 180, None),
        ("between others", &[(10, Some(200)), (12, Some(240)), (14, Some(280))], (15, 300), 260, Some(13)),
        ("before the first", &[], (11, 220), 200, None),
    ];
    for (what, came, (carrier, ms), copy, position) in table {
        let (mut reorder, now) = (Reorder::new(WINDOW, false, None), Instant::now());
        for (number, ms) in came {
            reorder.push(ms.map_or_else(|| padding(*number), |ms| sound(*number, ms)), now);
        }
        if !came.is_empty() {
            reorder.handle_timeout(now + OPEN);
        }
        reorder.push(sound(carrier, ms), now + OPEN);
        let found = reorder.sequence_of_copy(carrier, copy * 48).map(|found| found - (1 << 16));
        // What isn't newer than all that has gone is dropped where that is known.
        let found = found.filter(|_| came.is_empty() || copy > 200);
        assert_eq!(found, position, "{what}");
    }
}

#[test]
fn the_first_packets_may_come_in_any_order_for_50_ms() {
    let (mut reorder, start) = (Reorder::new(WINDOW, false, None), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    for (sequence, ms) in [(0, 0), (65534, 10), (2, 20)] {
        reorder.push(packet(sequence), at(ms));
    }
    assert_eq!((drain(&mut reorder).len(), reorder.deadline()), (0, Some(at(50))));
    reorder.push(packet(65535), at(40));
    reorder.handle_timeout(at(50));
    assert_eq!(drain(&mut reorder), ["65534", "65535", "0"]);
    reorder.push(packet(65533), at(51));
    reorder.handle_timeout(at(1020));
    assert_eq!(drain(&mut reorder), ["-1", "2"]);
    assert_eq!((reorder.counts.late, reorder.counts.lost), (1, 1));
}

/// A start of packets whose first has media of 1 byte; what can be first has 2.
fn at_the_start(nack: bool, came: &[u16], now: Instant) -> Reorder {
    let begins: Begins = |packet| packet.payload.len() == 2;
    let mut reorder = Reorder::new(WINDOW, nack, Some(begins));
    came.iter().for_each(|sequence| reorder.push(sound(*sequence, 0), now));
    reorder.handle_timeout(now + OPEN);
    reorder
}

#[test]
fn what_comes_before_a_first_packet_that_begins_nothing_is_asked_for() {
    let (start, begins) = (Instant::now(), Bytes::from_static(&[1, 2]));
    let mut reorder = at_the_start(true, &[5, 6], start);
    let asked = reorder.nacks(start + OPEN);
    assert_eq!((asked.len(), asked[0], asked[31]), (32, 65509, 4));
    reorder.push(sound(4, 0), start + 2 * OPEN);
    assert!(drain(&mut reorder).is_empty(), "it doesn't begin a picture either");
    reorder.push(Packet { payload: begins.clone(), ..packet(3) }, start + 2 * OPEN);
    assert_eq!(drain(&mut reorder), ["3", "4", "5", "6"]);
    assert_eq!((reorder.counts.lost, reorder.missing.len(), reorder.deadline()), (0, 0, None));

    let mut reorder = at_the_start(true, &[5, 6], start);
    reorder.push(padding(2), start + OPEN);
    reorder.push(Packet { payload: begins, ..packet(3) }, start + OPEN);
    assert_eq!(drain(&mut reorder), ["2", "3"], "padding may come before a picture");
    reorder.push(sound(4, 0), start + OPEN);
    assert_eq!(drain(&mut reorder), ["4", "5", "6"]);
}

#[test]
fn a_start_whose_first_packets_never_come_goes_on_without_a_loss() {
    let start = Instant::now();
    for nack in [true, false] {
        let mut reorder = at_the_start(nack, &[5, 7], start);
        let wait = if nack { BEFORE_WAIT } else { Duration::ZERO };
        assert_eq!(drain(&mut reorder).len(), usize::from(!nack));
        reorder.handle_timeout(start + OPEN + wait);
        reorder.push(sound(6, 0), start + OPEN + wait);
        let all = drain(&mut reorder);
        assert_eq!(all.last().map(String::as_str), Some("7"), "{all:?}");
        assert_eq!((reorder.counts.lost, reorder.deadline()), (0, None));
    }
}
