//! Which session a datagram is for, as far as its first bytes tell (RFC 7983).

/// A STUN transaction.
pub type Transaction = [u8; 12];

/// What a datagram is, as far as its way is concerned.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A STUN binding request for this user fragment of ours: the part of USERNAME before the colon
    /// (RFC 8445 section 7.2.2).
    Request(&'a str),
    /// The answer to this STUN transaction of ours.
    Response(&'a Transaction),
    /// An RTP packet of this source, which SRTP leaves readable. From an address nobody has proven
    /// it tells no more than where the peer may be now.
    Media(u32),
    /// DTLS, SRTCP, or anything.
    Other,
}

impl<'a> Kind<'a> {
    /// Looks at a datagram.
    pub fn of(datagram: &'a [u8]) -> Self {
        let transaction = || datagram.get(8..20)?.try_into().ok();
        match datagram {
            [0, 1, ..] => username(datagram).map_or(Kind::Other, Kind::Request),
            [1, 1 | 0x11, ..] => transaction().map_or(Kind::Other, Kind::Response),
            // Payload types 64 to 95 would be RTCP's (RFC 5761 section 4).
            [128..=191, second, _, _, _, _, _, _, a, b, c, d, ..]
                if !(64..=95).contains(&(second & 0x7f)) =>
            {
                Kind::Media(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => Kind::Other,
        }
    }
}

/// The source that a packet of SRTP or SRTCP says it is of, readable in both; `None` for anything else.
pub(super) fn source(datagram: &[u8]) -> Option<u32> {
    let at = match datagram {
        // RTCP's packet types (RFC 5761 section 4).
        [128..=191, 192..=223, ..] => 4,
        [128..=191, ..] => 8,
        _ => return None,
    };
    datagram.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn username(datagram: &[u8]) -> Option<&str> {
    const USERNAME: u16 = 6;
    let mut attributes = datagram.get(20..)?;
    loop {
        let word = |at: usize| Some(u16::from_be_bytes([*attributes.get(at)?, *attributes.get(at + 1)?]));
        let (kind, length) = (word(0)?, usize::from(word(2)?));
        if kind == USERNAME {
            return std::str::from_utf8(attributes.get(4..4 + length)?).ok()?.split(':').next();
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stun_request_names_its_session_and_rubbish_names_none() {
        let mut request = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        request.extend([0; 12]);
        request.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        request.extend([0, 6, 0, 9]);
        request.extend(b"mine:hers");
        request.extend([0; 3]);
        assert_eq!(Kind::of(&request), Kind::Request("mine"));
        for cut in 0..request.len() - 4 {
            assert_eq!(Kind::of(&request[..cut]), Kind::Other, "cut at {cut}");
        }
        request[0] = 1;
        assert_eq!(Kind::of(&request), Kind::Response(&[0; 12]), "its answer");
    }

    #[test]
    fn media_names_its_source_and_reports_and_dtls_do_not() {
        let packet = |first, second| [first, second, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
        for (first, second, expected) in [
            (0x80, 96, Kind::Media(0x0102_0304)),
            (0x90, 0x80 | 111, Kind::Media(0x0102_0304)),
            (0x80, 200, Kind::Other),
            (0x81, 205, Kind::Other),
            (22, 254, Kind::Other),
        ] {
            assert_eq!(Kind::of(&packet(first, second)), expected, "{first} {second}");
        }
        assert_eq!(Kind::of(&packet(0x80, 96)[..11]), Kind::Other, "cut short");
    }

    #[test]
    fn packets_and_reports_name_the_source_that_decryption_keeps_them_apart_by() {
        let packet = |first, second| [first, second, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
        assert_eq!(source(&packet(0x80, 96)), Some(0x0102_0304));
        assert_eq!(source(&packet(0x80, 70)), Some(0x0102_0304), "no report, to the decryption");
        assert_eq!(source(&packet(0x81, 205)), Some(2));
        assert_eq!((source(&packet(22, 254)), source(&packet(0, 1))), (None, None));
        assert_eq!(source(&packet(0x80, 96)[..11]), None, "cut short");
    }
}
