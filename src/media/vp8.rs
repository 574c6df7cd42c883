//! VP8 frames (RFC 6386 section 9.1).

use crate::media::Size;

/// Whether a frame is a keyframe: the lowest bit of the frame tag is 0.
pub fn is_keyframe(frame: &[u8]) -> bool {
    frame.first().is_some_and(|tag| tag & 1 == 0)
}

/// The picture size of a keyframe; `None` for other frames, for a wrong start code, or for a size
/// of zero.
pub fn size(frame: &[u8]) -> Option<Size> {
    if !is_keyframe(frame) || frame.get(3..6)? != [0x9d, 0x01, 0x2a] {
        return None;
    }
    // 14 bits each; the upper two are a scaling hint that decoders ignore.
    let side =
        |at: usize| Some(u32::from(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]) & 0x3fff));
    let (width, height) = (side(6)?, side(8)?);
    (width > 0 && height > 0).then_some(Size { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_tells_its_size() {
        let key = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0x68, 0x01];
        assert!(is_keyframe(&key));
        assert_eq!(
            size(&key),
            Some(Size { width: 640, height: 360 }),
            "the scaling hint is not part of the width"
        );
        assert_eq!(size(&key[..9]), None);
        assert_eq!(size(&[0x11, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1]), None, "an inter frame");
        assert_eq!(size(&[0x10, 0, 0, 0, 0, 0, 0x80, 2, 0x68, 1]), None, "no start code");
        assert!(!is_keyframe(&[]));
    }
}
