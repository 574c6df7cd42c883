//! VP8 packets into frames (RFC 7741), and only frames that can be decoded.
//!
//! A decoder does not notice that a reference is missing: it shows rubbish until the next keyframe.
//! So after a loss nothing is released unless the descriptors prove that no reference was lost.

use super::Assembled;
use super::arena::Arena;
use crate::media::{Size, vp8};
use crate::rtp::Packet;
use bytes::Bytes;

/// The largest frame, in bytes. A keyframe of 4K video has a megabyte or two, one of 8K some. A larger one is dropped.
const MAX_FRAME: usize = 10 << 20;
/// Memory that frames are put together in comes in pieces: a second of video at 250 kbit/s.
const PIECE: usize = 32 << 10;

/// The payload descriptor in front of each packet (RFC 7741 section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Descriptor {
    /// First packet of a frame: S is set and PID is 0.
    starts: bool,
    /// PictureID with the number of its bits.
    picture: Option<(u16, u16)>,
    /// TL0PICIDX: counts frames of the base layer.
    base: Option<u8>,
    /// TID and Y: temporal layer, and whether it depends on the base layer only.
    layer: Option<(u8, bool)>,
}

impl Descriptor {
    /// Reads a payload's, and how long it is; `None` if it is malformed.
    fn read(payload: &[u8]) -> Option<(Self, usize)> {
        let first = *payload.first()?;
        let mut at = 1;
        let mut next = || {
            let byte = payload.get(at).copied();
            at += 1;
            byte
        };
        let mut found = Self { starts: first & 0x10 != 0 && first & 7 == 0, ..Self::default() };
        if first & 0x80 != 0 {
            let extensions = next()?;
            if extensions & 0x80 != 0 {
                let high = next()?;
                found.picture = Some(match high & 0x80 {
                    0 => (u16::from(high), 7),
                    _ => (u16::from(high & 0x7f) << 8 | u16::from(next()?), 15),
                });
            }
            if extensions & 0x40 != 0 {
                found.base = Some(next()?);
            }
            if extensions & 0x30 != 0 {
                let byte = next()?;
                if extensions & 0x20 != 0 {
                    found.layer = Some((byte >> 6, byte & 0x20 != 0));
                }
            }
        }
        (payload.len() > at).then_some((found, at))
    }

    fn follows(&self, before: &Self) -> bool {
        matches!((self.picture, before.picture), (Some((this, bits)), Some((last, same)))
            if bits == same && this == last.wrapping_add(1) & ((1 << bits) - 1))
    }
}

/// Whether a packet is the first of a keyframe: nothing that a decoder needs comes before it.
pub(super) fn begins(packet: &Packet) -> bool {
    Descriptor::read(&packet.payload)
        .is_some_and(|(descriptor, length)| descriptor.starts && vp8::is_keyframe(&packet.payload[length..]))
}

/// The picture size, if this payload begins a keyframe.
pub(super) fn keyframe_size(payload: &[u8]) -> Option<Size> {
    let (descriptor, length) = Descriptor::read(payload)?;
    if descriptor.starts { vp8::size(&payload[length..]) } else { None }
}

/// Collects packets in order; what comes out can be decoded.
#[derive(Debug)]
pub(in crate::rtp) struct Depacketizer {
    frames: Arena,
    /// The frame under way: its descriptor and timestamp.
    open: Option<(Descriptor, u32)>,
    /// The last frame released.
    last: Option<Descriptor>,
    /// The base-layer counter of the newest base frame released.
    last_base: Option<u8>,
    /// Something was lost since then.
    loss: bool,
    /// It was in the middle of a frame, so at least that frame is gone.
    cut: bool,
    /// Nothing can be decoded before the next keyframe.
    waits: bool,
    /// Frames of upper layers were lost: those that may refer to them are dropped.
    upper_lost: bool,
    started: bool,
    /// The source before this one left a hole.
    hole: bool,
    /// Frames that came whole and were not released.
    pub withheld: u64,
}

impl Default for Depacketizer {
    fn default() -> Self {
        Self::with(Arena::new(PIECE), 0)
    }
}

impl Depacketizer {
    /// One that has seen nothing but the count of frames that were not released.
    fn with(frames: Arena, withheld: u64) -> Self {
        Self {
            frames,
            open: None,
            last: None,
            last_base: None,
            loss: false,
            cut: false,
            waits: false,
            upper_lost: false,
            started: false,
            hole: false,
            withheld,
        }
    }

    /// Begins anew, in the same memory.
    fn reset(&mut self) {
        let frames = std::mem::replace(&mut self.frames, Arena::new(0));
        *self = Self::with(frames, self.withheld);
    }

    /// Whether only a keyframe helps.
    pub fn needs_keyframe(&self) -> bool {
        self.waits || !self.started
    }

