//! A peer's datagrams on their way to the pipeline: what it has sealed is what comes out, once; what anybody has changed
//! or made up never does; reports are whole, and end.

use arbitrary::{Arbitrary, Unstructured};
use onrecord::fuzzing::PacketPath;
use std::collections::HashSet;
use std::time::Duration;

/// Steps of one run: memory and time that pile up show well before.
const STEPS: usize = 1000;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A packet of media.
    Packet {
        source: u8,
        sequence: u16,
        timestamp: u32,
        kind: u8,
        contributing: u8,
        /// A header extension: of elements with one byte in front, with two, or of any profile.
        extension: Option<(u8, u16, Vec<u8>)>,
        /// The transport-wide sequence number, in front of those.
        congestion: Option<u16>,
        padding: u8,
        payload: Vec<u8>,
    },
    /// Many of them in equal steps.
    Sweep { source: u8, sequence: u16, step: u8, congestion: u16, times: u16 },
    /// A sender report, perhaps a goodbye behind it.
    Report { source: u8, ntp: u64, rtp: u32, goodbye: bool },
    /// The last datagram once more.
    Again,
    /// The last datagram with a bit turned over.
    Flip(u16),
    /// The last datagram cut short.
    Cut(u8),
    /// Anything.
    Any(Vec<u8>),
    Wait(u16),
}

struct World {
    path: PacketPath,
    last: Vec<u8>,
    /// Datagrams that were taken.
    taken: HashSet<Vec<u8>>,
}

pub fn run(data: &[u8]) {
    let Ok((profile, steps)) = <(u8, Vec<Step>)>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut world = World { path: PacketPath::new(profile), last: Vec::new(), taken: HashSet::new() };
    for step in steps.into_iter().take(STEPS) {
        world.take(step);
    }
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Packet {
                source,
                sequence,
                timestamp,
                kind,
                contributing,
                extension,
                congestion,
                padding,
                payload,
            } => {
                let elements = extension.map(|(form, any, elements)| {
                    let profile = [0xBEDE, 0x1000, any][usize::from(form) % 3];
                    (profile, elements)
                });
                let packet =
                    packet(source, sequence, timestamp, kind, contributing, elements, congestion, padding, payload);
                self.send(&packet);
            }
            Step::Sweep { source, sequence, step, congestion, times } => {
                for n in 0..times % 5000 {
                    let sequence = sequence.wrapping_add(n.wrapping_mul(step.into()));
                    let congestion = Some(congestion.wrapping_add(n.wrapping_mul(step.into())));
                    self.send(&packet(source, sequence, 0, 96, 0, None, congestion, 0, vec![1]));
                }
            }
            Step::Report { source, ntp, rtp, goodbye } => {
                let ssrc = u32::from(source).to_be_bytes();
                let mut compound = [&[0x80, 200, 0, 6], &ssrc[..], &ntp.to_be_bytes(), &rtp.to_be_bytes()].concat();
                compound.extend([0; 8]);
                if goodbye {
                    compound.extend([&[0x81, 203, 0, 1], &ssrc[..]].concat());
                }
                let Some(sealed) = self.path.seal_rtcp(&compound) else { return };
                let opened = self.path.take(sealed.clone());
                assert!(opened.as_ref().is_ok_and(|opened| *opened == compound) || opened.is_err());
                self.note(sealed, opened.is_ok());
            }
            Step::Again => self.refuse(self.last.clone()),
            Step::Flip(bit) => {
                let mut changed = self.last.clone();
                if let Some(byte) = changed.get_mut(usize::from(bit / 8)) {
                    *byte ^= 1 << (bit % 8);
                    self.refuse(changed);
                }
            }
            Step::Cut(bytes) => {
                let mut cut = self.last.clone();
                cut.truncate(cut.len().saturating_sub(usize::from(bytes) + 1));
                self.refuse(cut);
            }
            Step::Any(datagram) => self.refuse(datagram),
            Step::Wait(ms) => self.path.wait(Duration::from_millis(ms.into())),
        }
    }

    fn send(&mut self, packet: &[u8]) {
        let Some(sealed) = self.path.seal(packet) else { return };
        let opened = self.path.take(sealed.clone());
        // One that is old, or whose number came before, is refused.
        assert!(opened.as_ref().is_ok_and(|opened| opened == packet) || opened.is_err(), "{opened:?}");
        self.note(sealed, opened.is_ok());
    }

    fn note(&mut self, sealed: Vec<u8>, taken: bool) {
        if taken {
            assert!(self.taken.insert(sealed.clone()), "taken twice");
        }
        self.last = sealed;
    }

    /// Nobody but the peer can have anything taken, nor can the peer twice.
    fn refuse(&mut self, datagram: Vec<u8>) {
        let is_last = datagram == self.last;
        let opened = self.path.take(datagram.clone());
        // What was refused for its age alone may be young again.
        let is_new = is_last && self.taken.insert(datagram);
        assert!(opened.is_err() || is_new, "{opened:?}");
    }
}

#[allow(clippy::too_many_arguments, reason = "a packet has so many fields")]
fn packet(
    source: u8,
    sequence: u16,
    timestamp: u32,
    kind: u8,
    contributing: u8,
    extension: Option<(u16, Vec<u8>)>,
    congestion: Option<u16>,
    padding: u8,
    mut payload: Vec<u8>,
) -> Vec<u8> {
    let (profile, mut elements) = extension.unwrap_or((0xBEDE, Vec::new()));
    if let Some(number) = congestion.filter(|_| profile == 0xBEDE) {
        elements.splice(0..0, [0x31, (number >> 8) as u8, number as u8]);
    }
    elements.truncate(400);
    elements.resize(elements.len().next_multiple_of(4), 0);
    let (contributing, extended) = (contributing % 16, !elements.is_empty());
    payload.truncate(1000);
    if padding > 0 {
        payload.resize(payload.len() + usize::from(padding) - 1, 0);
        payload.push(padding);
    }
    let flags = 0x80 | u8::from(padding > 0) << 5 | u8::from(extended) << 4 | contributing;
    // Payload types 64 to 95 would be RTCP's.
    let kind = if (64..=95).contains(&(kind & 0x7f)) { kind & !0x40 } else { kind };
    let mut packet = vec![flags, kind];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(u32::from(source).to_be_bytes());
    packet.resize(packet.len() + 4 * usize::from(contributing), 5);
    if extended {
        packet.extend(profile.to_be_bytes());
        packet.extend((elements.len() as u16 / 4).to_be_bytes());
        packet.extend(elements);
    }
    packet.extend(payload);
    packet
}
