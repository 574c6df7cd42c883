//! Packets through the pipeline: any at all, and those of a true encoder over a bad network.
//!
//! After each step: times of a track strictly increase (T1), the clock of the next step is ahead, what
//! comes out is no more than came in. Of the encoder's pictures, whose references are known, each that
//! comes out is a keyframe or follows the one before it (T2). Of its sound none comes out twice, and nothing
//! is called lost but sound that was: padding is not.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use onrecord::media::{self, Event};
use onrecord::rtp::{Config, Feedback, Packet, PayloadFormat, Pipeline, TrackSetup};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const VIDEO: usize = 0;
const AUDIO: usize = 1;
/// Steps of one run: memory and time that pile up show well before.
const STEPS: usize = 2000;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A picture of the encoder, in so many packets; which of them are lost, doubled, or kept back.
    Picture {
        packets: u8,
        keyframe: bool,
        lost: u8,
        doubled: u8,
        late: u8,
        layer: Option<bool>,
    },
    /// What was kept back arrives now.
    Late,
    /// Packets are sent again as they were asked for.
    Repair,
    /// A packet of sound; RED with its predecessor.
    Sound {
        toc: u8,
        len: u8,
        red: bool,
        lost: bool,
    },
    /// A probe on a track of the encoder.
    Padding {
        audio: bool,
        red: bool,
        lost: bool,
    },
    /// Anything.
    Any {
        audio: bool,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        red: bool,
        payload: Vec<u8>,
        again: u8,
    },
    /// One field moves in equal steps.
    Sweep {
        audio: bool,
        sequence: u16,
        timestamp: u32,
        times: u16,
    },
    Report {
        audio: bool,
        ntp: u64,
        rtp: u32,
    },
    RoundTrip(u16),
    Viewer,
    Wait(u16),
}

struct World {
    pipeline: Pipeline,
    now: Instant,
    /// Only the encoder's packets came on this track.
    pure: bool,
    /// The same of the sound's track.
    pure_sound: bool,
    /// Some of it was lost.
    sound_lost: bool,
    sequence: u16,
    picture: u32,
    /// Of the next sound: sequence number, timestamp, number; and the one before it.
    sound: (u16, u32, u32, Vec<u8>),
    last_sound: Option<u32>,
    sent: BTreeMap<u16, Packet>,
    kept_back: Vec<Packet>,
    asked: Vec<u16>,
    last: [Option<Duration>; 2],
    last_picture: Option<u32>,
    packets: u64,
    frames: u64,
}

