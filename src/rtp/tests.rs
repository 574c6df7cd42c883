//! The pipeline as a whole, over a network that loses, repeats, reorders and delays.

use super::*;
use std::collections::BTreeMap;

/// Deterministic dice.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

const VIDEO: TrackSetup = TrackSetup { format: PayloadFormat::Vp8, nack: true };
const AUDIO: TrackSetup = TrackSetup { format: PayloadFormat::Opus, nack: false };
const CONFIG: Config =
    Config { reorder_window: Duration::from_secs(1), keyframe_interval: Duration::from_secs(4) };

/// A publisher that keeps what it sent, answers NACKs and keyframe requests 60 ms later, and a
/// network between it and a pipeline.
struct World {
    pipeline: Pipeline,
    dice: Dice,
    start: Instant,
    loss: u64,
    repairs: bool,
    sent: BTreeMap<u16, Packet>,
    on_the_way: BTreeMap<(Instant, u64), Packet>,
    order: u64,
    sequence: u16,
    frames_sent: u32,
    keyframe_due: Option<Instant>,
    /// Number and keyframe flag of each frame that came out.
    kept: Vec<(u32, bool)>,
    requests: Vec<Instant>,
    lost: u32,
    gaps: u32,
    nacks: u32,
}

impl World {
    fn new(seed: u64, loss: u64, repairs: bool) -> Self {
        let start = Instant::now();
        Self {
            pipeline: Pipeline::new(CONFIG, &[VIDEO], start),
            dice: Dice(seed),
            start,
            loss,
            repairs,
            sent: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            order: 0,
            sequence: 65_000,
            frames_sent: 0,
            keyframe_due: Some(start),
            kept: Vec::new(),
            requests: Vec::new(),
            lost: 0,
            gaps: 0,
            nacks: 0,
        }
    }

    fn send(&mut self, packet: Packet, now: Instant) {
        if self.dice.below(1000) < self.loss {
            return;
        }
        let copies = 1 + u64::from(self.dice.below(100) == 0);
        for _ in 0..copies {
            let at = now + Duration::from_micros(30_000 + self.dice.below(20_000));
            self.order += 1;
            self.on_the_way.insert((at, self.order), packet.clone());
        }
    }

