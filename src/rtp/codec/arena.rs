//! Memory that frames are put together in. A packet is copied once, from where it was received to where its frame
//! lies; frames are slices of larger pieces, which are used again once all frames in them are gone.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Pieces that may be used again: some seconds of frames, until the recorder has written them.
const MAX_SPENT: usize = 16;

/// Frames of one track, one after the other.
#[derive(Debug)]
pub(super) struct Arena {
    /// A piece's size; a larger frame has one of its own.
    piece: usize,
    /// The frame under way, at the front of what is left of its piece.
    frame: BytesMut,
    /// Pieces that are full, the oldest first.
    spent: VecDeque<BytesMut>,
}

impl Arena {
    pub fn new(piece: usize) -> Self {
        Self { piece, frame: BytesMut::new(), spent: VecDeque::new() }
    }

    /// A frame begins; what there is of one that was not finished is forgotten.
    pub fn begin(&mut self) {
        self.frame.clear();
    }

    /// More of the frame.
    pub fn push(&mut self, data: &[u8]) {
        if self.frame.capacity() - self.frame.len() < data.len() {
            self.turn_over(data.len());
        }
        self.frame.extend_from_slice(data);
    }

    /// Bytes of the frame so far.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// The frame is whole.
    pub fn finish(&mut self) -> Bytes {
        self.frame.split().freeze()
    }

    /// Goes over to another piece, with what there is of the frame, and room for so many bytes more.
    fn turn_over(&mut self, more: usize) {
        let needed = self.frame.len() + more;
        let free = self.spent.front_mut().is_some_and(|oldest| oldest.try_reclaim(needed));
        let mut next = match free.then(|| self.spent.pop_front()).flatten() {
            Some(oldest) => oldest,
            // A frame that outgrows its piece goes on doing so: half as much again spares most of the copies.
            None => BytesMut::with_capacity(self.piece.max(needed + needed / 2)),
        };
        next.extend_from_slice(&self.frame);
        let mut full = std::mem::replace(&mut self.frame, next);
        full.clear();
        // A piece of an unusual size is not kept.
        if full.capacity() > 0 && self.spent.len() < MAX_SPENT {
            self.spent.push_back(full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a frame of so many bytes, in packets.
    fn frame(arena: &mut Arena, number: u8, bytes: usize) -> Bytes {
        arena.begin();
        for packet in vec![number; bytes].chunks(100) {
            arena.push(packet);
        }
        arena.finish()
    }

    #[test]
    fn frames_that_are_kept_stay_as_they_were_and_their_memory_is_used_again() {
        let mut arena = Arena::new(1000);
        let mut kept = VecDeque::new();
        let mut places = std::collections::HashSet::new();
        for round in 0..10_000_usize {
            let (number, bytes) = ((round % 251) as u8, 1 + round * 37 % 700);
            let made = frame(&mut arena, number, bytes);
            assert_eq!((made.len(), arena.len()), (bytes, 0));
            places.insert(made.as_ptr() as usize / 1000);
            kept.push_back((number, made));
            if kept.len() > 8 {
                let (number, oldest) = kept.pop_front().unwrap();
                assert!(oldest.iter().all(|byte| *byte == number), "frame {round} was written over");
            }
        }
        println!("{} places", places.len());
        assert!(places.len() < 60, "{} places", places.len());
        assert!(arena.spent.len() <= MAX_SPENT);
    }

    #[test]
    fn what_is_not_finished_is_forgotten_and_a_large_frame_is_whole() {
        let mut arena = Arena::new(1000);
        arena.push(&[9; 500]);
        assert_eq!(frame(&mut arena, 1, 100_000), vec![1; 100_000]);
        arena.push(&[9]);
        assert_eq!(frame(&mut arena, 2, 3), [2, 2, 2][..]);
    }
}
