//! JPEG images (ITU-T T.81): whether one is whole, and how large its picture is.

use crate::media::Size;
use std::ops::Range;

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    /// Nothing at all.
    #[error("the body is empty: send one JPEG image")]
    Empty,
    /// No start of image, or no marker where one has to be.
    #[error("this is no JPEG image: it has to begin with FF D8 and go on as ITU-T T.81 says")]
    NotJpeg,
    /// It ends before its end marker.
    #[error("the image is cut off: it has to end with FF D9")]
    Truncated,
    /// Lossless, hierarchical or arithmetic coding, which no browser shows, or no size in its header.
    #[error("this kind of JPEG is shown nowhere: send a baseline or progressive one that tells its size")]
    Unusual,
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP2: u8 = 0xe2;

/// All whole images that stand one behind the other: where each is, and how large its picture. What follows the
/// last is none of them. The first has to be whole; of a photograph that says (CIPA DC-007) that a preview or a
/// depth map of itself follows, it is the only one.
pub fn images(body: &[u8]) -> Result<Vec<(Range<usize>, Size)>, BadImage> {
    let (length, size) = measure(body)?;
    let mut all = vec![(0..length, size)];
    let mut at = if has_parts(body) { body.len() } else { length };
    while let Ok((length, size)) = measure(&body[at..]) {
        all.push((at..at + length, size));
        at += length;
    }
    Ok(all)
}

/// Whether an image's header has the index of a Multi-Picture file.
fn has_parts(image: &[u8]) -> bool {
    let mut at = 2;
    while let Ok((marker, behind)) = next_marker(image, at)
        && marker != SOS
        && let Ok(payload) = segment(image, behind)
    {
        if marker == APP2 && payload.starts_with(b"MPF\0") {
            return true;
        }
        at = behind + 2 + payload.len();
    }
    false
}

/// A whole image's length (what follows its end marker is none of it) and picture size.
pub fn measure(image: &[u8]) -> Result<(usize, Size), BadImage> {
    match image {
        [] => return Err(BadImage::Empty),
        [0xff] | [0xff, SOI] => return Err(BadImage::Truncated),
        [0xff, SOI, ..] => {}
        _ => return Err(BadImage::NotJpeg),
    }
    let (mut at, mut size, mut scanned) = (2, None, false);
    loop {
        let marker;
        (marker, at) = next_marker(image, at)?;
        match marker {
            EOI if scanned => return Ok((at, size.ok_or(BadImage::Unusual)?)),
            // Baseline, extended sequential, progressive: all with Huffman coding.
            0xc0..=0xc2 => size = Some(frame_size(segment(image, at)?)?),
            // The other frame headers; C4, C8 and CC among them are none.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Err(BadImage::Unusual),
            // What has no length can't stand here.
            0x00 | 0x01 | 0xd0..=EOI => return Err(BadImage::NotJpeg),
            _ => {}
        }
        at += 2 + segment(image, at)?.len();
        if marker == SOS {
            scanned = true;
            at = behind_scan(image, at)?;
        }
    }
}

/// The marker at `at`, fill bytes before it skipped, and where it ends.
fn next_marker(image: &[u8], at: usize) -> Result<(u8, usize), BadImage> {
    match image.get(at) {
        None => return Err(BadImage::Truncated),
        Some(0xff) => {}
        Some(_) => return Err(BadImage::NotJpeg),
    }
    let fill = image[at..].iter().take_while(|byte| **byte == 0xff).count();
    let marker = image.get(at + fill).ok_or(BadImage::Truncated)?;
    Ok((*marker, at + fill + 1))
}

/// What a marker's segment holds, behind the two bytes of its length.
fn segment(image: &[u8], at: usize) -> Result<&[u8], BadImage> {
    let length = image.get(at..at + 2).ok_or(BadImage::Truncated)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(BadImage::NotJpeg);
    }
    image.get(at + 2..at + length).ok_or(BadImage::Truncated)
}

fn frame_size(header: &[u8]) -> Result<Size, BadImage> {
    let [_precision, h1, h0, w1, w0, ..] = header else { return Err(BadImage::NotJpeg) };
    let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
    // Zero lines: the number follows the first scan, which encoders write no more.
    if width == 0 || height == 0 {
        return Err(BadImage::Unusual);
    }
    Ok(Size { width: width.into(), height: height.into() })
}

