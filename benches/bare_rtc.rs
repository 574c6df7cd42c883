//! A bare session on the `rtc` crate, which the server stands on: decrypts, reports, throws away.

use crate::bare::{Send, Session};
use bytes::BytesMut;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_twcc_receiver_only,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct RtcSession(RTCPeerConnection);

impl Session for RtcSession {
    fn accept(offer: &str, local: SocketAddr, now: Instant) -> (Self, String) {
        let mut connection = connection(now);
        let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
        connection.set_remote_description(now, offer).unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: local.ip().to_string(),
                port: local.port(),
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        };
        let candidate = RTCIceCandidate::from(&candidate.new_candidate_host().unwrap());
        connection.add_local_candidate(candidate.to_json().unwrap()).unwrap();
        let answer = connection.create_answer(None).unwrap();
        connection.set_local_description(now, answer).unwrap();
        let sdp = connection.local_description().unwrap().sdp;
        (Self(connection), sdp)
    }

    fn receive(&mut self, now: Instant, path: (SocketAddr, SocketAddr), datagram: &[u8], _: Send<'_>) {
        let transport = TransportContext {
            local_addr: path.1,
            peer_addr: path.0,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        // What it can't read is nothing that a peer would answer.
        let _ = self.0.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
    }

    fn timeout(&mut self, now: Instant) {
        let _ = self.0.handle_timeout(now);
    }

    fn drain(&mut self, now: Instant, send: Send<'_>) -> Instant {
        while self.0.poll_read().is_some() {}
        while self.0.poll_event().is_some() {}
        while let Some(datagram) = self.0.poll_write() {
            send(datagram.transport.peer_addr, &datagram.message);
        }
        self.0.poll_timeout().unwrap_or(now + Duration::from_secs(1))
    }
}

fn connection(now: Instant) -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let registry =
        configure_twcc_receiver_only(configure_rtcp_reports(Registry::new()), &mut engine).unwrap();
    let settings = SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_srtp_replay_protection_window(1024)
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .build(now)
        .unwrap()
}
