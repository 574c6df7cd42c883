//! MP4 as it comes: what of it is whole doesn't depend on the pieces, and is whole by itself.

use onrecord::container::mp4::FragmentReader;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let Some((split, file)) = data.split_first() else { return };
    let walked = |pieces: usize, file: &[u8]| {
        let mut reader = FragmentReader::default();
        file.chunks(pieces.max(1)).for_each(|piece| reader.push(piece));
        assert_eq!(reader.len(), file.len() as u64);
        assert!(reader.whole() <= reader.len());
        assert!(reader.duration() < Duration::MAX);
        reader
    };
    let told = |reader: &FragmentReader| {
        let state = (reader.whole(), reader.is_broken(), reader.has_media(), reader.duration());
        (state, reader.tracks().to_vec())
    };
    let whole = walked(file.len(), file);
    assert_eq!(told(&walked(usize::from(*split), file)), told(&whole));
    let cut = walked(file.len(), &file[..whole.whole() as usize]);
    assert_eq!((cut.whole(), cut.is_broken()), (whole.whole(), false), "what is kept is no whole file");
}
