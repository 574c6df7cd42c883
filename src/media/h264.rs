//! H.264 as files hold it (ISO/IEC 14496-15): NAL units behind their lengths, the parameter sets in a
//! configuration record (avcC). Encoders also write Annex B: NAL units behind start codes.

use bytes::Bytes;

/// Bytes of a length: what [`to_length_prefixed`] writes and [`config`] says.
const LENGTH: usize = 4;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Whether a frame is in Annex B. A length of 256 to 511 looks like a start code too, so lengths that
/// lead to the frame's very end come first.
pub fn is_annex_b(frame: &[u8]) -> bool {
    let begins = frame.starts_with(&[0, 0, 1]) || frame.starts_with(&[0, 0, 0, 1]);
    begins && !is_length_prefixed(frame)
}

fn is_length_prefixed(frame: &[u8]) -> bool {
    let mut at = 0;
    while at < frame.len() {
        let Some(length) = frame.get(at..at + LENGTH) else { return false };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        at += LENGTH + length;
    }
    at == frame.len()
}

/// The NAL units of a frame in Annex B.
pub fn nal_units(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(frame);
    std::iter::from_fn(move || {
        loop {
            let unit = rest?;
            let end = unit.windows(3).position(|window| window == [0, 0, 1]);
            rest = end.map(|end| &unit[end + 3..]);
            let unit = &unit[..end.unwrap_or(unit.len())];
            // Zeros before a start code belong to it; a NAL unit ends with a bit that is set.
            let len = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if len > 0 {
                return Some(&unit[..len]);
            }
        }
    })
}

fn after_start_code(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.windows(3).position(|window| window == [0, 0, 1])?;
    Some(&bytes[at + 3..])
}

/// The same frame with lengths in place of start codes. Parameter sets stay in it, so that pictures
/// of another size can follow.
pub fn to_length_prefixed(frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + 16);
    nal_units(frame).for_each(|unit| put(&mut out, unit));
    out
}

fn put(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&(unit.len() as u32).to_be_bytes());
    out.extend_from_slice(unit);
}

/// The configuration record of a frame in Annex B that brings its parameter sets; `None` if it brings
/// none. For the High profiles it says 4:2:0 of 8 bits, which is all that browsers encode.
pub fn config(frame: &[u8]) -> Option<Bytes> {
    let of = |kind| nal_units(frame).find(|unit| unit[0] & 0x1f == kind && unit.len() <= 0xffff);
    let (sps, pps) = (of(SPS).filter(|sps| sps.len() >= 4)?, of(PPS)?);
    let mut out = vec![1, sps[1], sps[2], sps[3], 0xfc | (LENGTH as u8 - 1)];
    for (count, unit) in [(0xe0 | 1, sps), (1, pps)] {
        out.push(count);
        out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
        out.extend_from_slice(unit);
    }
    if matches!(sps[1], 100 | 110 | 122 | 144) {
        out.extend_from_slice(&[0xfc | 1, 0xf8, 0xf8, 0]);
    }
    Some(out.into())
}

/// Whether frames of both configuration records can stand in one track: each length has as many bytes.
pub fn goes_with(one: &[u8], other: &[u8]) -> bool {
    matches!((one.get(4), other.get(4)), (Some(one), Some(other)) if one & 3 == other & 3)
}

/// Whether pictures may be sent in another order than they are shown in (B-frames): the Baseline profile
/// has none (ITU-T H.264 section A.2.1).
pub fn reorders(config: &[u8]) -> bool {
    const BASELINE: u8 = 66;
    config.get(1) != Some(&BASELINE)
}

/// The parameter sets of a configuration record, as NAL units that can stand before a keyframe.
pub fn parameter_sets(config: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let length = config.get(4).map_or(LENGTH, |byte| usize::from(byte & 3) + 1);
    let mut at = 5;
    for mask in [0x1f, 0xff] {
        let Some(count) = config.get(at).map(|count| count & mask) else { return out };
        at += 1;
        for _ in 0..count {
            let Some(size) = config.get(at..at + 2) else { return out };
            let size = usize::from(u16::from_be_bytes([size[0], size[1]]));
            let Some(unit) = config.get(at + 2..at + 2 + size) else { return out };
            out.extend_from_slice(&(size as u32).to_be_bytes()[4 - length..]);
            out.extend_from_slice(unit);
            at += 2 + size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS_UNIT: [u8; 5] = [0x67, 0x42, 0xc0, 0x1e, 0xd9];
    const PPS_UNIT: [u8; 3] = [0x68, 0xce, 0x38];

    #[test]
    fn start_codes_become_lengths_and_parameter_sets_a_record() {
        let mut frame = vec![0, 0, 0, 1];
        frame.extend(SPS_UNIT);
        frame.extend([0, 0, 0, 1]);
        frame.extend(PPS_UNIT);
        frame.extend([0, 0, 1, 0x65, 0, 0, 3, 1, 0, 0]);
        let units: Vec<_> = nal_units(&frame).collect();
        assert_eq!(units, [&SPS_UNIT[..], &PPS_UNIT, &[0x65, 0, 0, 3, 1]]);
        let framed = to_length_prefixed(&frame);
        assert_eq!(framed.len(), 4 * 3 + 5 + 3 + 5);
        assert_eq!(framed[..4], [0, 0, 0, 5]);
        let config = config(&frame).unwrap();
        assert_eq!(config[..6], [1, 0x42, 0xc0, 0x1e, 0xff, 0xe1]);
        assert_eq!(parameter_sets(&config), framed[..16]);
        assert!(goes_with(&config, &config) && !goes_with(&config, &[1, 0, 0, 0, 0xfd]));
    }

    #[test]
    fn what_is_cut_off_or_no_annex_b_is_told() {
        assert!(!is_annex_b(&[0, 0, 0, 9, 0x65]) && is_annex_b(&[0, 0, 1, 0x65]));
        let mut long = vec![0, 0, 1, 0];
        long.extend([0x65; 256]);
        assert!(!is_annex_b(&long), "256 bytes behind their length");
        assert_eq!(config(&[0, 0, 1, 0x65, 1]), None);
        assert_eq!(nal_units(&[]).count() + nal_units(&[0, 0, 1]).count(), 0);
        for len in 0..12 {
            parameter_sets(&[1, 66, 0, 30, 0xff, 0xe1, 0, 5, 0x67, 1, 2, 3][..len]);
        }
    }
}
