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

/// The copies' headers: by how much each one's timestamp is smaller, and how long it is. 1 bit set, 7 of payload type,
/// 14 of offset, 10 of length; in the last header, the own payload's, the first bit is clear.
fn headers(payload: &[u8]) -> impl Iterator<Item = (u32, usize)> {
    payload.chunks_exact(4).take_while(|header| header[0] & 0x80 != 0).map(|header| {
        let [b, c, d] = [header[1], header[2], header[3]];
        (u32::from(b) << 6 | u32::from(c) >> 2, usize::from(c & 3) << 8 | usize::from(d))
    })
}

/// Where the copies begin, and where the own payload does; `None` if the packet is malformed.
fn blocks(payload: &[u8]) -> Option<(usize, usize)> {
    let (count, lengths) =
        headers(payload).fold((0, 0), |(count, lengths), (_, length)| (count + 1, lengths + length));
    let begin = 4 * count + 1;
    let own = begin + lengths;
    let ends = payload.get(4 * count).is_some_and(|header| header & 0x80 == 0);
    (ends && count <= MAX_BLOCKS && own <= payload.len()).then_some((begin, own))
}

/// The packet's own payload, which padding has none of; `None` if it is malformed.
pub(super) fn own_payload(payload: &[u8]) -> Option<&[u8]> {
    blocks(payload).map(|(_, own)| &payload[own..])
}

/// The copies in a packet, newest first; none if it is malformed.
pub(super) fn copies(payload: &[u8]) -> Vec<Copy> {
    let Some((mut at, _)) = blocks(payload) else { return Vec::new() };
    let mut copies = Vec::new();
    for (offset, length) in headers(payload) {
        if length > 0 && offset > 0 {
            copies.push(Copy { offset, payload: Bytes::copy_from_slice(&payload[at..at + length]) });
        }
        at += length;
    }
    copies.sort_by_key(|copy| copy.offset);
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_from_the_packets_own_payload() {
        let packet = [0x80 | 111, 0x1e, 0x00, 2, 0x80 | 111, 0x0f, 0x00, 1, 111, 1, 2, 3, 4, 5];
        assert_eq!(own_payload(&packet), Some(&[4, 5][..]));
        let copy = |offset, payload| Copy { offset, payload: Bytes::from_static(payload) };
        assert_eq!(copies(&packet), [copy(960, &[3]), copy(1920, &[1, 2])]);
        assert_eq!((own_payload(&[111, 7]), copies(&[111, 7])), (Some(&[7][..]), vec![]));
        for cut in 0..12 {
            assert_eq!((own_payload(&packet[..cut]), copies(&packet[..cut])), (None, vec![]), "cut at {cut}");
        }
        assert_eq!(own_payload(&[0xff; 64]), None, "headers without end");
    }
}