    /// Another source goes on, with a keyframe.
    pub fn restart(&mut self, hole: bool) {
        let hole = self.started && (hole || self.loss || self.waits);
        let hole = self.hole || hole;
        self.reset();
        self.hole = hole;
    }

    /// Packets are missing here.
    pub fn lost(&mut self) {
        self.loss = true;
        self.cut |= self.open.take().is_some();
    }

    /// Takes the next packet; a frame may come out, or (first) the one before that had no marker.
    pub fn push<P: AsRef<[u8]>>(&mut self, packet: &Packet<P>) -> Option<Assembled> {
        let payload = packet.payload.as_ref();
        if payload.is_empty() {
            return None; // Padding, sent to probe the path.
        }
        let Some((descriptor, length)) = Descriptor::read(payload) else {
            self.lost();
            return None;
        };
        let mut before = None;
        if self.open.as_ref().is_some_and(|(_, timestamp)| *timestamp != packet.timestamp) {
            before = self.complete();
        }
        if descriptor.starts && self.open.is_none() {
            self.open = Some((descriptor, packet.timestamp));
            self.frames.begin();
        }
        if self.open.is_none() {
            // The middle of a frame whose beginning we don't have.
            (self.loss, self.cut) = (true, true);
            return before;
        }
        self.frames.push(&payload[length..]);
        if self.frames.len() > MAX_FRAME {
            self.lost();
            return before;
        }
        if before.is_none() && packet.marker { self.complete() } else { before }
    }

    fn complete(&mut self) -> Option<Assembled> {
        let (descriptor, timestamp) = self.open.take()?;
        let data = self.frames.finish();
        let keyframe = vp8::is_keyframe(&data);
        let size = vp8::size(&data).filter(|_| keyframe);
        if keyframe && size.is_none() {
            // Says it is one, but no decoder could begin with it.
            self.loss = true;
            self.cut = true;
            self.withheld += 1;
            return None;
        }
        let whole =
            Assembled { timestamp, keyframe, size, private: Bytes::new(), data, after_gap: false, lost: 0 };
        if keyframe {
            let after_gap = self.hole || (self.started && (self.waits || self.loss));
            self.reset();
            self.started = true;
            self.released(&descriptor);
            return Some(Assembled { after_gap, ..whole });
        }
        if !self.started || self.waits || !self.continues(&descriptor) {
            self.withheld += 1;
            return None;
        }
        self.released(&descriptor);
        Some(whole)
    }

    /// Whether all that this frame may refer to has been released.
    fn continues(&mut self, descriptor: &Descriptor) -> bool {
        let (layer, only_base) = descriptor.layer.unwrap_or((0, false));
        let only_padding = !self.cut && self.last.is_some_and(|last| descriptor.follows(&last));
        if self.loss && !only_padding {
            let base_is_whole = match (descriptor.base, self.last_base, descriptor.layer) {
                (Some(this), Some(last), Some((0, _))) => this == last.wrapping_add(1),
                (Some(this), Some(last), Some(_)) => this == last,
                _ => false,
            };
            if !base_is_whole {
                self.waits = true;
                return false;
            }
            self.upper_lost = true;
        }
        (self.loss, self.cut) = (false, false);
        if layer > 0 && self.upper_lost {
            if !only_base {
                return false;
            }
            self.upper_lost = false;
        }
        true
    }

