//! Elements to bytes and back (RFC 8794). Nothing that is read here trusts a length.

use std::ops::Range;
use webm_iterable::WebmWriter;

/// 2001-01-01T00:00:00Z, where dates begin (RFC 8794 section 7.6), in Unix time.
pub(super) const EPOCH_NS: i128 = 978_307_200 * 1_000_000_000;

/// Element ids (RFC 9559 section 5).
pub(super) mod id {
    pub const EBML: u64 = 0x1a45_dfa3;
    pub const EBML_VERSION: u64 = 0x4286;
    pub const EBML_READ_VERSION: u64 = 0x42f7;
    pub const EBML_MAX_ID_LENGTH: u64 = 0x42f2;
    pub const EBML_MAX_SIZE_LENGTH: u64 = 0x42f3;
    pub const DOC_TYPE: u64 = 0x4282;
    pub const DOC_TYPE_VERSION: u64 = 0x4287;
    pub const DOC_TYPE_READ_VERSION: u64 = 0x4285;
    pub const VOID: u64 = 0xec;
    pub const CRC_32: u64 = 0xbf;
    pub const SEGMENT: u64 = 0x1853_8067;
    pub const SEEK_HEAD: u64 = 0x114d_9b74;
    pub const SEEK: u64 = 0x4dbb;
    pub const SEEK_ID: u64 = 0x53ab;
    pub const SEEK_POSITION: u64 = 0x53ac;
    /// Info.
    pub const INFO: u64 = 0x1549_a966;
    pub const TIMESTAMP_SCALE: u64 = 0x2a_d7b1;
    pub const DURATION: u64 = 0x4489;
    pub const DATE_UTC: u64 = 0x4461;
    pub const TITLE: u64 = 0x7ba9;
    pub const MUXING_APP: u64 = 0x4d80;
    pub const WRITING_APP: u64 = 0x5741;
    /// Tracks.
    pub const TRACKS: u64 = 0x1654_ae6b;
    pub const TRACK_ENTRY: u64 = 0xae;
    pub const TRACK_NUMBER: u64 = 0xd7;
    pub const TRACK_UID: u64 = 0x73c5;
    pub const TRACK_TYPE: u64 = 0x83;
    pub const FLAG_LACING: u64 = 0x9c;
    pub const DEFAULT_DURATION: u64 = 0x23_e383;
    pub const DEFAULT_DECODED_FIELD_DURATION: u64 = 0x23_4e7a;
    pub const TRACK_TIMESTAMP_SCALE: u64 = 0x23_314f;
    pub const MIN_CACHE: u64 = 0x6de7;
    pub const MAX_CACHE: u64 = 0x6df8;
    pub const TRACK_OVERLAY: u64 = 0x6fab;
    pub const TRACK_TRANSLATE: u64 = 0x6624;
    pub const TRACK_OPERATION: u64 = 0xe2;
    pub const TRICK_TRACKS: [u64; 5] = [0xc0, 0xc1, 0xc4, 0xc6, 0xc7];
    pub const ATTACHMENT_LINK: u64 = 0x7446;
    pub const MAX_BLOCK_ADDITION_ID: u64 = 0x55ee;
    pub const BLOCK_ADDITION_MAPPING: u64 = 0x41e4;
    pub const FLAG_ENABLED: u64 = 0xb9;
    pub const FLAG_DEFAULT: u64 = 0x88;
    pub const FLAG_FORCED: u64 = 0x55aa;
    pub const NAME: u64 = 0x536e;
    pub const LANGUAGE: u64 = 0x22_b59c;
    pub const CODEC_ID: u64 = 0x86;
    pub const CODEC_PRIVATE: u64 = 0x63a2;
    pub const CODEC_DELAY: u64 = 0x56aa;
    pub const SEEK_PRE_ROLL: u64 = 0x56bb;
    pub const VIDEO: u64 = 0xe0;
    pub const PIXEL_WIDTH: u64 = 0xb0;
    pub const PIXEL_HEIGHT: u64 = 0xba;
    pub const PIXEL_CROP: [u64; 4] = [0x54aa, 0x54bb, 0x54cc, 0x54dd];
    pub const DISPLAY_WIDTH: u64 = 0x54b0;
    pub const DISPLAY_HEIGHT: u64 = 0x54ba;
    pub const DISPLAY_UNIT: u64 = 0x54b2;
    pub const FLAG_INTERLACED: u64 = 0x9a;
    pub const FRAME_RATE: u64 = 0x23_83e3;
    pub const STEREO_MODE: u64 = 0x53b8;
    pub const ALPHA_MODE: u64 = 0x53c0;
    pub const COLOUR: u64 = 0x55b0;
    pub const MASTERING_METADATA: u64 = 0x55d0;
    pub const PROJECTION: u64 = 0x7670;
    pub const CONTENT_ENCODINGS: u64 = 0x6d80;
    pub const AUDIO: u64 = 0xe1;
    pub const SAMPLING_FREQUENCY: u64 = 0xb5;
    pub const OUTPUT_SAMPLING_FREQUENCY: u64 = 0x78b5;
    pub const BIT_DEPTH: u64 = 0x6264;
    pub const CHANNELS: u64 = 0x9f;
    pub const CLUSTER: u64 = 0x1f43_b675;
    pub const TIMESTAMP: u64 = 0xe7;
    pub const POSITION: u64 = 0xa7;
    pub const PREV_SIZE: u64 = 0xab;
    pub const SIMPLE_BLOCK: u64 = 0xa3;
    pub const BLOCK_GROUP: u64 = 0xa0;
    pub const BLOCK: u64 = 0xa1;
    pub const BLOCK_DURATION: u64 = 0x9b;
    pub const BLOCK_ADDITIONS: u64 = 0x75a1;
    pub const REFERENCE_BLOCK: u64 = 0xfb;
    pub const DISCARD_PADDING: u64 = 0x75a2;
    pub const CUES: u64 = 0x1c53_bb6b;
    pub const CUE_POINT: u64 = 0xbb;
    pub const CUE_TIME: u64 = 0xb3;
    pub const CUE_TRACK_POSITIONS: u64 = 0xb7;
    pub const CUE_TRACK: u64 = 0xf7;
    pub const CUE_CLUSTER_POSITION: u64 = 0xf1;
    pub const CUE_RELATIVE_POSITION: u64 = 0xf0;
    pub const TAG: u64 = 0x7373;
    pub const TARGETS: u64 = 0x63c0;
    pub const TARGET_TYPE_VALUE: u64 = 0x68ca;
    pub const TAG_TRACK_UID: u64 = 0x63c5;
    pub const SIMPLE_TAG: u64 = 0x67c8;
    pub const TAG_NAME: u64 = 0x45a3;
    pub const TAG_STRING: u64 = 0x4487;
    pub const TAGS: u64 = 0x1254_c367;
    pub const CHAPTERS: u64 = 0x1043_a770;
    pub const ATTACHMENTS: u64 = 0x1941_a469;
}