    fn send_frame(&mut self, now: Instant) {
        let keyframe = self.keyframe_due.is_some_and(|at| now >= at);
        if keyframe {
            self.keyframe_due = None;
        }
        self.frames_sent += 1;
        let mut frame = match keyframe {
            true => vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1],
            false => vec![0x11; 10],
        };
        frame.extend(self.frames_sent.to_be_bytes());
        let parts: Vec<&[u8]> = frame.chunks(5).collect();
        for (index, part) in parts.iter().enumerate() {
            let first = if index == 0 { 0x10 } else { 0 };
            let packet = Packet {
                sequence: self.sequence,
                timestamp: self.frames_sent.wrapping_mul(3000).wrapping_sub(60_000),
                marker: index + 1 == parts.len(),
                payload: [&[first], *part].concat().into(),
                red: false,
            };
            self.sequence = self.sequence.wrapping_add(1);
            self.sent.insert(packet.sequence, packet.clone());
            self.send(packet, now);
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.pipeline.poll_event() {
            match event {
                Event::Frame(frame) => {
                    let number = u32::from_be_bytes(frame.data[frame.data.len() - 4..].try_into().unwrap());
                    self.kept.push((number, frame.keyframe));
                }
                Event::Lost { packets, .. } => self.lost += packets,
                Event::Gap(_) => self.gaps += 1,
            }
        }
        while let Some(feedback) = self.pipeline.poll_feedback() {
            match feedback {
                Feedback::KeyframeRequest { .. } => {
                    self.requests.push(now);
                    if self.dice.below(1000) >= self.loss {
                        self.keyframe_due.get_or_insert(now + Duration::from_millis(30));
                    }
                }
                Feedback::Nack { sequences, .. } if self.repairs => {
                    self.nacks += 1;
                    if self.dice.below(1000) >= self.loss {
                        for sequence in sequences {
                            let packet = self.sent[&sequence].clone();
                            self.send(packet, now + Duration::from_millis(30));
                        }
                    }
                }
                Feedback::Nack { .. } => {}
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for ms in 0..seconds * 1000 {
            let now = self.start + Duration::from_millis(ms);
            if ms % 33 == 0 && ms + 2000 < seconds * 1000 {
                self.send_frame(now);
            }
            while let Some(entry) = self.on_the_way.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                let packet = entry.remove();
                self.pipeline.packet(0, packet, now);
            }
            if self.pipeline.deadline().is_some_and(|at| now >= at) {
                self.pipeline.handle_timeout(now);
            }
            self.drain(now);
        }
        for pair in self.kept.windows(2) {
            let ((before, _), (this, keyframe)) = (pair[0], pair[1]);
            assert!(
                this > before && (keyframe || this == before + 1),
                "{this} after {before} can't be decoded"
            );
        }
    }
}

#[test]
fn with_retransmission_practically_every_frame_survives_ten_per_cent_loss() {
    for (loss, wanted) in [(0, 1.0), (10, 0.999), (50, 0.99), (100, 0.98)] {
        let mut world = World::new(loss + 1, loss, true);
        world.run(120);
        let kept = world.kept.len() as f64 / f64::from(world.frames_sent);
        println!("loss {loss} per mille: {} of {} frames", world.kept.len(), world.frames_sent);
        assert!(kept >= wanted, "loss {loss} per mille: {kept}");
        assert!(loss == 0 || world.nacks > 0, "nothing was asked for again");
    }
}

#[test]
fn without_retransmission_only_decodable_frames_come_out_and_keyframes_are_asked_for() {
    for seed in 0..20 {
        let mut world = World::new(seed, 20, false);
        world.run(60);
        assert!(world.gaps > 3 && world.lost > 50, "{} gaps, {} lost", world.gaps, world.lost);
        let kept = world.kept.len() as f64 / f64::from(world.frames_sent);
        assert!(kept > 0.02, "hardly anything came out: {kept}");
        assert!(world.requests.len() as u32 >= world.gaps, "{} requests", world.requests.len());
    }
}

#[test]
fn copies_in_red_fill_holes_in_the_sound() {
    let start = Instant::now();
    let mut pipeline = Pipeline::new(CONFIG, &[AUDIO], start);
    let opus = |n: u16| [0x78, n as u8, (n >> 8) as u8];
    let mut kept = Vec::new();
    for n in 1..500u16 {
        if n % 3 == 0 {
            continue; // One in three is lost.
        }
        let header = [0x80 | 111, 0x0f, 0, 3, 111];
        let payload = [&header[..], &opus(n - 1), &opus(n)].concat();
        let timestamp = u32::from(n) * 960;
        let packet = Packet { sequence: n, timestamp, marker: false, payload, red: true };
        pipeline.packet(0, packet, start + Duration::from_millis(20 * u64::from(n)));
        while let Some(event) = pipeline.poll_event() {
            match event {
                Event::Frame(frame) => {
                    kept.push((frame.data[1] as u16 | (frame.data[2] as u16) << 8, frame.time))
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(kept.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{kept:?}");
    let distance = kept[400].1 - kept[0].1;
    assert_eq!(distance, Duration::from_millis(400 * 20));
}

#[test]
fn of_two_lost_in_a_row_the_copy_saves_the_second() {
    let start = Instant::now();
    let mut pipeline = Pipeline::new(CONFIG, &[AUDIO], start);
    let mut kept = Vec::new();
    for n in (1..=9_u8).chain(12..200) {
        let payload = [0x80 | 111, 0x0f, 0, 3, 111, 0x78, n - 1, 0, 0x78, n, 0];
        let (sequence, timestamp) = (u16::from(n), u32::from(n) * 960);
        let packet = Packet { sequence, timestamp, marker: false, payload, red: true };
        pipeline.packet(0, packet, start + Duration::from_millis(20 * u64::from(n)));
        while let Some(event) = pipeline.poll_event() {
            if let Event::Frame(frame) = event {
                kept.push(frame.data[1]);
            }
        }
    }
    assert_eq!(kept, (1..=9).chain(11..200).collect::<Vec<_>>());
}

#[test]
fn rubbish_does_no_harm() {
    let (start, mut dice) = (Instant::now(), Dice(42));
    let mut pipeline = Pipeline::new(CONFIG, &[VIDEO, AUDIO], start);
    for n in 0..200_000u64 {
        let now = start + Duration::from_millis(n / 4);
        let track = dice.below(2) as usize;
        let payload: Vec<u8> = (0..dice.below(24)).map(|_| dice.below(256) as u8).collect();
        let packet = Packet {
            sequence: if dice.below(50) == 0 { dice.below(65536) as u16 } else { n as u16 },
            timestamp: if dice.below(50) == 0 { dice.below(1 << 32) as u32 } else { n as u32 * 3000 },
            marker: dice.below(2) == 0,
            payload,
            red: dice.below(2) == 0,
        };
        pipeline.packet(track, packet, now);
        if dice.below(10) == 0 {
            pipeline.sender_report(track, dice.below(1 << 62), dice.below(1 << 32) as u32, now);
            pipeline.handle_timeout(now);
        }
        let mut last = [None; 2];
        while let Some(event) = pipeline.poll_event() {
            if let Event::Frame(frame) = event {
                assert!(last[frame.track] < Some(frame.time), "time went back");
                last[frame.track] = Some(frame.time);
            }
        }
        while pipeline.poll_feedback().is_some() {}
    }
    pipeline.finish(start);
}

#[test]
fn a_pipeline_that_was_woken_late_does_not_ask_to_be_woken_at_once() {
    let start = Instant::now();
    let mut pipeline = Pipeline::new(CONFIG, &[VIDEO], start);
    // Pictures that need a keyframe before them: one is asked for again and again.
    for n in 0..=30u16 {
        let payload = Bytes::from_static(&[0x10, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let packet =
            Packet { sequence: n, timestamp: u32::from(n) * 9000, marker: true, payload, red: false };
        pipeline.packet(0, packet, start + Duration::from_millis(100) * n.into());
    }
    assert!(pipeline.deadline().is_some(), "it would ask again");
    // The machine slept, and the publisher has fallen silent meanwhile.
    let late = start + Duration::from_secs(30);
    pipeline.handle_timeout(late);
    assert!(pipeline.deadline().is_none_or(|at| at > late), "it would spin");
}

/// Sound of 20 ms that is number `n`, as Chromium sends it: RED, with a copy of the one before.
fn red(sequence: u16, n: u8) -> Packet {
    let payload = [0x80 | 111, 0x0f, 0, 3, 111, 0x78, n - 1, 0, 0x78, n, 0].to_vec().into();
    Packet { sequence, timestamp: u32::from(n) * 960, marker: false, payload, red: true }
}

/// Probes of 20 ms: with a timestamp of the last packet and nothing in them.
fn padding(sequence: u16, n: u8, payload: &'static [u8], red: bool) -> Packet {
    let payload = Bytes::from_static(payload);
    Packet { sequence, timestamp: u32::from(n) * 960, marker: false, payload, red }
}

/// What came out of a track of sound: its numbers and times, what else there was.
fn heard(pipeline: &mut Pipeline) -> (Vec<(u8, u64)>, Vec<Event>) {
    let (mut frames, mut others) = (Vec::new(), Vec::new());
    while let Some(event) = pipeline.poll_event() {
        match event {
            Event::Frame(frame) => frames.push((frame.data[1], frame.time.as_millis() as u64)),
            other => others.push(other),
        }
    }
    (frames, others)
}

#[test]
fn padding_is_no_loss_no_gap_and_no_frame_whatever_it_looks_like_or_misses() {
    let empty: &[u8] = &[];
    // Payload, RED; whether the probes come, and whether the packet before them does.
    let table = [
        ("plain", empty, false, true, true),
        ("RED without anything", empty, true, true, true),
        ("RED with its header only", &[111], true, true, true),
        ("malformed RED", &[0x80 | 111, 0x0f], true, true, true),
        ("probes that never come", empty, true, false, true),
        ("behind a packet that never comes", empty, true, true, false),
        ("neither comes", empty, true, false, false),
    ];
    for (what, payload, red_type, probes, before) in table {
        let start = Instant::now();
        let mut pipeline = Pipeline::new(CONFIG, &[AUDIO], start);
        let (mut sequence, mut now) = (65_500u16, start);
        for n in 1..=100 {
            now = start + Duration::from_millis(20 * u64::from(n));
            if before || n % 20 != 10 {
                pipeline.packet(0, red(sequence, n), now);
            }
            sequence = sequence.wrapping_add(1);
            for _ in 0..if n % 20 == 10 { 3 } else { 0 } {
                if probes {
                    pipeline.packet(0, padding(sequence, n, payload, red_type), now);
                }
                sequence = sequence.wrapping_add(1);
            }
        }
        pipeline.finish(now);
        let (frames, others) = heard(&mut pipeline);
        let wanted: Vec<_> = (1..=100).map(|n| (n, 20 * u64::from(n))).collect();
        assert_eq!(frames, wanted, "{what}");
        assert!(others.is_empty(), "{what}: {others:?}");
    }
}

#[test]
fn sound_that_is_really_lost_is_told_with_its_gap() {
    let start = Instant::now();
    let mut pipeline = Pipeline::new(CONFIG, &[AUDIO], start);
    for n in (1..=9).chain(14..30) {
        let packet = Packet { red: false, payload: vec![0x78, n, 0].into(), ..red(n.into(), n) };
        pipeline.packet(0, packet, start + Duration::from_millis(20 * u64::from(n)));
    }
    pipeline.finish(start + Duration::from_secs(1));
    let (frames, others) = heard(&mut pipeline);
    assert_eq!(frames.len(), 25);
    let ms = Duration::from_millis;
    let gap = Gap { track: 0, from: ms(180), to: ms(280), reason: GapReason::Loss };
    assert_eq!(others, [Event::Lost { track: 0, packets: 4 }, Event::Gap(gap)]);
}

#[test]
fn sound_behind_a_hole_waits_until_its_clock_is_clear_and_a_stop_does_not() {
    for stopped in [false, true] {
        let start = Instant::now();
        let mut pipeline = Pipeline::new(CONFIG, &[AUDIO], start);
        let ms = |n: u8| 20 * u64::from(n) + if n > 50 { 5000 } else { 0 };
        let end = if stopped { 70 } else { 100 };
        let mut frames = Vec::new();
        for n in 1..end {
            let now = start + Duration::from_millis(ms(n));
            pipeline.packet(0, red(n.into(), n), now);
            frames.extend(heard(&mut pipeline).0);
            if (52..80).contains(&n) {
                assert!(pipeline.has_hole() && frames.len() == 50, "{n}: {} frames", frames.len());
                assert_eq!(pipeline.deadline(), Some(start + Duration::from_millis(ms(51) + 600)));
            }
        }
        pipeline.finish(start + Duration::from_millis(ms(end)));
        frames.extend(heard(&mut pipeline).0);
        assert_eq!(frames, (1..end).map(|n| (n, ms(n))).collect::<Vec<_>>());
        assert!(!pipeline.has_hole());
    }
}

#[test]
fn the_first_keyframe_is_whole_though_its_first_packets_are_swapped_or_lost() {
    // What comes of the first five packets; in the end the others were asked for and sent.
    for arrived in [&[1, 0, 2, 3, 4][..], &[1, 2, 3, 4], &[4], &[2, 1, 4]] {
        let start = Instant::now();
        let mut pipeline = Pipeline::new(CONFIG, &[VIDEO], start);
        let part = |n: u16| {
            let (first, key) = ([0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1], [0x00, n as u8]);
            let payload = if n == 0 { Bytes::copy_from_slice(&first) } else { Bytes::copy_from_slice(&key) };
            Packet { sequence: 700 + n, timestamp: 7, marker: n == 4, payload, red: false }
        };
        for n in arrived {
            pipeline.packet(0, part(*n), start);
        }
        let mut now = start;
        for _ in 0..200 {
            now += Duration::from_millis(1);
            pipeline.handle_timeout(now);
            while let Some(feedback) = pipeline.poll_feedback() {
                if let Feedback::Nack { sequences, .. } = feedback {
                    for n in sequences.iter().filter(|sequence| (700..705).contains(*sequence)) {
                        pipeline.packet(0, part(n - 700), now);
                    }
                }
            }
        }
        let events: Vec<_> = std::iter::from_fn(|| pipeline.poll_event()).collect();
        let [Event::Frame(frame)] = &events[..] else { panic!("{arrived:?}: {events:?}") };
        assert!(frame.keyframe && frame.data.len() == 14, "{arrived:?}: {frame:?}");
        assert!(now.duration_since(start) < Duration::from_secs(1));
    }
}
