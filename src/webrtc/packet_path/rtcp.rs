//! RTCP: what is read of a compound packet, without taking the rest apart, and what sources are asked for.

use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use rtc::shared::marshal::Marshal;

/// Packet types (RFC 3550 section 12.1).
const SENDER_REPORT: u8 = 200;
const GOODBYE: u8 = 203;

/// What a source says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The same instant by its wall clock (32.32 fixed point) and by its RTP clock (RFC 3550 section 6.4.1).
    SenderReport { ssrc: u32, ntp: u64, rtp: u32 },
    /// It is gone (RFC 3550 section 6.6).
    Goodbye { ssrc: u32 },
}

/// Reads a compound packet, up to where it is cut short or malformed.
pub fn read(compound: &[u8]) -> impl Iterator<Item = Received> {
    let mut rest = compound;
    let packets = std::iter::from_fn(move || {
        let &[first, packet_type, high, low, ..] = rest else { return None };
        // In words of four bytes, without the header.
        let length = 4 * usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(4..4 + length).filter(|_| first >> 6 == 2)?;
        rest = &rest[4 + length..];
        Some((packet_type, first & 0x1f, body))
    });
    packets.flat_map(|(packet_type, count, body)| {
        let report = (packet_type == SENDER_REPORT).then(|| sender_report(body)).flatten();
        let sources = if packet_type == GOODBYE { usize::from(count) } else { 0 };
        let goodbyes = body.chunks_exact(4).take(sources).filter_map(|source| u32_at(source, 0));
        report.into_iter().chain(goodbyes.map(|ssrc| Received::Goodbye { ssrc }))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn sender_report(body: &[u8]) -> Option<Received> {
    let ntp = body.get(4..12)?.try_into().ok().map(u64::from_be_bytes)?;
    Some(Received::SenderReport { ssrc: u32_at(body, 0)?, ntp, rtp: u32_at(body, 12)? })
}

/// Asks for packets again (generic NACK, RFC 4585 section 6.2.1).
pub fn write_nack(media_ssrc: u32, sequences: &[u16], out: &mut Vec<u8>) {
    let nacks = nack_pairs_from_sequence_numbers(sequences);
    write(&TransportLayerNack { sender_ssrc: 0, media_ssrc, nacks }, out);
}

/// Asks for a keyframe (PLI, RFC 4585 section 6.3.1).
pub fn write_pli(media_ssrc: u32, out: &mut Vec<u8>) {
    write(&PictureLossIndication { sender_ssrc: 0, media_ssrc }, out);
}

fn write(packet: &impl Marshal, out: &mut Vec<u8>) {
    match packet.marshal() {
        Ok(bytes) => out.extend_from_slice(&bytes),
        Err(error) => tracing::debug!(%error, "feedback can't be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc::rtcp::goodbye::Goodbye;
    use rtc::rtcp::packet::unmarshal;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::rtcp::sender_report::SenderReport;

    #[test]
    fn a_compound_packet_tells_its_reports_and_goodbyes_up_to_where_it_is_cut() {
        let mut compound = Vec::new();
        let report = SenderReport { ssrc: 7, ntp_time: 8 << 32 | 9, rtp_time: 10, ..SenderReport::default() };
        write(&ReceiverReport { ssrc: 5, ..ReceiverReport::default() }, &mut compound);
        write(&report, &mut compound);
        let before = compound.len();
        write(&Goodbye { sources: vec![7, 11], reason: "done".into() }, &mut compound);
        let expected = [
            Received::SenderReport { ssrc: 7, ntp: 8 << 32 | 9, rtp: 10 },
            Received::Goodbye { ssrc: 7 },
            Received::Goodbye { ssrc: 11 },
        ];
        assert_eq!(read(&compound).collect::<Vec<_>>(), expected);
        for cut in before..compound.len() {
            assert_eq!(read(&compound[..cut]).collect::<Vec<_>>(), expected[..1], "cut at {cut}");
        }
        // A goodbye that names more sources than it has room for.
        compound[before] |= 0x1f;
        assert_eq!(read(&compound).count(), 1 + (compound.len() - before - 4) / 4);
    }

    #[test]
    fn what_is_asked_for_is_read_by_others() {
        let mut out = Vec::new();
        write_nack(1, &[65_534, 65_535, 0, 1, 40], &mut out);
        write_pli(2, &mut out);
        let packets = unmarshal(&mut &out[..]).unwrap();
        let nack = packets[0].as_any().downcast_ref::<TransportLayerNack>().unwrap();
        let asked: Vec<u16> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        assert_eq!((nack.media_ssrc, asked), (1, vec![65_534, 65_535, 0, 1, 40]));
        let pli = packets[1].as_any().downcast_ref::<PictureLossIndication>().unwrap();
        assert_eq!(pli.media_ssrc, 2);
    }

    proptest! {
        #[test]
        fn rubbish_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).count() <= bytes.len());
        }
    }
}
