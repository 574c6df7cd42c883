//! Elements out of bytes (RFC 8794 sections 4 to 7). Nothing here trusts a length.

use std::ops::Range;

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Too few bytes to tell.
    More,
    /// No element.
    Bad,
    /// An element's id, the size of its payload (`None`: unknown), and the length of both fields.
    Is { id: u64, size: Option<u64>, len: usize },
}

/// Reads an element's id (up to 4 bytes, the marker a part of it) and size (up to 8).
pub(super) fn head(bytes: &[u8]) -> Head {
    let Some(first) = bytes.first() else { return Head::More };
    let id_len = first.leading_zeros() as usize + 1;
    // All ones after the marker is reserved, a longer id is not Matroska's.
    if id_len > 4 || *first == 0xff {
        return Head::Bad;
    }
    let (Some(id), Some(second)) = (bytes.get(..id_len), bytes.get(id_len)) else { return Head::More };
    let size_len = second.leading_zeros() as usize + 1;
    if size_len > 8 {
        return Head::Bad;
    }
    let Some(field) = bytes.get(id_len..id_len + size_len) else { return Head::More };
    let unknown = (1u64 << (7 * size_len)) - 1;
    let size = uint(field).unwrap_or(0) & unknown;
    Head::Is { id: uint(id).unwrap_or(0), size: (size != unknown).then_some(size), len: id_len + size_len }
}

/// An unsigned integer of up to 8 bytes; none at all is 0.
pub(super) fn uint(payload: &[u8]) -> Option<u64> {
    (payload.len() <= 8).then(|| payload.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A floating-point number of 0, 4 or 8 bytes.
pub(super) fn float(payload: &[u8]) -> Option<f64> {
    match payload.len() {
        0 => Some(0.0),
        4 => Some(f64::from(f32::from_be_bytes(payload.try_into().ok()?))),
        8 => Some(f64::from_be_bytes(payload.try_into().ok()?)),
        _ => None,
    }
}

/// A string, which zeros may follow.
pub(super) fn text(payload: &[u8]) -> &str {
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
        let Head::Is { id, size: Some(size), len } = head(payload.get(at..)?) else { return None };
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
pub(super) fn is_filled(payload: &[u8]) -> bool {
    children(payload).last().map_or(0, |child| child.at.end) == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_the_rfc_writes_them() {
        let is = |id, size, len| Head::Is { id, size, len };
        for (bytes, expected) in [
            (&[0xa3, 0x81][..], is(0xa3, Some(1), 2)),
            (&[0x42, 0x86, 0x40, 0x01], is(0x4286, Some(1), 4)),
            (&[0x1f, 0x43, 0xb6, 0x75, 0xff], is(0x1f43_b675, None, 5)),
            (&[0x1f, 0x43, 0xb6, 0x75, 0x01, 255, 255, 255, 255, 255, 255, 255], is(0x1f43_b675, None, 12)),
            (&[0xec, 0x01, 0, 0, 0, 0, 0, 0, 9], is(0xec, Some(9), 9)),
            (&[], Head::More),
            (&[0x1f, 0x43, 0xb6], Head::More),
            (&[0xa3], Head::More),
            (&[0xa3, 0x40], Head::More),
            (&[0x08, 0, 0, 0, 0, 0x81], Head::Bad),
            (&[0xa3, 0x00], Head::Bad),
            (&[0xff, 0x81], Head::Bad),
        ] {
            assert_eq!(head(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn children_end_where_a_length_lies() {
        let ids = |bytes| children(bytes).map(|child| child.id).collect::<Vec<_>>();
        assert_eq!(ids(&[0xa3, 0x81, 7, 0xec, 0x80]), [0xa3, 0xec]);
        assert_eq!(ids(&[0xa3, 0x81, 7, 0xec, 0x82, 0]), [0xa3]);
        assert_eq!(ids(&[0xa3, 0x01, 255, 255, 255, 255, 255, 255, 254]), [0; 0]);
        assert!(is_filled(&[]) && is_filled(&[0xec, 0x80]) && !is_filled(&[0xec]));
    }
}