/// Where the entropy-coded data that begins at `at` ends: before the first marker that is neither a
/// stuffed FF nor a restart.
fn behind_scan(image: &[u8], mut at: usize) -> Result<usize, BadImage> {
    loop {
        let rest = image.get(at..).ok_or(BadImage::Truncated)?;
        at += rest.iter().position(|byte| *byte == 0xff).ok_or(BadImage::Truncated)?;
        match image.get(at + 1).ok_or(BadImage::Truncated)? {
            0x00 | 0xd0..=0xd7 => at += 2,
            0xff => at += 1,
            _ => return Ok(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start, a comment, a frame header of this kind and size, a scan with a stuffed FF and a restart.
    fn image(frame: u8, width: u16, height: u16) -> Vec<u8> {
        let mut image = vec![0xff, SOI, 0xff, 0xfe, 0, 4, EOI, 0xff, 0xff, 0xff, frame, 0, 11, 8];
        image.extend(height.to_be_bytes());
        image.extend(width.to_be_bytes());
        image.extend([1, 1, 0x11, 0]);
        image.extend([0xff, SOS, 0, 8, 1, 1, 0, 0, 63, 0, 1, 0xff, 0x00, 2, 0xff, 0xd0, 3]);
        image.extend([0xff, EOI]);
        image
    }

    #[test]
    fn a_whole_image_tells_its_size_and_where_it_ends() {
        let size = Size { width: 1280, height: 720 };
        for frame in [0xc0, 0xc1, 0xc2] {
            let image = image(frame, 1280, 720);
            assert_eq!(measure(&image), Ok((image.len(), size)), "{frame:x}");
            let padded = [image.as_slice(), &[0; 100]].concat();
            assert_eq!(measure(&padded), Ok((image.len(), size)), "what follows is no part of it");
        }
    }

    #[test]
    fn images_behind_each_other_are_all_found_and_the_parts_of_a_photograph_are_none() {
        let (one, two) = (image(0xc0, 64, 48), image(0xc2, 32, 24));
        let sizes = |body: &[u8]| -> Vec<_> {
            let found = images(body).unwrap();
            found.into_iter().map(|(at, size)| (body[at].to_vec(), size.width)).collect()
        };
        let both = [one.as_slice(), &two].concat();
        assert_eq!(sizes(&both), [(one.clone(), 64), (two.clone(), 32)]);
        assert_eq!(sizes(&[both.as_slice(), &[0; 9]].concat()).len(), 2, "padding");
        assert_eq!(sizes(&both[..both.len() - 1]), [(one.clone(), 64)], "the second is cut off");
        let index = [&[0xff, SOI, 0xff, APP2, 0, 6][..], b"MPF\0", &one[2..]].concat();
        assert_eq!(sizes(&[index.as_slice(), &two].concat()), [(index, 64)]);
        assert_eq!(images(&both[1..]), Err(BadImage::NotJpeg));
    }

    #[test]
    fn an_image_cut_off_anywhere_is_not_whole() {
        let image = image(0xc0, 64, 48);
        for length in 1..image.len() {
            assert_eq!(measure(&image[..length]), Err(BadImage::Truncated), "{length} bytes");
        }
        assert_eq!(measure(&[]), Err(BadImage::Empty));
    }

    #[test]
    fn what_is_no_usable_jpeg_is_refused() {
        assert_eq!(measure(b"\x89PNG\r\n\x1a\n"), Err(BadImage::NotJpeg));
        assert_eq!(measure(b"--frame\r\n"), Err(BadImage::NotJpeg));
        assert_eq!(measure(&[0xff, SOI, 0xff, EOI]), Err(BadImage::NotJpeg), "an image without a picture");
        assert_eq!(measure(&[0xff, SOI, 0xff, 0xfe, 0, 1, 0]), Err(BadImage::NotJpeg), "a length below 2");
        assert_eq!(measure(&image(0xc3, 64, 48)), Err(BadImage::Unusual), "lossless");
        assert_eq!(measure(&image(0xc9, 64, 48)), Err(BadImage::Unusual), "arithmetic");
        assert_eq!(measure(&image(0xc0, 64, 0)), Err(BadImage::Unusual));
    }

    proptest::proptest! {
        #[test]
        fn rubbish_never_panics(rubbish: Vec<u8>) {
            let _ = measure(&rubbish);
            let _ = images(&[&[0xff, SOI], rubbish.as_slice()].concat());
        }
    }
}
