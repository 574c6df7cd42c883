//! For the fuzz target `srtp`: a peer's SRTP and what becomes of it, up to the reports to the peer.

use super::congestion::TransportFeedback;
use super::header::{self, Header};
use super::reports::ReceiverReports;
use super::rtcp::{self, Received};
use super::srtp::{Inbound, Refused};
use rtc::crypto::default_provider;
use rtc::rtcp::packet;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use std::time::{Duration, Instant};

/// The identifier of the transport-wide sequence number.
const CONGESTION_ID: u8 = 3;
/// What fits a datagram with everything around it.
const MAX_REPORT: usize = 1200;
const PROFILES: [ProtectionProfile; 4] = [
    ProtectionProfile::AeadAes128Gcm,
    ProtectionProfile::AeadAes256Gcm,
    ProtectionProfile::Aes128CmHmacSha1_80,
    ProtectionProfile::Aes128CmHmacSha1_32,
];

/// A peer and who receives it, with the same keys.
pub struct PacketPath {
    sender: Context,
    inbound: Inbound,
    congestion: TransportFeedback,
    reports: ReceiverReports,
    now: Instant,
}

impl PacketPath {
    /// One of four profiles.
    pub fn new(profile: u8) -> Self {
        let profile = PROFILES[usize::from(profile) % PROFILES.len()];
        let provider = default_provider().expect("a build has a provider");
        let (key, salt) = (vec![7; profile.key_len()], vec![9; profile.salt_len()]);
        let crypto = provider.crypto();
        Self {
            sender: Context::new(&key, &salt, profile, None, None, crypto).expect("keys of its length"),
            inbound: Inbound::new(profile, &key, &salt, crypto).expect("keys of its length"),
            congestion: TransportFeedback::new(1),
            reports: ReceiverReports::new(1),
            now: Instant::now(),
        }
    }

    /// What the peer sends for a well-formed packet of RTP; `None` where it can't.
    pub fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.sender.encrypt_rtp(packet).ok().map(Into::into)
    }

    /// What the peer sends for a well-formed compound packet of RTCP; `None` where it can't.
    pub fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        self.sender.encrypt_rtcp(compound).ok().map(Into::into)
    }

    /// Takes a datagram as a session does; gives what was in it, header and payload, if it was taken.
    pub fn take(&mut self, mut datagram: Vec<u8>) -> Result<Vec<u8>, String> {
        if datagram.get(1).is_some_and(|second| (192..=223).contains(second)) {
            let compound = self.inbound.open_rtcp(&mut datagram).map_err(said)?.to_vec();
            for received in rtcp::read(&compound) {
                if let Received::SenderReport { ssrc, ntp, .. } = received {
                    self.reports.sender_report(ssrc, ntp, self.now);
                }
            }
            return Ok(compound);
        }
        let length = header::length(&datagram).ok_or("no header")?;
        let (head, body) = datagram.split_at_mut(length);
        let header = Header::read(head).ok_or("no header")?;
        let payload = self.inbound.open(&header, head, body).map_err(said)?;
        if let Some(&[high, low]) = header.extension(CONGESTION_ID) {
            self.congestion.received(header.ssrc, u16::from_be_bytes([high, low]), self.now);
        }
        self.reports.received(&header, 90_000, self.now);
        let unpadded = header::without_padding(&header, payload);
        assert!(unpadded.is_none_or(|unpadded| payload.starts_with(unpadded)));
        Ok([head, payload].concat())
    }

    /// Lets time pass, and writes what is due: whole compound packets that others can read, and an end of it.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        let mut out = Vec::new();
        for written in 0.. {
            assert!(written < 2000, "reports without an end");
            out.clear();
            if !self.congestion.write(self.now, &mut out) && !self.reports.write(self.now, &mut out) {
                break;
            }
            assert!(out.len() <= MAX_REPORT, "a report of {} bytes", out.len());
            packet::unmarshal(&mut &out[..]).expect("a report that can be read");
        }
        let due = self.congestion.due().into_iter().chain(self.reports.due());
        assert!(due.min().is_none_or(|due| due > self.now), "a deadline that is over");
    }
}

fn said(refused: Refused) -> String {
    format!("{refused:?}")
}
