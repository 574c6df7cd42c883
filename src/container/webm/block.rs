//! Blocks out of bytes: SimpleBlock and BlockGroup, with lacing (RFC 9559 sections 10.2 to 10.4).

use crate::container::webm::ebml::{child, children, id, is_well_formed, read_uint};
use std::ops::Range;

/// A block as it stands in a file.
#[derive(Clone, Debug)]
pub struct StoredBlock<'a> {
    /// Its TrackNumber.
    pub track: u64,
    /// Its time in ticks of the Segment's TimestampScale; a block may lie before its cluster.
    pub time: i128,
    /// Can be decoded without any other block.
    pub keyframe: bool,
    /// A player may leave it out; in our files it fills a hole of sound.
    pub discardable: bool,
    /// BlockDuration, in ticks.
    pub duration: Option<u64>,
    /// It carries BlockAdditions: an alpha channel, for example.
    pub has_additions: bool,
    /// Its BlockAdditions and DiscardPadding, as they are.
    pub side_data: Vec<u8>,
    /// The whole element in the file.
    pub at: Range<u64>,
    pub(super) bytes: &'a [u8],
    pub(super) laces: Vec<Range<usize>>,
}

impl<'a> StoredBlock<'a> {
    /// Its frames: one, unless it is laced.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let bytes = self.bytes;
        self.laces.iter().map(move |lace| &bytes[lace.clone()])
    }
}

/// Whether what stands beside a block has BlockAdditions.
pub(super) fn has_additions(side_data: &[u8]) -> bool {
    child(side_data, id::BLOCK_ADDITIONS).is_some()
}

/// A block's fields, with ranges in its element's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedBlock {
    pub track: u64,
    pub offset: i16,
    pub keyframe: bool,
    pub discardable: bool,
    pub duration: Option<u64>,
    pub has_additions: bool,
    pub side_data: Vec<u8>,
    pub laces: Vec<Range<usize>>,
}

/// Reads a SimpleBlock's payload; `None` if it is none.
pub(super) fn simple(payload: &[u8]) -> Option<ParsedBlock> {
    let track_len = payload.first()?.leading_zeros() as usize + 1;
    let track = vint(payload, 0)?;
    let (high, low, flags) =
        (*payload.get(track_len)?, *payload.get(track_len + 1)?, *payload.get(track_len + 2)?);
    let laces = laces(payload, track_len + 3, flags >> 1 & 3)?;
    Some(ParsedBlock {
        track,
        offset: i16::from_be_bytes([high, low]),
        keyframe: flags & 0x80 != 0,
        discardable: flags & 0x01 != 0,
        duration: None,
        has_additions: false,
        side_data: Vec::new(),
        laces,
    })
}

/// Reads a BlockGroup's payload; a block that refers to no other is a keyframe.
pub(super) fn group(payload: &[u8]) -> Option<ParsedBlock> {
    let (mut block, mut refers, mut duration, mut has_additions, mut end) = (None, false, None, false, 0);
    let mut side_data = Vec::new();
    for child in children(payload) {
        end = child.at.end;
        match child.id {
            id::BLOCK => block = Some((simple(child.payload)?, child.at.end - child.payload.len())),
            id::REFERENCE_BLOCK => refers = true,
            id::BLOCK_DURATION => duration = read_uint(child.payload),
            id::BLOCK_ADDITIONS => {
                has_additions = true;
                if is_well_formed(child.payload) {
                    side_data.extend_from_slice(&payload[child.at]);
                }
            }
            id::DISCARD_PADDING if child.payload.len() <= 8 => {
                side_data.extend_from_slice(&payload[child.at]);
            }
            _ => {}
        }
    }
    let (block, shift) = block.filter(|_| end == payload.len())?;
    let laces = block.laces.into_iter().map(|lace| lace.start + shift..lace.end + shift).collect();
    Some(ParsedBlock {
        keyframe: !refers,
        discardable: false,
        duration,
        has_additions,
        side_data,
        laces,
        ..block
    })
}

