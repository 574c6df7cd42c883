//! How a peer connection is set up.

use crate::media::Kind;
use crate::rtp::PayloadFormat;
use crate::webrtc::interceptor::ReceiveChain;
use crate::webrtc::offer::{RED_FEEDBACK, feedback_of};
use rtc::interceptor::Slot;
use rtc::peer_connection::RTCPeerConnectionBuilder;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCDtlsRole};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::shared::error::Result;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{
    MediaEngine, RTCIceCandidate, RTCIceCandidateInit, RTCPeerConnection, Registry, SettingEngineBuilder,
};

/// Retransmissions arrive up to a second after their neighbours, and the window counts packets:
/// 2048 are a second of 20 Mbit/s. The default of 64 would throw them away as replays.
const REPLAY_WINDOW: usize = 2048;

/// A peer connection that receives VP8 and Opus and sends nothing.
pub(super) fn build(
    peer_is_dtls_client: bool,
    receive: ReceiveChain,
    now: Instant,
) -> Result<RTCPeerConnection> {
    let role = if peer_is_dtls_client { RTCDtlsRole::Server } else { RTCDtlsRole::Client };
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(role)
        .with_include_loopback_candidate(true)
        // It knows SHA-256 alone; the session looks at the certificate itself.
        .with_disable_certificate_fingerprint_verification(true)
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .with_srtp_replay_protection_window(REPLAY_WINDOW)
        .with_srtcp_replay_protection_window(REPLAY_WINDOW)
        // The session decides when a peer is gone; the agent must not be quicker.
        .with_ice_timeouts(
            Some(Duration::from_secs(30)),
            Some(Duration::from_secs(30)),
            Some(Duration::from_secs(2)),
        )
        .build();
    RTCPeerConnectionBuilder::new()
        .with_setting_engine(settings)
        .with_media_engine(media_engine()?)
        // Alone: a NACK generator would sit before RTX is unwrapped, and never see a repair.
        .with_interceptor_registry(Registry::new().with(Slot::from(14_000), receive))
        .build(now)
}

fn media_engine() -> Result<MediaEngine> {
    let feedback = |known: &[&str]| {
        let parse = |feedback: &&str| {
            let (typ, parameter) = feedback.split_once(' ').unwrap_or((feedback, ""));
            RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() }
        };
        known.iter().map(parse).collect::<Vec<_>>()
    };
    let mut engine = MediaEngine::default();
    // Which payload types we would offer is of no interest: an answer has the offer's.
    let mut payload_types = 96..=127;
    let mut register = |kind: Kind, rtpmap: &str, fmtp: String, known: &[&str]| {
        let (name, _) = rtpmap.split_once('/').unwrap_or((rtpmap, ""));
        let (rtp_kind, clock_rate, channels) = match kind {
            Kind::Video => (RtpCodecKind::Video, 90_000, 0),
            Kind::Audio => (RtpCodecKind::Audio, 48_000, 2),
        };
        let payload_type = payload_types.next().unwrap_or(127);
        let rtp_codec = RTCRtpCodec {
            mime_type: format!("{}/{name}", kind.as_str()),
            clock_rate,
            channels,
            sdp_fmtp_line: fmtp,
            rtcp_feedback: feedback(known),
        };
        engine
            .register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, rtp_kind)
            .map(|()| payload_type)
    };
    for codec in PayloadFormat::ALL.map(PayloadFormat::codec) {
        let of = register(codec.kind(), codec.rtpmap(), String::new(), feedback_of(codec.kind()))?;
        if codec.kind() == Kind::Video {
            register(Kind::Video, "rtx/90000", format!("apt={of}"), &[])?;
        }
    }
    register(Kind::Audio, "red/48000/2", String::new(), RED_FEEDBACK)?;
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        for uri in [rtc::sdp::extmap::TRANSPORT_CC_URI, rtc::sdp::extmap::SDES_MID_URI] {
            let uri = uri.to_owned();
            engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri }, kind, None)?;
        }
    }
    Ok(engine)
}

/// The certificate (DER) that the peer has shown in the handshake.
pub(super) fn remote_certificate(peer: &mut RTCPeerConnection) -> Option<Vec<u8>> {
    let receiver = peer.get_receivers().next()?;
    let receiver = peer.rtp_receiver(receiver)?;
    receiver.transport()?.get_remote_certificates().first().cloned()
}

/// One of our addresses as a host candidate.
pub(super) fn host_candidate(address: SocketAddr) -> Result<RTCIceCandidateInit> {
    let config = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            component: 1,
            ..Default::default()
        },
        ..Default::default()
    };
    RTCIceCandidate::from(&config.new_candidate_host()?).to_json()
}
