//! A session's media: packets into the pipeline, and what their sources are told.

use super::Session;
use crate::rtp::{self, Feedback};
use crate::webrtc::offer::PayloadKind;
use crate::webrtc::sources::{Report, Verdict};
use rtc::interceptor::Packet;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use rtc::sansio::Protocol;
use std::time::Instant;

impl Session {
    /// Moves what has been received into the pipeline.
    pub(super) fn read(&mut self) {
        // What waited for the keys is looked into only when it is asked for.
        while self.peer.poll_read().is_some() {}
        while let Ok(arrived) = self.received.try_recv() {
            if !self.connected {
                // Nothing counts before the peer has shown its certificate.
                continue;
            }
            let now = arrived.now;
            self.last_heard = now;
            match arrived.message.packet {
                Packet::Rtp(packet) => self.packet(packet, now),
                Packet::Rtcp(packets) => self.reports(&packets, now),
                _ => {}
            }
        }
    }

    fn packet(&mut self, mut packet: rtc::rtp::Packet, now: Instant) {
        let Some((track, verdict)) = self.sections.take(&mut packet, now) else { return };
        self.last_media = now;
        self.watch.packet(track, now);
        if let Some(source) = self.sections.wanted(track, now) {
            self.unrecorded_keyframe_requests += 1;
            self.ask_for_keyframe(source, now);
        }
        if verdict == Verdict::Drop {
            return;
        }
        if let Verdict::Replaces { hole } = verdict {
            tracing::debug!(
                ssrc = packet.header.ssrc,
                track,
                hole,
                "another source is recorded from here on"
            );
            self.pipeline.replace_source(track, hole, now);
            for (packet, arrived) in self.sections.take_kept(track) {
                let packet = self.media_of(track, packet);
                self.pipeline.packet(track, packet, arrived);
            }
        }
        let packet = self.media_of(track, packet);
        self.pipeline.packet(track, packet, now);
        if verdict == Verdict::Media {
            return;
        }
        if let Some(Report { ntp, rtp, arrived }) = self.sections.report(track) {
            self.pipeline.sender_report(track, ntp, rtp, arrived);
        }
    }

    fn media_of(&self, track: usize, packet: rtc::rtp::Packet) -> rtp::Packet {
        let payload_kind = self.offer.recorded[track].payload_kind(packet.header.payload_type);
        rtp::Packet {
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload: packet.payload,
            red: payload_kind == Some(PayloadKind::Red),
        }
    }

    fn reports(&mut self, packets: &[Box<dyn rtcp::Packet>], now: Instant) {
        for packet in packets {
            if let Some(sent) = packet.as_any().downcast_ref::<SenderReport>() {
                let report = Report { ntp: sent.ntp_time, rtp: sent.rtp_time, arrived: now };
                if let Some(track) = self.sections.sender_report(sent.ssrc, report) {
                    self.pipeline.sender_report(track, report.ntp, report.rtp, now);
                }
            } else if let Some(goodbye) = packet.as_any().downcast_ref::<Goodbye>() {
                goodbye.sources.iter().for_each(|source| self.sections.bye(*source));
            }
        }
    }

    /// Tells the recorded sources what the pipeline wants of them.
    pub(super) fn give_feedback(&mut self, now: Instant) {
        while let Some(feedback) = self.pipeline.poll_feedback() {
            let (Feedback::KeyframeRequest { track } | Feedback::Nack { track, .. }) = feedback;
            let Some(media_ssrc) = self.sections.recorded(track) else { continue };
            match feedback {
                Feedback::KeyframeRequest { .. } => self.ask_for_keyframe(media_ssrc, now),
                Feedback::Nack { sequences, .. } => {
                    let nacks = nack_pairs_from_sequence_numbers(&sequences);
                    self.send_rtcp(TransportLayerNack { sender_ssrc: 0, media_ssrc, nacks }, now);
                }
            }
        }
    }

    fn ask_for_keyframe(&mut self, media_ssrc: u32, now: Instant) {
        self.send_rtcp(PictureLossIndication { sender_ssrc: 0, media_ssrc }, now);
    }

    fn send_rtcp(&mut self, packet: impl rtcp::Packet + 'static, now: Instant) {
        // The track's name is of no use to what sends it.
        let message = RTCMessage::RtcpPacket(String::new(), vec![Box::new(packet)]);
        if let Err(error) = self.peer.handle_write(TaggedRTCMessage { now, message }) {
            tracing::debug!(%error, "feedback is not sent");
        }
    }
}
