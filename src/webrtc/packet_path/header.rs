//! An RTP header, read where it lies (RFC 3550 section 5.1, RFC 8285).

/// The bytes in front of the contributing sources.
const FIXED: usize = 12;
/// Profile and length of the header extension.
const EXTENSION_HEAD: usize = 4;
/// Profile of elements with one byte in front (RFC 8285 section 4.2).
const ONE_BYTE: u16 = 0xBEDE;
/// Profile of elements with two bytes in front, but for its last four bits, which mean nothing to us (section 4.3).
const TWO_BYTE: u16 = 0x1000;

/// The header of one RTP packet. Contributing sources are skipped: only a mixer has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The payload ends in padding: [`without_padding`].
    pub padding: bool,
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    /// In units of the payload type's clock.
    pub timestamp: u32,
    pub ssrc: u32,
    profile: u16,
    extensions: &'a [u8],
}

/// How many bytes of a datagram are header, contributing sources and extension included; `None` if it is cut short or
/// of a version that isn't 2.
pub fn length(datagram: &[u8]) -> Option<usize> {
    let first = *datagram.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let sources = FIXED + 4 * usize::from(first & 0x0F);
    let length = if first & 0x10 == 0 {
        sources
    } else {
        let words = datagram.get(sources + 2..sources + EXTENSION_HEAD)?;
        sources + EXTENSION_HEAD + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]))
    };
    (length <= datagram.len()).then_some(length)
}

impl<'a> Header<'a> {
    /// Reads a header that is all of `head`, as [`length`] says where it ends.
    pub fn read(head: &'a [u8]) -> Option<Self> {
        if length(head)? != head.len() {
            return None;
        }
        let (fixed, rest) = head.split_first_chunk::<FIXED>()?;
        let [flags, kind, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        let extension = rest.get(4 * usize::from(flags & 0x0F)..)?;
        let (profile, extensions) = match extension.split_first_chunk::<EXTENSION_HEAD>() {
            Some(([p0, p1, ..], elements)) => (u16::from_be_bytes([*p0, *p1]), elements),
            None => (0, [].as_slice()),
        };
        Some(Self {
            padding: flags & 0x20 != 0,
            marker: kind & 0x80 != 0,
            payload_type: kind & 0x7F,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            profile,
            extensions,
        })
    }

    /// The first header extension element with this id, the one that `a=extmap` gave it. Elements behind one that is
    /// cut short aren't found, nor any in an extension of another form.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let one_byte = self.profile == ONE_BYTE;
        if id == 0 || !(one_byte || self.profile & 0xFFF0 == TWO_BYTE) {
            return None;
        }
        let mut rest = self.extensions;
        loop {
            let (&first, behind) = rest.split_first()?;
            if first == 0 {
                // Padding between elements.
                rest = behind;
                continue;
            }
            let (found, length, behind) = if one_byte {
                // Nothing counts from an id of 15 on, nor from one of 0 that has a length (section 4.2).
                if matches!(first >> 4, 0 | 15) {
                    return None;
                }
                (first >> 4, usize::from(first & 0x0F) + 1, behind)
            } else {
                let (&length, behind) = behind.split_first()?;
                (first, usize::from(length), behind)
            };
            let (value, behind) = behind.split_at_checked(length)?;
            if found == id {
                return Some(value);
            }
            rest = behind;
        }
    }
}