fn laces(payload: &[u8], data_at: usize, lacing: u8) -> Option<Vec<Range<usize>>> {
    if lacing == 0 {
        return Some(std::iter::once(data_at..payload.len()).collect());
    }
    let count = usize::from(*payload.get(data_at)?) + 1;
    let mut at = data_at + 1;
    let mut sizes = Vec::with_capacity(count);
    match lacing {
        1 => {
            for _ in 1..count {
                let mut size = 0;
                loop {
                    let byte = *payload.get(at)?;
                    at += 1;
                    size += usize::from(byte);
                    if byte < 255 {
                        break;
                    }
                }
                sizes.push(size);
            }
        }
        3 if count > 1 => {
            let mut size = i64::try_from(vint(payload, at)?).ok()?;
            at += vint_len(payload, at)?;
            sizes.push(usize::try_from(size).ok()?);
            for _ in 2..count {
                let len = vint_len(payload, at)?;
                let bias = (1i64 << (7 * len - 1)) - 1;
                size = size.checked_add(i64::try_from(vint(payload, at)?).ok()? - bias)?;
                at += len;
                sizes.push(usize::try_from(size).ok()?);
            }
        }
        2 => {
            let rest = payload.len() - at;
            if !rest.is_multiple_of(count) {
                return None;
            }
            sizes.resize(count - 1, rest / count);
        }
        _ => {}
    }
    let mut laces = Vec::with_capacity(count);
    for size in sizes {
        let end = at.checked_add(size).filter(|end| *end <= payload.len())?;
        laces.push(at..end);
        at = end;
    }
    laces.push(at..payload.len());
    Some(laces)
}

fn vint_len(payload: &[u8], at: usize) -> Option<usize> {
    let len = payload.get(at)?.leading_zeros() as usize + 1;
    (len <= 8).then_some(len)
}

/// A variable-size integer without its marker.
fn vint(payload: &[u8], at: usize) -> Option<u64> {
    let len = vint_len(payload, at)?;
    let value = read_uint(payload.get(at..at + len)?)?;
    Some(value & ((1u64 << (7 * len)) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payload: &[u8]) -> Option<Vec<&[u8]>> {
        let parts = simple(payload)?;
        Some(parts.laces.iter().map(|lace| &payload[lace.clone()]).collect())
    }

    #[test]
    fn each_way_of_lacing_is_undone() {
        let none = [0x81, 0xff, 0xfe, 0x80, 1, 2, 3];
        assert_eq!(frames(&none).unwrap(), [&[1, 2, 3][..]]);
        let parts = simple(&none).unwrap();
        assert_eq!((parts.track, parts.offset, parts.keyframe), (1, -2, true));
        let mut xiph = vec![0x81, 0, 0, 0x02, 2, 255, 1, 2];
        xiph.extend([7; 256]);
        xiph.extend([8, 8, 9]);
        assert_eq!(frames(&xiph).unwrap(), [&[7; 256][..], &[8, 8], &[9]]);
        let fixed = [0x81, 0, 0, 0x04, 1, 1, 2, 3, 4];
        assert_eq!(frames(&fixed).unwrap(), [&[1, 2][..], &[3, 4]]);
        // Sizes 3, then 3 - 1, then what is left.
        let ebml = [0x81, 0, 0, 0x06, 2, 0x83, 0xbe, 1, 2, 3, 4, 5, 6];
        assert_eq!(frames(&ebml).unwrap(), [&[1, 2, 3][..], &[4, 5], &[6]]);
        assert_eq!(frames(&[0x81, 0, 0, 0x06, 0, 5]).unwrap(), [&[5][..]], "one frame has no sizes");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bad in [
            &[][..],
            &[0x81],
            &[0x81, 0, 0],
            &[0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x81, 0, 0, 0x02],
            &[0x81, 0, 0, 0x02, 1, 9, 1],
            &[0x81, 0, 0, 0x04, 1, 1, 2, 3],
            &[0x81, 0, 0, 0x06, 2, 0x81, 0x81, 1],
        ] {
            assert_eq!(frames(bad), None, "{bad:02x?}");
        }
        assert_eq!(group(&[0xa1, 0x85, 0x81, 0, 0, 0, 1, 0xfb]), None, "a child that is cut off");
        assert_eq!(group(&[0x9b, 0x81, 5]), None, "no block");
    }

    #[test]
    fn a_group_tells_what_a_simple_block_cannot() {
        let group =
            group(&[0xa1, 0x85, 0x82, 0, 3, 0, 1, 0x9b, 0x81, 20, 0xfb, 0x81, 0xff, 0x75, 0xa1, 0x80])
                .unwrap();
        assert_eq!((group.track, group.offset, group.keyframe), (2, 3, false));
        assert_eq!((group.duration, group.has_additions), (Some(20), true));
        assert_eq!(group.side_data, [0x75, 0xa1, 0x80]);
        assert_eq!((group.laces.len(), group.laces[0].clone()), (1, 6..7));
    }
}
