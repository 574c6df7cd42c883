//! An uploaded image: refused, or whole up to an end of its own.

use onrecord::media::jpeg::measure;

pub fn run(data: &[u8]) {
    let Ok((length, size)) = measure(data) else { return };
    assert!(length <= data.len() && data[..length].ends_with(&[0xff, 0xd9]));
    assert!(size.width > 0 && size.height > 0, "{size:?}");
    assert_eq!(measure(&data[..length]), Ok((length, size)), "it is whole by itself");
}
