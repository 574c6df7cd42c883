//! MP4 as it comes: what of it is whole doesn't depend on the pieces, and is whole by itself.

use onrecord::media::mp4::Walker;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let Some((split, file)) = data.split_first() else { return };
    let walked = |pieces: usize, file: &[u8]| {
        let mut walker = Walker::default();
        file.chunks(pieces.max(1)).for_each(|piece| walker.push(piece));
        assert_eq!(walker.len(), file.len() as u64);
        assert!(walker.whole() <= walker.len());
        assert!(walker.duration() < Duration::MAX);
        walker
    };
    let told = |walker: &Walker| {
        let state = (walker.whole(), walker.is_broken(), walker.has_media(), walker.duration());
        (state, walker.tracks().to_vec())
    };
    let whole = walked(file.len(), file);
    assert_eq!(told(&walked(usize::from(*split), file)), told(&whole));
    let cut = walked(file.len(), &file[..whole.whole() as usize]);
    assert_eq!((cut.whole(), cut.is_broken()), (whole.whole(), false), "what is kept is no whole file");
}
