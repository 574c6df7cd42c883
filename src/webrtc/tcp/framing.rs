//! Frames of a byte stream: each a length of 16 bits, big-endian, and so many bytes (RFC 4571 section 2).

use super::Cut;
use crate::webrtc::socket::MAX_DATAGRAM;
use bytes::{Buf, BytesMut};

/// Takes a byte stream apart. Keeps no more than one frame that is unfinished, and what is read at once.
#[derive(Default)]
pub(super) struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    /// Room for more of the stream, at least so many bytes.
    pub fn space(&mut self, bytes: usize) -> &mut BytesMut {
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// The next frame that is whole, where it lies.
    ///
    /// # Errors
    ///
    /// An empty frame, or one that is larger than any datagram: what follows can't be a peer's.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, Cut> {
        let Some(head) = self.buffer.first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*head));
        if !(1..=MAX_DATAGRAM).contains(&length) {
            return Err(Cut::BadFrame);
        }
        if self.buffer.len() < 2 + length {
            return Ok(None);
        }
        self.buffer.advance(2);
        Ok(Some(self.buffer.split_to(length)))
    }
}

/// What a stream that comes in these parts holds: its frames, and whether they end with an error.
#[cfg(any(fuzzing, test))]
pub(crate) fn frames<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut deframer, mut frames) = (Deframer::default(), Vec::new());
    for part in parts {
        deframer.space(part.len()).extend_from_slice(part);
        loop {
            match deframer.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let one = |frame: &Vec<u8>| [&(frame.len() as u16).to_be_bytes()[..], frame].concat();
        frames.iter().flat_map(one).collect()
    }

    fn all(deframer: &mut Deframer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| deframer.next_frame().unwrap()).map(|frame| frame.to_vec()).collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut() {
        let frames = [vec![7], vec![1, 2, 3], vec![9; MAX_DATAGRAM], vec![0, 4], vec![5; 300]];
        let stream = framed(&frames);
        for cut in 0..=stream.len() {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                deframer.space(READ_AT_ONCE).extend_from_slice(part);
                found.extend(all(&mut deframer));
            }
            assert_eq!(found, frames, "cut at {cut}");
        }
        let mut deframer = Deframer::default();
        let mut found = Vec::new();
        for byte in &stream {
            deframer.space(1).extend_from_slice(&[*byte]);
            found.extend(all(&mut deframer));
        }
        assert_eq!(found, frames, "byte by byte");
        assert!(deframer.buffer.is_empty());
    }

    #[test]
    fn what_no_datagram_can_be_is_an_error_before_its_bytes_are_there() {
        for length in [0, MAX_DATAGRAM as u16 + 1, u16::MAX] {
            let mut deframer = Deframer::default();
            deframer.space(2).extend_from_slice(&framed(&[vec![3]]));
            deframer.space(2).extend_from_slice(&length.to_be_bytes());
            assert_eq!(deframer.next_frame().unwrap().unwrap(), [3][..]);
            assert_eq!(deframer.next_frame(), Err(Cut::BadFrame), "{length}");
        }
    }

    #[test]
    fn a_stream_without_end_needs_no_more_room_than_is_read_at_once() {
        let stream = framed(&vec![vec![8; 1200]; 64]);
        let mut deframer = Deframer::default();
        for part in stream.chunks(1000).cycle().take(10_000) {
            deframer.space(READ_AT_ONCE).extend_from_slice(part);
            while deframer.next_frame().unwrap().is_some() {}
            assert!(deframer.buffer.capacity() < 2 * (READ_AT_ONCE + MAX_DATAGRAM));
        }
    }

    const READ_AT_ONCE: usize = super::super::READ;
}
