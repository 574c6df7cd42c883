//! VP9 frames (VP9 bitstream specification 0.6, section 6.2: the uncompressed header).

use crate::media::Size;

/// The picture size of a keyframe; `None` for other frames, and for what is no VP9.
pub fn size(frame: &[u8]) -> Option<Size> {
    let mut bits = Bits { bytes: frame, at: 0 };
    if bits.take(2)? != 0b10 {
        return None;
    }
    let profile = bits.take(1)? | bits.take(1)? << 1;
    if profile == 3 {
        bits.take(1)?;
    }
    let (shows_another, inter) = (bits.take(1)? == 1, bits.take(1)? == 1);
    if shows_another || inter {
        return None;
    }
    let _shown_and_resilient = bits.take(2)?;
    if bits.take(24)? != 0x49_83_42 {
        return None;
    }
    if profile >= 2 {
        bits.take(1)?; // Ten or twelve bits.
    }
    const SRGB: u32 = 7;
    if bits.take(3)? != SRGB {
        bits.take(1)?; // Range.
        if profile & 1 == 1 {
            bits.take(3)?; // Subsampling.
        }
    } else if profile & 1 == 1 {
        bits.take(1)?;
    }
    let (width, height) = (bits.take(16)? + 1, bits.take(16)? + 1);
    Some(Size { width, height })
}

/// Reads the most significant bit first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_tells_its_size() {
        // Profile 0, shown, BT.601, 320x240: the first bytes of what libvpx writes.
        let key = [0x82, 0x49, 0x83, 0x42, 0x20, 0x13, 0xf0, 0x0e, 0xf0];
        assert_eq!(size(&key), Some(Size { width: 320, height: 240 }));
        assert_eq!(size(&key[..8]), None, "cut off");
        assert_eq!(size(&[0x86, 0x49, 0x83, 0x42, 0x20, 0x13, 0xf0, 0x0e, 0xf0]), None, "an inter frame");
        assert_eq!(size(&[0x82, 0x49, 0x83, 0x43, 0x20, 0x13, 0xf0, 0x0e, 0xf0]), None, "no sync code");
        assert_eq!(size(&[0; 16]), None);
    }
}
