//! What a TCP connection brings: the same frames however it comes, each as long as a datagram may be.

use onrecord::fuzzing;

/// The first byte says in parts of which length the others come.
pub fn run(data: &[u8]) {
    let Some((&length, stream)) = data.split_first() else { return };
    let (frames, cut) = fuzzing::frames([stream].into_iter());
    assert_eq!(fuzzing::frames(stream.chunks(usize::from(length) + 1)), (frames.clone(), cut));
    assert!(frames.iter().all(|frame| (1..=2048).contains(&frame.len())));
    let again: Vec<u8> =
        frames.iter().flat_map(|frame| [&(frame.len() as u16).to_be_bytes()[..], frame].concat()).collect();
    assert!(stream.starts_with(&again));
}