/// Appends an element; returns where its payload begins in `out`.
pub(super) fn element(out: &mut Vec<u8>, id: u64, payload: &[u8]) -> usize {
    // The two ways to fail are a writer that refuses bytes and a size of 2^56: a Vec is neither.
    WebmWriter::new(&mut *out).write_raw(id, payload).expect("a Vec takes every element");
    out.len() - payload.len()
}

/// Appends an unsigned integer in as few bytes as it needs, at least one.
pub(super) fn uint(out: &mut Vec<u8>, id: u64, value: u64) {
    let bytes = value.to_be_bytes();
    element(out, id, &bytes[(value.leading_zeros() as usize / 8).min(7)..]);
}

/// Appends a master element made of what `build` writes; returns where its payload begins.
pub(super) fn master(out: &mut Vec<u8>, id: u64, build: impl FnOnce(&mut Vec<u8>)) -> usize {
    let mut payload = Vec::new();
    build(&mut payload);
    element(out, id, &payload)
}

/// An element of `len` bytes in all that says nothing (RFC 8794 section 11.3.2). Its size field has
/// 2 bytes from 128 bytes on and 1 byte below, so that any length from 2 to 16 000 can be filled.
pub(super) fn void(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[0] = id::VOID as u8;
    if len < 128 {
        bytes[1] = 0x80 | (len - 2) as u8;
    } else {
        bytes[1..3].copy_from_slice(&(0x4000 | (len - 3) as u16).to_be_bytes());
    }
    bytes
}

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Too few bytes to tell.
    Incomplete,
    /// No element.
    Invalid,
    /// An element's id, the size of its payload (`None`: unknown), and the length of both fields.
    Valid { id: u64, size: Option<u64>, len: usize },
}

/// Reads an element's id (up to 4 bytes, the marker a part of it) and size (up to 8).
pub(super) fn read_header(bytes: &[u8]) -> Header {
    let Some(first) = bytes.first() else { return Header::Incomplete };
    let id_len = first.leading_zeros() as usize + 1;
    // All ones after the marker is reserved, a longer id is not Matroska's.
    if id_len > 4 || *first == 0xff {
        return Header::Invalid;
    }
    let (Some(id), Some(second)) = (bytes.get(..id_len), bytes.get(id_len)) else {
        return Header::Incomplete;
    };
    let size_len = second.leading_zeros() as usize + 1;
    if size_len > 8 {
        return Header::Invalid;
    }
    let Some(field) = bytes.get(id_len..id_len + size_len) else { return Header::Incomplete };
    let unknown = (1u64 << (7 * size_len)) - 1;
    let size = read_uint(field).unwrap_or(0) & unknown;
    Header::Valid {
        id: read_uint(id).unwrap_or(0),
        size: (size != unknown).then_some(size),
        len: id_len + size_len,
    }
}

