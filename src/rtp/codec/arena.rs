//! Memory that frames are put together in. A packet is copied once, from where it was received to where its frame
//! lies; frames are slices of larger pieces, which are used again once all frames in them are gone.

use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Pieces of one size that a thread keeps to be used again: a second of 150 publishers of 1.5 Mbit/s.
const MAX_SPENT: usize = 1024;
/// Pieces that are looked at for one that is free: whoever holds a frame for long holds its piece.
const LOOKS: usize = 4;
/// A piece that took a frame so many times its size is given back.
const UNUSUAL: usize = 4;

thread_local! {
    /// Pieces that are full, the oldest first, of all sessions of a thread: recordings don't write at the same time,
    /// so that together they need half of what each would have to keep for itself.
    static SPENT: RefCell<Vec<Spent>> = const { RefCell::new(Vec::new()) };
}

/// Pieces of one size, and larger ones that took larger frames.
struct Spent {
    piece: usize,
    pieces: VecDeque<BytesMut>,
}

impl Spent {
    /// What is there for pieces of this size.
    fn of<T>(piece: usize, act: impl FnOnce(&mut Self) -> T) -> T {
        SPENT.with_borrow_mut(|all| {
            let at = all.iter().position(|spent| spent.piece == piece).unwrap_or_else(|| {
                all.push(Self { piece, pieces: VecDeque::new() });
                all.len() - 1
            });
            act(&mut all[at])
        })
    }

    /// A piece with no frame in it, and room for so many bytes.
    fn take(&mut self, needed: usize) -> Option<BytesMut> {
        for _ in 0..LOOKS.min(self.pieces.len()) {
            let mut oldest = self.pieces.pop_front()?;
            if !oldest.try_reclaim(needed) {
                self.pieces.push_back(oldest);
            } else if oldest.capacity() < UNUSUAL * self.piece.max(needed) {
                return Some(oldest);
            }
        }
        None
    }

    fn put(&mut self, full: BytesMut) {
        if self.pieces.len() < MAX_SPENT {
            self.pieces.push_back(full);
        }
    }
}

/// Frames of one track, one after the other.
#[derive(Debug)]
pub(super) struct Arena {
    /// A piece's size; a larger frame has one of its own.
    piece: usize,
    /// The frame under way, at the front of what is left of its piece.
    frame: BytesMut,
}

impl Arena {
    pub fn new(piece: usize) -> Self {
        Self { piece, frame: BytesMut::new() }
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
        // A frame that outgrows its piece goes on doing so: half as much again spares most of the copies.
        let made = || BytesMut::with_capacity(self.piece.max(needed + needed / 2));
        let mut next = Spent::of(self.piece, |spent| spent.take(needed)).unwrap_or_else(made);
        next.extend_from_slice(&self.frame);
        let mut full = std::mem::replace(&mut self.frame, next);
        full.clear();
        if full.capacity() > 0 {
            Spent::of(self.piece, |spent| spent.put(full));
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
    }

    #[test]
    fn pieces_that_one_session_has_filled_are_used_by_another() {
        let (mut one, mut other) = (Arena::new(1000), Arena::new(1000));
        let frames: Vec<_> = (0..20).map(|number| frame(&mut one, number, 900)).collect();
        let first: std::collections::HashSet<_> = frames.iter().map(|frame| frame.as_ptr()).collect();
        drop(frames);
        let again = (0..20).filter(|number| first.contains(&frame(&mut other, *number, 900).as_ptr()));
        assert!(again.count() > 15);
    }

    #[test]
    fn a_piece_of_an_unusual_size_is_given_back() {
        let mut arena = Arena::new(1000);
        frame(&mut arena, 0, 100_000);
        (0..100).for_each(|number| drop(frame(&mut arena, number, 900)));
        Spent::of(1000, |spent| {
            for piece in &mut spent.pieces {
                assert!(!piece.try_reclaim(UNUSUAL * 1000), "{} bytes are kept", piece.capacity());
            }
        });
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