    fn released(&mut self, descriptor: &Descriptor) {
        self.last = Some(*descriptor);
        if descriptor.layer.is_none_or(|(layer, _)| layer == 0) {
            self.last_base = descriptor.base;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = &[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1];
    const INTER: &[u8] = &[0x11, 1, 2];

    /// A whole frame in one packet: picture id of 15 bits, base-layer counter, temporal layer.
    fn packet(picture: u16, base: u8, layer: u8, only_base: bool, frame: &[u8]) -> Packet {
        let [high, low] = picture.to_be_bytes();
        let mut payload = vec![0x90, 0xe0, high | 0x80, low, base, layer << 6 | u8::from(only_base) << 5];
        payload.extend_from_slice(frame);
        plain(u32::from(picture), true, payload)
    }

    fn plain(timestamp: u32, marker: bool, payload: Vec<u8>) -> Packet {
        Packet { sequence: 0, timestamp, marker, payload: payload.into(), red: false }
    }

    #[test]
    fn a_frame_of_several_packets_is_put_together() {
        let mut depacketizer = Depacketizer::default();
        let (first, rest) = KEY.split_at(4);
        assert!(depacketizer.push(&plain(7, false, [&[0x10], first].concat())).is_none());
        assert!(depacketizer.push(&plain(7, false, Vec::new())).is_none(), "padding");
        // The second partition begins with S set and PID 1.
        let frame = depacketizer.push(&plain(7, true, [&[0x11], rest].concat())).unwrap();
        assert_eq!((&frame.data[..], frame.keyframe, frame.after_gap), (KEY, true, false));
    }

    #[test]
    fn every_form_of_the_descriptor_is_read_and_a_broken_one_is_a_loss() {
        let read = Descriptor::read;
        let picture = |bytes| read(bytes).and_then(|(descriptor, _)| descriptor.picture);
        assert_eq!(picture(&[0x90, 0x80, 0x7f, 1]), Some((127, 7)));
        assert_eq!(picture(&[0x90, 0x80, 0xff, 0xfe, 1]), Some((0x7ffe, 15)));
        assert_eq!(read(&[0x90, 0x20, 0x60, 1]).unwrap().0.layer, Some((1, true)));
        assert_eq!(read(&[0x90, 0x10, 0x1f, 1]).unwrap().0.layer, None, "KEYIDX only");
        for bytes in [&[][..], &[0x10], &[0x90], &[0x90, 0xf0, 1], &[0x90, 0x80, 0x80]] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
        let wraps = |this, last| {
            let of = |picture| Descriptor { picture, ..Descriptor::default() };
            of(this).follows(&of(last))
        };
        assert!(wraps(Some((0, 7)), Some((127, 7))) && wraps(Some((0, 15)), Some((32767, 15))));
        assert!(!wraps(Some((0, 15)), Some((127, 7))) && !wraps(None, None));
    }

    #[test]
    fn after_a_loss_only_a_keyframe_is_released_unless_no_reference_was_lost() {
        let mut depacketizer = Depacketizer::default();
        let mut push = |lost: bool, packet: Packet| {
            if lost {
                depacketizer.lost();
            }
            depacketizer.push(&packet).map(|frame| (frame.keyframe, frame.after_gap))
        };
        let (frame, after_gap) = (Some((false, false)), Some((true, true)));
        assert_eq!(push(false, packet(1, 1, 0, false, INTER)), None, "before the first keyframe");
        assert_eq!(push(false, packet(2, 2, 0, false, KEY)), Some((true, false)));
        assert_eq!(push(true, packet(3, 3, 0, false, INTER)), frame, "only padding was lost");
        assert_eq!(push(true, packet(5, 4, 0, false, INTER)), frame, "an upper layer was lost");
        assert_eq!(push(false, packet(6, 4, 1, false, INTER)), None, "may refer to it");
        assert_eq!(push(false, packet(7, 4, 1, true, INTER)), frame, "refers to the base only");
        assert_eq!(push(false, packet(8, 4, 1, false, INTER)), frame);
        assert_eq!(push(true, packet(10, 6, 0, false, INTER)), None, "a base frame was lost");
        assert_eq!(push(false, packet(11, 7, 0, false, INTER)), None);
        assert_eq!(push(false, packet(12, 8, 0, false, KEY)), after_gap);
        assert_eq!(push(false, packet(13, 9, 0, false, INTER)), frame);
        assert_eq!(depacketizer.withheld, 4, "frames that came and were kept back");
    }

    #[test]
    fn a_frame_cut_by_a_loss_is_never_released() {
        let mut depacketizer = Depacketizer::default();
        assert!(depacketizer.push(&packet(1, 1, 0, false, KEY)).is_some());
        assert!(depacketizer.push(&plain(9, false, vec![0x10, 0x11, 1])).is_none());
        depacketizer.lost();
        assert!(depacketizer.push(&plain(9, true, vec![0x00, 5])).is_none());
        assert!(depacketizer.push(&plain(10, true, vec![0x10, 0x11])).is_none());
        assert!(depacketizer.needs_keyframe());
    }

    /// A picture of so many packets, with so much data each.
    fn picture(depacketizer: &mut Depacketizer, packets: usize, bytes: usize) -> Option<Assembled> {
        let part = |index: usize| match index {
            0 => [&[0x10], KEY, &vec![0; bytes - KEY.len()][..]].concat(),
            _ => vec![0; bytes + 1],
        };
        (0..packets).find_map(|index| depacketizer.push(&plain(7, index + 1 == packets, part(index))))
    }

    #[test]
    fn a_frame_takes_no_more_memory_than_it_may_in_however_many_packets() {
        let mut depacketizer = Depacketizer::default();
        let mut most = 0;
        for index in 0..12_000 {
            let payload = if index == 0 { [&[0x10], KEY].concat() } else { vec![0x10; 1_201] };
            assert!(depacketizer.push(&plain(7, false, payload)).is_none());
            most = most.max(depacketizer.frames.len());
        }
        println!("at most {most} bytes are held");
        assert!(most <= MAX_FRAME + 1_200 && depacketizer.needs_keyframe());
        for (packets, bytes) in [(1_000, 1_200), (7_000, 1_200), (20, 60_000), (1_000_000, KEY.len())] {
            let frame = picture(&mut Depacketizer::default(), packets, bytes).expect("a real frame");
            assert_eq!((frame.data.len(), frame.keyframe), (packets * bytes, true));
        }
        assert!(picture(&mut Depacketizer::default(), 10_000, 1_200).is_none());
    }
}