/// An unsigned integer of up to 8 bytes; none at all is 0.
pub(super) fn read_uint(payload: &[u8]) -> Option<u64> {
    (payload.len() <= 8).then(|| payload.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A floating-point number of 0, 4 or 8 bytes.
pub(super) fn read_float(payload: &[u8]) -> Option<f64> {
    match payload.len() {
        0 => Some(0.0),
        4 => Some(f64::from(f32::from_be_bytes(payload.try_into().ok()?))),
        8 => Some(f64::from_be_bytes(payload.try_into().ok()?)),
        _ => None,
    }
}

/// A string, which zeros may follow.
pub(super) fn read_string(payload: &[u8]) -> &str {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    std::str::from_utf8(&payload[..end]).unwrap_or("")
}

/// A child of a master element that is in memory.
#[derive(Clone, Debug)]
pub(super) struct Child<'a> {
    pub id: u64,
    /// The whole element, relative to the parent's payload.
    pub at: Range<usize>,
    pub payload: &'a [u8],
}

/// The children of a payload. Ends before the first that is no element or leaves the payload.
pub(super) fn children(payload: &[u8]) -> impl Iterator<Item = Child<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let Header::Valid { id, size: Some(size), len } = read_header(payload.get(at..)?) else {
            return None;
        };
        let start = at + len;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        let child = Child { id, at: at..end, payload: payload.get(start..end)? };
        at = end;
        Some(child)
    })
}

/// The payload of the first child with this id.
pub(super) fn child(payload: &[u8], id: u64) -> Option<&[u8]> {
    children(payload).find(|child| child.id == id).map(|child| child.payload)
}

/// Whether the children fill a payload to its last byte.
pub(super) fn is_well_formed(payload: &[u8]) -> bool {
    children(payload).last().map_or(0, |child| child.at.end) == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_fills_any_length_exactly() {
        for len in [2, 11, 21, 126, 127, 128, 129, 130, 500, 16_000] {
            let bytes = void(len);
            let (header, size) = if bytes[1] & 0x80 != 0 {
                (2, usize::from(bytes[1] & 0x7f))
            } else {
                (3, usize::from(u16::from_be_bytes([bytes[1], bytes[2]]) & 0x3fff))
            };
            assert_eq!((bytes.len(), header + size), (len, len), "a void of {len} bytes");
            assert_ne!(bytes[1], 0xff, "{len}: all ones is the unknown size");
        }
    }

    #[test]
    fn integers_are_as_short_as_they_can_be() {
        for (value, bytes) in
            [(0, &[0xb3, 0x81, 0][..]), (255, &[0xb3, 0x81, 255]), (256, &[0xb3, 0x82, 1, 0])]
        {
            let mut out = Vec::new();
            uint(&mut out, id::CUE_TIME, value);
            assert_eq!(out, bytes, "{value}");
        }
    }

    #[test]
    fn heads_are_read_as_the_rfc_writes_them() {
        let is = |id, size, len| Header::Valid { id, size, len };
        for (bytes, expected) in [
            (&[0xa3, 0x81][..], is(0xa3, Some(1), 2)),
            (&[0x42, 0x86, 0x40, 0x01], is(0x4286, Some(1), 4)),
            (&[0x1f, 0x43, 0xb6, 0x75, 0xff], is(0x1f43_b675, None, 5)),
            (&[0x1f, 0x43, 0xb6, 0x75, 0x01, 255, 255, 255, 255, 255, 255, 255], is(0x1f43_b675, None, 12)),
            (&[0xec, 0x01, 0, 0, 0, 0, 0, 0, 9], is(0xec, Some(9), 9)),
            (&[], Header::Incomplete),
            (&[0x1f, 0x43, 0xb6], Header::Incomplete),
            (&[0xa3], Header::Incomplete),
            (&[0xa3, 0x40], Header::Incomplete),
            (&[0x08, 0, 0, 0, 0, 0x81], Header::Invalid),
            (&[0xa3, 0x00], Header::Invalid),
            (&[0xff, 0x81], Header::Invalid),
        ] {
            assert_eq!(read_header(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn children_end_where_a_length_lies() {
        let ids = |bytes| children(bytes).map(|child| child.id).collect::<Vec<_>>();
        assert_eq!(ids(&[0xa3, 0x81, 7, 0xec, 0x80]), [0xa3, 0xec]);
        assert_eq!(ids(&[0xa3, 0x81, 7, 0xec, 0x82, 0]), [0xa3]);
        assert_eq!(ids(&[0xa3, 0x01, 255, 255, 255, 255, 255, 255, 254]), [0; 0]);
        assert!(is_well_formed(&[]) && is_well_formed(&[0xec, 0x80]) && !is_well_formed(&[0xec]));
    }
}
