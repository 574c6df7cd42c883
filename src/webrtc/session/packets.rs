//! A session's media: packets into the pipeline, and what their sources are told.

use super::Session;
use crate::rtp::Feedback;
use crate::webrtc::offer::ParsedOffer;
use crate::webrtc::packet_path::congestion::TransportFeedback;
use crate::webrtc::packet_path::header::{self, Header};
use crate::webrtc::packet_path::reports::ReceiverReports;
use crate::webrtc::packet_path::rtcp::{self, Received};
use crate::webrtc::sources::{Packet, Report, Verdict};
use std::time::Instant;

/// What the sender is told of all its packets, recorded or not: when each came (congestion control counts them
/// transport-wide), and how many didn't.
pub(super) struct Receiver {
    congestion: TransportFeedback,
    congestion_id: Option<u8>,
    reports: ReceiverReports,
    /// Payload types with the rates of their clocks.
    clocks: Vec<(u8, u32)>,
    /// RTCP that is being written.
    scratch: Vec<u8>,
}

impl Receiver {
    pub fn new(offer: &ParsedOffer) -> Self {
        Self {
            congestion: TransportFeedback::new(rand::random()),
            congestion_id: offer.congestion_id(),
            reports: ReceiverReports::new(rand::random()),
            clocks: offer.clocks(),
            scratch: Vec::new(),
        }
    }

    /// A re-offer of the same sections may number their formats anew.
    pub fn renew(&mut self, offer: &ParsedOffer) {
        (self.congestion_id, self.clocks) = (offer.congestion_id(), offer.clocks());
    }

    fn count(&mut self, header: &Header<'_>, arrived: Instant) {
        if let Some(&[high, low]) = self.congestion_id.and_then(|id| header.extension(id)) {
            self.congestion.received(header.ssrc, u16::from_be_bytes([high, low]), arrived);
        }
        let clock = self.clocks.iter().find(|(payload_type, _)| *payload_type == header.payload_type);
        if let Some((_, rate)) = clock {
            self.reports.received(header, *rate, arrived);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.congestion.due().into_iter().chain(self.reports.due()).min()
    }
}

impl Session {
    /// Opens a packet of SRTP or SRTCP where it lies. What is not the peer's says nothing.
    pub(super) fn open(&mut self, now: Instant, arrived: Instant, datagram: &mut [u8]) {
        // Nothing counts before the peer has shown its certificate.
        let Some(inbound) = self.peer.inbound().filter(|_| self.connected) else { return };
        // RTCP's packet types (RFC 5761 section 4).
        if datagram.get(1).is_some_and(|second| (192..=223).contains(second)) {
            if let Ok(packet) = inbound.open_rtcp(datagram) {
                self.last_heard = now;
                self.reports(packet, arrived);
            }
            return;
        }
        let Some(length) = header::length(datagram) else { return };
        let (head, body) = datagram.split_at_mut(length);
        let Some(header) = Header::read(head) else { return };
        let Ok(payload) = inbound.open(&header, head, body) else { return };
        self.last_heard = now;
        self.receiver.count(&header, arrived);
        if let Some(payload) = header::without_padding(&header, payload) {
            self.packet(Packet { header, payload }, arrived);
        }
    }

    fn packet(&mut self, mut packet: Packet<'_>, now: Instant) {
        let Some((track, verdict)) = self.sections.take(&mut packet, now) else { return };
        self.last_media = now;
        self.watch.packet(track, now);
        if let Some(source) = self.sections.wanted(track, now) {
            self.unrecorded_keyframe_requests += 1;
            self.ask_for_keyframe(source);
        }
        if verdict == Verdict::Drop {
            return;
        }
        if let Verdict::Replaces { hole } = verdict {
            let ssrc = packet.header.ssrc;
            tracing::debug!(ssrc, track, hole, "another source is recorded from here on");
            self.pipeline.replace_source(track, hole, now);
            for kept in self.sections.take_kept(track) {
                self.pipeline.packet(track, kept.packet, kept.arrived);
            }
        }
        self.pipeline.packet(track, self.sections.media(track, &packet), now);
        if verdict == Verdict::Media {
            return;
        }
        if let Some(Report { ntp, rtp, arrived }) = self.sections.report(track) {
            self.pipeline.sender_report(track, ntp, rtp, arrived);
        }
    }

    fn reports(&mut self, compound: &[u8], arrived: Instant) {
        for received in rtcp::read(compound) {
            match received {
                Received::SenderReport { ssrc, ntp, rtp } => {
                    self.receiver.reports.sender_report(ssrc, ntp, arrived);
                    let report = Report { ntp, rtp, arrived };
                    if let Some(track) = self.sections.sender_report(ssrc, report) {
                        self.pipeline.sender_report(track, ntp, rtp, arrived);
                    }
                }
                Received::Goodbye { ssrc } => self.sections.bye(ssrc),
            }
        }
    }

    /// Tells the sources what the pipeline wants of them, and what has come, where that is due.
    pub(super) fn give_feedback(&mut self, now: Instant) {
        while let Some(feedback) = self.pipeline.poll_feedback() {
            let (Feedback::KeyframeRequest { track } | Feedback::Nack { track, .. }) = feedback;
            let Some(media_ssrc) = self.sections.recorded(track) else { continue };
            match feedback {
                Feedback::KeyframeRequest { .. } => self.ask_for_keyframe(media_ssrc),
                Feedback::Nack { sequences, .. } => {
                    self.send_rtcp(|out| rtcp::write_nack(media_ssrc, &sequences, out))
                }
            }
        }
        if !self.connected || self.receiver.deadline().is_none_or(|at| now < at) {
            return;
        }
        let Receiver { congestion, reports, scratch, .. } = &mut self.receiver;
        while congestion.write(now, scratch) || reports.write(now, scratch) {
            self.peer.send_rtcp(scratch);
            scratch.clear();
        }
    }

    fn ask_for_keyframe(&mut self, media_ssrc: u32) {
        self.send_rtcp(|out| rtcp::write_pli(media_ssrc, out));
    }

    fn send_rtcp(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let scratch = &mut self.receiver.scratch;
        write(scratch);
        self.peer.send_rtcp(scratch);
        scratch.clear();
    }
}
