//! Opus packets (RFC 6716 section 3), and the header that stands before them in files (RFC 7845).

use bytes::Bytes;
use std::time::Duration;

/// The identification header of RFC 7845 section 5.1. `pre_skip` samples at 48 kHz are to be cut off
/// the start: 0 for a recording that begins in the middle of a running encoder.
pub fn head(channels: u8, pre_skip: u16) -> Bytes {
    let mut out = b"OpusHead\x01".to_vec();
    out.push(channels);
    out.extend_from_slice(&pre_skip.to_le_bytes());
    out.extend_from_slice(&48_000u32.to_le_bytes());
    out.extend_from_slice(&0i16.to_le_bytes());
    out.push(0);
    out.into()
}

/// The samples at 48 kHz that an identification header says to cut off; 0 if it is none.
pub fn pre_skip(head: &[u8]) -> u16 {
    let field = head.starts_with(b"OpusHead").then(|| head.get(10..12)).flatten();
    field.map_or(0, |field| u16::from_le_bytes([field[0], field[1]]))
}

/// Whether both headers have sound played equally loud (output gain, Q7.8 in dB); none has no gain.
pub fn sounds_alike(one: &[u8], other: &[u8]) -> bool {
    let gain = |head: &[u8]| {
        let field = head.starts_with(b"OpusHead").then(|| head.get(16..18)).flatten();
        field.map_or(0, |field| i16::from_le_bytes([field[0], field[1]]))
    };
    gain(one) == gain(other)
}

/// How long that is: Matroska's CodecDelay.
pub fn delay(head: &[u8]) -> Duration {
    Duration::from_nanos(u64::from(pre_skip(head)) * 1_000_000_000 / 48_000)
}

/// How long a packet sounds, from its table-of-contents byte and frame count; `None` if it is no
/// valid packet (empty, no frame, or over 120 ms).
pub fn duration(packet: &[u8]) -> Option<Duration> {
    let toc = *packet.first()?;
    // Microseconds of one frame, by configuration number (RFC 6716 table 2).
    let frame = match toc >> 3 {
        config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][config as usize & 3],
        config @ 12..=15 => [10_000, 20_000][config as usize & 1],
        config => [2_500, 5_000, 10_000, 20_000][config as usize & 3],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    let micros = frame * frames;
    (1..=120_000).contains(&micros).then(|| Duration::from_micros(micros))
}

/// Whether a packet is of two channels.
pub fn is_stereo(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc & 0x04 != 0)
}

/// A packet that sounds `length` of nothing: CELT at full band, whose frames say with their first bit that
/// they are silent. A length that packets can't have (RFC 6716 section 3.2.5) becomes 20 ms.
pub fn silence(length: Duration, stereo: bool) -> Bytes {
    const FRAME: [u8; 2] = [0xff, 0xfe];
    // Configurations 28 to 31 of RFC 6716 table 2, the longest first.
    let sizes = [(31, 20_000), (30, 10_000), (29, 5_000), (28, 2_500)];
    let micros = length.as_micros() as u64;
    let fits = |(_, frame): &(u8, u64)| (1..=120_000).contains(&micros) && micros.is_multiple_of(*frame);
    let (config, count) =
        sizes.into_iter().find(fits).map_or((31, 1), |(config, frame)| (config, micros / frame));
    let toc = config << 3 | u8::from(stereo) << 2;
    let mut packet = if count == 1 { vec![toc] } else { vec![toc | 3, count as u8] };
    packet.extend(FRAME.repeat(count as usize));
    packet.into()
}

/// A packet of 10 ms that is a frame without a byte (RFC 6716 section 3.1, code 0): lost, so that a decoder
/// makes up what is between the sound before it and behind it. Silence there would be heard: a tenth of a
/// second passes until CELT is as loud as before, which codes loudness by its differences.
pub fn concealment(stereo: bool) -> Bytes {
    vec![30 << 3 | u8::from(stereo) << 2].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_how_long_it_sounds() {
        let ms = |packet: &[u8]| duration(packet).map(|d| d.as_micros() as f64 / 1000.0);
        assert_eq!(ms(&[0x78]), Some(20.0), "hybrid fullband, one frame");
        assert_eq!(ms(&[0xe0]), Some(2.5), "CELT, the shortest");
        assert_eq!(ms(&[0x18]), Some(60.0), "SILK, the longest frame");
        assert_eq!(ms(&[0xfb, 3]), Some(60.0), "three frames of 20 ms");
        assert_eq!(ms(&[]), None);
        assert_eq!(ms(&[0xfb]), None, "frame count is missing");
        assert_eq!(ms(&[0xfb, 0]), None, "no frame");
        assert_eq!(ms(&[0x1b, 3]), None, "180 ms");
    }

    #[test]
    fn silence_is_as_long_and_as_wide_as_the_stream() {
        let micros = |length| Duration::from_micros(length);
        assert_eq!(silence(micros(20_000), true), [0xfc, 0xff, 0xfe][..]);
        assert_eq!(silence(micros(20_000), false), [0xf8, 0xff, 0xfe][..]);
        for length in [2_500, 5_000, 10_000, 20_000, 30_000, 40_000, 60_000, 120_000] {
            for stereo in [false, true] {
                let packet = silence(micros(length), stereo);
                assert_eq!((duration(&packet), is_stereo(&packet)), (Some(micros(length)), stereo));
            }
        }
        assert_eq!(silence(micros(7_000), true), silence(micros(20_000), true));
    }
}