pub fn run(data: &[u8]) {
    let Ok(input) = <(bool, Vec<Step>)>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let (nack, steps) = input;
    let now = Instant::now();
    let setups = [
        TrackSetup { format: PayloadFormat::Vp8, nack },
        TrackSetup { format: PayloadFormat::Opus, nack: false },
    ];
    let config = Config { reorder_window: Duration::from_secs(1), keyframe_interval: Duration::from_secs(4) };
    let mut world = World {
        pipeline: Pipeline::new(config, &setups, now),
        now,
        pure: true,
        pure_sound: true,
        sound_lost: false,
        sequence: 65_500,
        picture: 0,
        sound: (7, 4_294_900_000, 0, Vec::new()),
        last_sound: None,
        sent: BTreeMap::new(),
        kept_back: Vec::new(),
        asked: Vec::new(),
        last: [None; 2],
        last_picture: None,
        packets: 0,
        frames: 0,
    };
    for step in steps.into_iter().take(STEPS) {
        world.take(step);
        world.look();
    }
    world.pipeline.finish(world.now);
    world.look();
    assert!(world.pipeline.poll_feedback().is_none(), "nobody is there to be told");
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Picture { packets, keyframe, lost, doubled, late, layer } => {
                self.send_picture(packets % 8 + 1, keyframe, [lost, doubled, late], layer);
            }
            Step::Late => {
                for packet in std::mem::take(&mut self.kept_back) {
                    self.arrive(VIDEO, packet);
                }
            }
            Step::Repair => {
                for sequence in std::mem::take(&mut self.asked) {
                    if let Some(packet) = self.sent.get(&sequence).cloned() {
                        self.arrive(VIDEO, packet);
                    }
                }
            }
            Step::Sound { toc, len, red, lost } => self.send_sound(toc, len, red, lost),
            Step::Padding { audio, red, lost } => self.send_padding(audio, red, lost),
            Step::Any { audio, sequence, timestamp, marker, red, payload, again } => {
                self.is_not_pure(audio);
                for n in 0..=u16::from(again) {
                    let payload = Bytes::copy_from_slice(&payload);
                    let sequence = sequence.wrapping_add(n);
                    let packet = Packet { sequence, timestamp, marker, payload, red: red && audio };
                    self.arrive(usize::from(audio), packet);
                }
            }
            Step::Sweep { audio, sequence, timestamp, times } => {
                self.is_not_pure(audio);
                // What each kind takes for a whole frame.
                let payload: &'static [u8] = if audio {
                    &[0xfc, 0xff, 0xfe]
                } else {
                    &[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 8, 0, 8, 0]
                };
                for n in 0..times % 8192 {
                    let packet = Packet {
                        sequence: sequence.wrapping_mul(n),
                        timestamp: timestamp.wrapping_mul(n.into()),
                        marker: true,
                        payload: Bytes::from_static(payload),
                        red: false,
                    };
                    self.arrive(usize::from(audio), packet);
                }
            }
            Step::Report { audio, ntp, rtp } => {
                self.pipeline.sender_report(usize::from(audio), ntp, rtp, self.now);
            }
            Step::RoundTrip(ms) => self.pipeline.round_trip(Duration::from_millis(ms.into())),
            Step::Viewer => self.pipeline.request_keyframe(self.now),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                // Each look asks for 200 packets at most; then who sleeps until the deadline must sleep.
                let over = |pipeline: &Pipeline, now| pipeline.deadline().is_some_and(|at| at <= now);
                for _ in 0..12 {
                    self.pipeline.handle_timeout(self.now);
                    if !over(&self.pipeline, self.now) {
                        break;
                    }
                }
                assert!(!over(&self.pipeline, self.now), "a deadline that is over");
            }
        }
    }

    /// A picture that refers to the one before it, as VP8 in RTP (RFC 7741) with PictureID.
    fn send_picture(
        &mut self,
        count: u8,
        keyframe: bool,
        [lost, doubled, late]: [u8; 3],
        layer: Option<bool>,
    ) {
        self.picture += 1;
        self.now += Duration::from_millis(33);
        let mut data = match keyframe || self.picture == 1 {
            true => vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1],
            false => vec![0x11; 10],
        };
        data.extend(self.picture.to_be_bytes());
        data.resize(data.len() + usize::from(count) * 8, 7);
        let size = data.len().div_ceil(count.into());
        let parts: Vec<_> = data.chunks(size).collect();
        for (index, part) in parts.iter().enumerate() {
            let starts = if index == 0 { 0x10 } else { 0 };
            let id = (self.picture as u16).to_be_bytes();
            let descriptor = match layer {
                Some(true) => vec![0x80 | starts, 0x80, 0x80 | id[0], id[1]],
                Some(false) => vec![0x80 | starts, 0x80, id[1] & 0x7f],
                None => vec![starts],
            };
            let packet = Packet {
                sequence: self.sequence,
                timestamp: self.picture.wrapping_mul(2970),
                marker: index + 1 == parts.len(),
                payload: [&descriptor[..], part].concat().into(),
                red: false,
            };
            self.sequence = self.sequence.wrapping_add(1);
            self.sent.insert(packet.sequence, packet.clone());
            let is = |mask: u8| mask & 1 << index != 0;
            if is(late) {
                self.kept_back.push(packet.clone());
            } else if !is(lost) {
                self.arrive(VIDEO, packet.clone());
            }
            if is(doubled) {
                self.arrive(VIDEO, packet);
            }
        }
        self.sent.retain(|sequence, _| self.sequence.wrapping_sub(*sequence) < 2000);
    }

    fn is_not_pure(&mut self, audio: bool) {
        self.pure &= audio;
        self.pure_sound &= !audio;
    }

    /// Sound that goes right on, with a number behind its first byte.
    fn send_sound(&mut self, toc: u8, len: u8, red: bool, lost: bool) {
        let (sequence, timestamp, number, before) = self.sound.clone();
        let payload = [&[toc & !3], &number.to_be_bytes()[..], &vec![len; len.into()]].concat();
        let ticks = |payload: &[u8]| {
            media::opus::duration(payload).map_or(0, |length| length.as_micros() * 48 / 1000)
        };
        self.now += media::opus::duration(&payload).unwrap_or_default();
        let wire = match red && !before.is_empty() {
            true => {
                let (length, offset) = (before.len() as u32, ticks(&before) as u32);
                let head = 0x80 << 24 | 111 << 24 | offset << 10 | length;
                [&head.to_be_bytes()[..], &[111], &before, &payload].concat()
            }
            false if red => [&[111][..], &payload].concat(),
            false => payload.clone(),
        };
        let next = timestamp.wrapping_add(ticks(&payload) as u32);
        self.sound = (sequence.wrapping_add(1), next, number + 1, payload);
        if lost {
            self.sound_lost = true;
        } else {
            self.arrive(AUDIO, Packet { sequence, timestamp, marker: false, payload: wire.into(), red });
        }
    }

    fn send_padding(&mut self, audio: bool, red: bool, lost: bool) {
        let counter = if audio { &mut self.sound.0 } else { &mut self.sequence };
        let sequence = *counter;
        *counter = sequence.wrapping_add(1);
        let timestamp = if audio { self.sound.1 } else { self.picture.wrapping_mul(2970) };
        let packet = Packet { sequence, timestamp, marker: false, payload: Bytes::new(), red: red && audio };
        if !audio {
            self.sent.insert(sequence, packet.clone());
        }
        if !lost {
            self.arrive(usize::from(audio), packet);
        }
    }

    fn arrive(&mut self, track: usize, packet: Packet) {
        // RED brings the packet and up to eight copies of others.
        self.packets += if packet.red { 9 } else { 1 };
        self.pipeline.packet(track, packet, self.now);
        // Whoever drives it empties it each time; so its queues hold no more than one packet sets free.
        self.look();
    }

    fn look(&mut self) {
        while let Some(event) = self.pipeline.poll_event() {
            match event {
                Event::Frame(frame) => {
                    let last = self.last[frame.track].replace(frame.time);
                    assert!(last.is_none_or(|last| frame.time > last), "T1: {:?} after {last:?}", frame.time);
                    assert!(!frame.data.is_empty());
                    self.frames += 1;
                    if frame.track == VIDEO && self.pure {
                        self.follows(&frame.data, frame.keyframe);
                    }
                    if frame.track == AUDIO && self.pure_sound {
                        self.is_new(&frame.data);
                    }
                }
                Event::Gap(gap) => {
                    assert!(gap.from <= gap.to, "{gap:?}");
                    assert!(
                        gap.track == VIDEO || self.sound_lost || !self.pure_sound,
                        "{gap:?}, but no loss"
                    );
                }
                Event::Lost { track, packets } => {
                    assert!(packets > 0);
                    let lost = track == VIDEO || self.sound_lost || !self.pure_sound;
                    assert!(lost, "{packets} packets of padding are no loss");
                }
            }
        }
        while let Some(feedback) = self.pipeline.poll_feedback() {
            match feedback {
                Feedback::Nack { sequences, .. } => {
                    assert!((1..=200).contains(&sequences.len()));
                    self.asked.extend(sequences);
                    self.asked.truncate(1000);
                }
                Feedback::KeyframeRequest { track } => assert_eq!(track, VIDEO),
            }
        }
        assert!(self.frames <= self.packets, "{} frames of {} packets", self.frames, self.packets);
    }

    fn is_new(&mut self, data: &[u8]) {
        let Some(number) = data.get(1..5) else { panic!("sound of {} bytes", data.len()) };
        let number = u32::from_be_bytes([number[0], number[1], number[2], number[3]]);
        let last = self.last_sound.replace(number);
        assert!(last.is_none_or(|last| number > last), "sound {number} after {last:?}");
    }

    fn follows(&mut self, data: &[u8], keyframe: bool) {
        let Some(number) = data.get(10..14) else { panic!("a picture of {} bytes", data.len()) };
        let number = u32::from_be_bytes([number[0], number[1], number[2], number[3]]);
        let last = self.last_picture.replace(number);
        let whole = keyframe || last.is_some_and(|last| number == last + 1);
        assert!(whole, "T2: picture {number} after {last:?}");
    }
}
