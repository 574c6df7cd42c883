//! RED, redundant audio (RFC 2198): each packet carries copies of those before it.

use bytes::Bytes;

/// Blocks of one packet that are looked at; senders put one or two copies.
const MAX_BLOCKS: usize = 8;

/// A copy of an earlier packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Its timestamp is this much smaller. How many packets ago it was first sent, nothing says: padding
    /// may have taken sequence numbers since.
    pub offset: u32,
    pub payload: Bytes,
}

/// The packet's own payload, which padding has none of, and the copies in it, newest first; `None` if it is
/// malformed.
pub(super) fn unpack(payload: &Bytes) -> Option<(Bytes, Vec<Copy>)> {
    let mut headers = Vec::new();
    let mut at = 0;
    // Each header but the last: 1 bit set, 7 of payload type, 14 of offset, 10 of length.
    while payload.get(at)? & 0x80 != 0 {
        let [_, b, c, d] = payload.get(at..at + 4)?.try_into().ok()?;
        headers.push((u32::from(b) << 6 | u32::from(c) >> 2, usize::from(c & 3) << 8 | usize::from(d)));
        at += 4;
        if headers.len() > MAX_BLOCKS {
            return None;
        }
    }
    at += 1;
    let mut copies = Vec::new();
    for (offset, length) in headers {
        if payload.len() < at + length {
            return None;
        }
        if length > 0 && offset > 0 {
            copies.push(Copy { offset, payload: payload.slice(at..at + length) });
        }
        at += length;
    }
    copies.sort_by_key(|copy| copy.offset);
    Some((payload.slice(at..), copies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_from_the_packets_own_payload() {
        let packet =
            Bytes::from_static(&[0x80 | 111, 0x1e, 0x00, 2, 0x80 | 111, 0x0f, 0x00, 1, 111, 1, 2, 3, 4, 5]);
        let (own, copies) = unpack(&packet).unwrap();
        assert_eq!(&own[..], [4, 5]);
        assert_eq!(copies[0], Copy { offset: 960, payload: Bytes::from_static(&[3]) });
        assert_eq!(copies[1], Copy { offset: 1920, payload: Bytes::from_static(&[1, 2]) });
        let plain = unpack(&Bytes::from_static(&[111, 7])).unwrap();
        assert_eq!((&plain.0[..], plain.1.len()), (&[7][..], 0));
        for cut in 0..11 {
            let _ = unpack(&packet.slice(..cut));
        }
        assert_eq!(unpack(&Bytes::new()), None);
        assert_eq!(unpack(&Bytes::from_static(&[0xff; 64])), None, "headers without end");
    }
}
