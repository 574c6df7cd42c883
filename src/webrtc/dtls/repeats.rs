//! Keeps repeated handshake flights from the DTLS below.
//!
//! `rtc-dtls` cancels its retransmission timer when handshake messages come, and starts it again only
//! if they bring it on. When its answer is lost, the peer repeats what it said before, and from then
//! on both wait for ever. A repetition that never arrives leaves the timer alone, and the answer is
//! sent again.

use std::collections::HashSet;

/// Fragments of one handshake that are remembered; what exceeds it passes.
const MAX_SEEN: usize = 64;
/// Type, epoch and length of a record (RFC 6347 section 4.1).
const RECORD: usize = 13;
/// A handshake message's type, length, number and offset of the fragment (RFC 6347 section 4.2.2).
const MESSAGE: usize = 12;

/// The handshake fragments that a peer has sent.
#[derive(Debug, Default)]
pub(super) struct RepeatFilter {
    seen: HashSet<[u8; MESSAGE]>,
}

impl RepeatFilter {
    /// Whether a datagram holds nothing but plaintext handshake messages that have come before.
    pub fn is_repeat(&mut self, datagram: &[u8]) -> bool {
        let mut only_known = !datagram.is_empty();
        let mut rest = datagram;
        while !rest.is_empty() {
            let record = rest.get(..RECORD).and_then(|header| {
                let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
                Some((header[0] == 22 && header[3..5] == [0, 0], rest.get(RECORD..RECORD + length)?))
            });
            let Some((true, body)) = record else { return false };
            let Some(message) = body.get(..MESSAGE).and_then(|found| <[u8; MESSAGE]>::try_from(found).ok())
            else {
                return false;
            };
            // A first ClientHello has no state yet: a server answers it as often as it comes.
            let first_hello = message[0] == 1 && message[4..6] == [0, 0];
            let known = !first_hello && self.seen.contains(&message);
            if !known && self.seen.len() < MAX_SEEN {
                self.seen.insert(message);
            }
            only_known &= known;
            rest = &rest[RECORD + body.len()..];
        }
        only_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, sequence: u8, message: u8) -> Vec<u8> {
        let header = [kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, sequence, 0, 13];
        [&header[..], &[11, 0, 0, 1, 0, message, 0, 0, 0, 0, 0, 1, 99]].concat()
    }

    #[test]
    fn a_flight_that_comes_again_is_known_and_one_with_anything_new_is_not() {
        let mut repeats = RepeatFilter::default();
        let flight = |first| [record(22, 0, first, 1), record(22, 0, first + 1, 2)].concat();
        assert!(!repeats.is_repeat(&flight(0)));
        assert!(repeats.is_repeat(&flight(2)), "other record numbers, the same messages");
        assert!(!repeats.is_repeat(&[record(22, 0, 4, 1), record(22, 0, 5, 3)].concat()), "a new message");
        assert!(
            !repeats.is_repeat(&[record(22, 0, 6, 1), record(20, 0, 7, 1)].concat()),
            "a change of cipher"
        );
        assert!(!repeats.is_repeat(&record(22, 1, 8, 1)), "encrypted");
        for cut in 1..26 {
            assert!(!repeats.is_repeat(&flight(9)[..cut]), "cut at {cut}");
        }
        assert!(!repeats.is_repeat(&[]));
        let mut hello = record(22, 0, 0, 0);
        hello[RECORD] = 1;
        assert!(!repeats.is_repeat(&hello) && !repeats.is_repeat(&hello), "a first ClientHello");
    }
}