/// The payload without its padding (RFC 3550 section 5.1); `None` where padding claims more than there is.
pub fn without_padding<'a>(header: &Header<'_>, payload: &'a [u8]) -> Option<&'a [u8]> {
    if !header.padding {
        return Some(payload);
    }
    let padding = usize::from(*payload.last()?);
    payload.get(..payload.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rtc::rtp;
    use rtc::shared::marshal::{Marshal, Unmarshal};

    fn of(profile: u16, elements: &[u8]) -> Vec<u8> {
        assert_eq!(elements.len() % 4, 0);
        let words = u16::try_from(elements.len() / 4).unwrap();
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend_from_slice(&profile.to_be_bytes());
        packet.extend_from_slice(&words.to_be_bytes());
        packet.extend_from_slice(elements);
        packet
    }

    fn ids(packet: &[u8]) -> Vec<(u8, &[u8])> {
        let head = &packet[..length(packet).unwrap()];
        let header = Header::read(head).unwrap();
        (0..=255).filter_map(|id| Some((id, header.extension(id)?))).collect()
    }

    #[test]
    fn the_fields_of_a_header_are_read() {
        let packet =
            [0xA2, 0xE0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0xAB, 0xCD, 0, 0, 0, 3];
        assert_eq!(length(&packet), Some(20), "two contributing sources");
        let header = Header::read(&packet[..20]).unwrap();
        assert!(header.padding && header.marker);
        assert_eq!((header.payload_type, header.sequence), (0x60, 0x0102));
        assert_eq!((header.timestamp, header.ssrc), (0x0304_0506, 0x0708_090A));
        assert_eq!(without_padding(&header, &packet[20..]), Some(&packet[20..23]));
        assert_eq!(without_padding(&header, &[4, 4, 4]), None, "more padding than payload");
        assert_eq!(without_padding(&header, &[]), None);
        assert_eq!(without_padding(&header, &[3, 3, 3]), Some(&[][..]), "nothing but padding");
        let plain = Header { padding: false, ..header };
        assert_eq!(without_padding(&plain, &[4, 4, 4]), Some(&[4, 4, 4][..]));
        for cut in 0..20 {
            assert_eq!(length(&packet[..cut]), None, "cut at {cut}");
            assert_eq!(Header::read(&packet[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Header::read(&packet[..21]), None, "more than the header");
        for version in [0x22, 0x62, 0xE2] {
            assert_eq!(length(&[&[version], &packet[1..]].concat()), None, "version of {version:x}");
        }
    }

    #[test]
    fn elements_of_both_forms_are_found() {
        let one = of(ONE_BYTE, &[0x10, 0xAA, 0, 0x31, 1, 2, 0, 0, 0xE0, 9, 0x10, 0xBB]);
        assert_eq!(ids(&one), [(1, &[0xAA][..]), (3, &[1, 2]), (14, &[9])], "the first of two counts");
        for profile in [0x1000, 0x100F] {
            let two = of(profile, &[1, 0, 0, 200, 3, 1, 2, 3, 15, 1, 7, 0]);
            assert_eq!(ids(&two), [(1, &[][..]), (15, &[7]), (200, &[1, 2, 3])], "{profile:x}");
        }
        assert_eq!(ids(&of(0xABCD, &[0x10, 0xAA, 0, 0])), [], "of another form");
        assert_eq!(ids(&[0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]), [], "none");
    }

    /// Where RFC 8285 ends an extension, `rtc` reads on, into the payload even.
    #[test]
    fn what_is_reserved_or_cut_short_ends_the_elements() {
        assert_eq!(ids(&of(ONE_BYTE, &[0x10, 1, 0xF0, 2, 0x20, 3, 0, 0])), [(1, &[1][..])], "id 15");
        assert_eq!(ids(&of(ONE_BYTE, &[0x10, 1, 0x01, 2, 2, 0x20, 3, 0])), [(1, &[1][..])], "id 0, length 2");
        let cut = [of(ONE_BYTE, &[0x10, 1, 0x23, 2]), vec![3, 4, 5, 6]].concat();
        assert_eq!(length(&cut), Some(20));
        assert_eq!(ids(&cut), [(1, &[1][..])], "an element longer than the extension");
        let cut = [of(TWO_BYTE, &[1, 1, 1, 2]), vec![1, 4, 5, 6]].concat();
        assert_eq!(ids(&cut), [(1, &[1][..])], "an element without a length");
    }

    /// Elements that fit their extension: those of `rtc` say otherwise of what doesn't.
    fn elements() -> impl Strategy<Value = (u16, Vec<(u8, Vec<u8>)>)> {
        let one = vec((1..15u8, vec(any::<u8>(), 1..=16)), 0..5).prop_map(|of| (ONE_BYTE, of));
        let two = vec((1..=255u8, vec(any::<u8>(), 0..=40)), 0..5).prop_map(|of| (TWO_BYTE, of));
        prop_oneof![one, two]
    }

    fn same(ours: &Header<'_>, theirs: &rtp::Header) {
        assert_eq!(ours.padding, theirs.padding);
        assert_eq!(ours.marker, theirs.marker);
        assert_eq!(ours.payload_type, theirs.payload_type);
        assert_eq!(ours.sequence, theirs.sequence_number);
        assert_eq!(ours.timestamp, theirs.timestamp);
        assert_eq!(ours.ssrc, theirs.ssrc);
    }

    proptest! {
        #[test]
        fn it_reads_what_rtc_writes(
            (profile, elements) in elements(),
            csrc in vec(any::<u32>(), 0..=15),
            flags in any::<(bool, bool, bool)>(),
            (payload_type, sequence_number) in (0..128u8, any::<u16>()),
            (timestamp, ssrc) in any::<(u32, u32)>(),
            payload in vec(any::<u8>(), 0..20),
        ) {
            let (padding, marker, extension) = flags;
            let mut header = rtp::Header {
                version: 2, padding, marker, payload_type, sequence_number, timestamp, ssrc, csrc,
                ..Default::default()
            };
            if extension {
                header.extension = true;
                header.extension_profile = profile;
                header.extensions = elements
                    .iter()
                    .map(|(id, value)| rtp::header::Extension { id: *id, payload: value.clone().into() })
                    .collect();
            }
            let head = header.marshal().unwrap();
            let packet = [&head[..], &payload].concat();
            prop_assert_eq!(length(&packet), Some(head.len()));
            let ours = Header::read(&head).unwrap();
            same(&ours, &header);
            for id in 0..=255 {
                let theirs = header.get_extension(id);
                prop_assert_eq!(ours.extension(id), theirs.as_deref(), "element {}", id);
            }
            let theirs = rtp::Packet::unmarshal(&mut &packet[..]).ok().map(|packet| packet.payload);
            prop_assert_eq!(without_padding(&ours, &packet[head.len()..]), theirs.as_deref());
        }

        #[test]
        fn of_anything_at_all_it_says_what_rtc_says(
            flags in 0x80..=0xBFu8,
            profile in prop_oneof![Just(ONE_BYTE), Just(TWO_BYTE), any::<u16>()],
            words in prop_oneof![0..8u16, any::<u16>()],
            mut packet in vec(prop_oneof![Just(0u8), any::<u8>()], 0..160),
        ) {
            if let Some(first) = packet.first_mut() {
                *first = flags;
            }
            let extension = FIXED + 4 * usize::from(flags & 0x0F);
            if let Some(place) = packet.get_mut(extension..extension + 4) {
                place[..2].copy_from_slice(&profile.to_be_bytes());
                place[2..].copy_from_slice(&words.to_be_bytes());
            }
            let mut rest = &packet[..];
            let theirs = rtp::Header::unmarshal(&mut rest);
            let Some(length) = length(&packet) else {
                prop_assert!(theirs.is_err(), "{:?}", theirs);
                return Ok(());
            };
            let ours = Header::read(&packet[..length]).unwrap();
            let found: Vec<_> = (0..=255).filter_map(|id| ours.extension(id)).collect();
            let Ok(theirs) = theirs else { return Ok(()) };
            same(&ours, &theirs);
            // Its offset is elsewhere where elements don't fit, or end early.
            let fits = packet.len() - rest.len() == length;
            let plain = theirs.extensions.iter().all(|element| element.id != 0);
            if theirs.extension && fits && plain && matches!(profile, ONE_BYTE | TWO_BYTE) {
                for id in 0..=255 {
                    let theirs = theirs.get_extension(id);
                    prop_assert_eq!(ours.extension(id), theirs.as_deref(), "element {}", id);
                }
            } else if !theirs.extension {
                prop_assert!(fits && found.is_empty());
            }
        }
    }
}
