//! One peer connection, sans-IO: datagrams and time in, frames and datagrams out.
//!
//! Nothing in here touches a socket, a task or a clock, so an hour of lossy network is tested in a
//! second. The engine owns the session and drives it.

mod lifetime;
mod negotiation;
mod packets;
mod stalled;

use lifetime::{LINGER, Stopping};
use negotiation::Restarts;
use stalled::Watch;

use crate::media::{self, GapReason, Kind, Track};
use crate::rtp::{self, Pipeline};
use crate::webrtc::dtls::RepeatFilter;
use crate::webrtc::interceptor::ReceivedPackets;
use crate::webrtc::offer::{Credentials, ParsedOffer, RejectedSection};
use crate::webrtc::paths::{Inbound, Paths};
use crate::webrtc::route;
use crate::webrtc::sources::Sections;
use crate::webrtc::{Candidate, peer};
use bytes::BytesMut;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionEvent, RTCPeerConnectionState};

/// Sources whose packets the decryption gets to see in one session, beside those that its offer names: it keeps
/// a window of repetitions for each, from before it knows that a packet is genuine, and for ever. What is
/// beyond is dropped.
const MAX_ADMITTED: usize = 64;

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Addresses offered to the peer, best first.
    pub candidates: Vec<SocketAddr>,
    /// Bounds of the way from packets to frames.
    pub pipeline: rtp::Config,
    /// When the frames' time is 0.
    pub origin: Instant,
    /// A connected peer without media for this long is ended.
    pub idle_timeout: Duration,
    /// What a browser's video is to begin with, bit/s; 0 leaves it to the browser.
    pub start_bitrate: u64,
}

/// What goes back to the client.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The SDP answer.
    pub sdp: String,
    /// The server's candidates, which are in the SDP too.
    pub candidates: Vec<Candidate>,
    /// Changes with every ICE generation.
    pub etag: String,
}

/// What a session tells its owner.
#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS are up.
    Connected,
    /// This address has been proven to be the peer's (D4): route its packets here.
    Proven(SocketAddr),
    /// The peer's media comes from this source (SSRC).
    Source(u32),
    /// A frame, or that frames are missing.
    Media(media::Event),
    /// A track brings nothing, or nothing that can be decoded; `None` once it does again.
    Trouble(usize, Option<GapReason>),
    /// The session is over.
    Ended(SessionEnd),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The handshake took too long.
    NeverConnected,
    /// Nothing authentic came any more.
    Vanished,
    /// The peer closed the connection.
    Closed,
    /// It has shown another certificate than its offer names.
    WrongCertificate,
    /// Connected, but without media for `webrtc.idle_timeout`.
    Idle,
    /// As [`Session::stop`] said, with what was still on its way.
    Stopped,
    /// A step of it panicked: its owner says so.
    Panicked,
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Transmit {
    /// The candidate of ours that it is sent from.
    pub from: SocketAddr,
    /// The peer's address.
    pub to: SocketAddr,
    /// The UDP payload.
    pub data: BytesMut,
}

/// The sources whose packets are decrypted, beside those that the offer names.
#[derive(Debug, Default)]
struct AdmittedSources(HashSet<u32>);

impl AdmittedSources {
    /// Whether it may see a packet of this one.
    fn admits(&mut self, source: u32, mut offered: impl Iterator<Item = u32>) -> bool {
        self.0.contains(&source)
            || offered.any(|one| one == source)
            || (self.0.len() < MAX_ADMITTED && self.0.insert(source))
    }
}

/// One peer connection.
pub struct Session {
    peer: RTCPeerConnection,
    offer: ParsedOffer,
    received: ReceivedPackets,
    admitted: AdmittedSources,
    sections: Sections,
    local: Credentials,
    watch: Watch,
    /// Keyframes asked of sources that aren't recorded, since the count was taken.
    unrecorded_keyframe_requests: u64,
    /// Time 0 of the frames.
    origin: Instant,
    pipeline: Pipeline,
    paths: Paths,
    repeats: RepeatFilter,
    events: VecDeque<Event>,
    outbox: VecDeque<Transmit>,
    idle_timeout: Duration,
    start_bitrate: u64,
    /// Candidates of the peer in this ICE generation.
    candidates: usize,
    restarts: Restarts,
    began: Instant,
    connected: bool,
    /// When a packet came last that only the peer can have sent.
    last_heard: Instant,
    /// When media came last.
    last_media: Instant,
    stopping: Option<Stopping>,
    over: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Session {
    /// WHIP's ETag without quotes, which changes with every ICE generation.
    pub fn etag(&self) -> String {
        self.local.ufrag.clone()
    }

    /// Our ICE user fragment: STUN requests for it are this session's.
    pub fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// What its publisher sends and is not recorded.
    pub(super) fn rejected(&self) -> &[RejectedSection] {
        &self.offer.rejected
    }

    /// The tracks its frames name by index.
    pub fn tracks(&self) -> Vec<Track> {
        self.offer.recorded.iter().map(|section| section.format.track()).collect()
    }

    /// Takes a datagram that came from `from` to our candidate `to`.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, mut datagram: BytesMut) {
        let mut authentic = false;
        let known_as = if datagram.first().is_some_and(|first| *first < 4) {
            match self.paths.inbound_stun(from, to, &mut datagram, now, &mut authentic) {
                Inbound::Agent(address) => address,
                Inbound::Done => {
                    self.note_path(authentic, now);
                    return;
                }
            }
        } else {
            self.paths.inbound(from, now)
        };
        self.note_path(authentic, now);
        let offered = || self.offer.recorded.iter().flat_map(|section| section.ssrcs.iter().copied());
        if route::source(&datagram).is_some_and(|source| !self.admitted.admits(source, offered())) {
            return;
        }
        let transport = TransportContext {
            local_addr: to,
            peer_addr: known_as,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let is_dtls = datagram.first().is_some_and(|first| (20..64).contains(first));
        if is_dtls && !self.connected && self.repeats.is_repeat(&datagram) {
            return;
        }
        if let Err(error) = self.peer.handle_read(TaggedBytesMut { now, transport, message: datagram }) {
            tracing::debug!(%error, "a datagram is dropped");
        }
        if !self.connected {
            // The handshake's end puts the keys in place only when its event is taken, and the first
            // keyframe may be right behind it.
            self.poll_peer(now);
        }
        self.read();
        if is_dtls && self.connected && self.sends_alert(now) {
            self.end(SessionEnd::Closed, now);
        }
    }

    /// Media of this session came from an unproven address: the peer may have moved there without
    /// knowing, as behind a NAT that has forgotten it.
    pub fn handle_unproven(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) {
        if !self.over {
            self.paths.probe(from, to, now);
        }
    }

    fn note_path(&mut self, authentic: bool, now: Instant) {
        if authentic {
            self.last_heard = now;
        }
        if let Some(round_trip) = self.paths.round_trip.take() {
            self.pipeline.round_trip(round_trip);
        }
    }

    /// Whether DTLS sends an alert (record type 21, RFC 5246 section 6.2.1): only the peer's own,
    /// encrypted one makes it do so once it is up, and the peer connection says nothing of it.
    fn sends_alert(&mut self, now: Instant) -> bool {
        let before = self.outbox.len();
        while let Some(transmit) = self.poll_peer_write(now) {
            self.outbox.push_back(transmit);
        }
        self.outbox.iter().skip(before).any(|transmit| transmit.data.first() == Some(&21))
    }

    fn poll_peer(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event else { continue };
            match state {
                RTCPeerConnectionState::Connected if !self.connected && !self.is_offerer() => {
                    tracing::warn!("the peer's certificate isn't the one its offer names");
                    self.end(SessionEnd::WrongCertificate, now);
                }
                RTCPeerConnectionState::Connected if !self.connected => {
                    (self.connected, self.last_heard, self.last_media) = (true, now, now);
                    let time = now.saturating_duration_since(self.origin);
                    self.watch.begin(self.offer.recorded.len(), time, now);
                    self.events.push_back(Event::Connected);
                }
                RTCPeerConnectionState::Closed => self.end(SessionEnd::Closed, now),
                RTCPeerConnectionState::Failed if self.connected => self.end(SessionEnd::Vanished, now),
                _ => {}
            }
        }
    }

    /// Whether the peer's certificate is the one that its offer names (RFC 8122 section 6.2).
    fn is_offerer(&mut self) -> bool {
        let certificate = peer::remote_certificate(&mut self.peer);
        certificate.is_some_and(|certificate| self.offer.identity().is_of(&certificate))
    }

    /// Asks the publisher for a keyframe.
    pub fn request_keyframe(&mut self, now: Instant) {
        self.pipeline.request_keyframe(now);
    }

    /// What became of the packets of each track since this was last asked.
    pub fn take_counts(&mut self) -> impl Iterator<Item = (Kind, rtp::Counts)> {
        self.pipeline.take_counts()
    }

    /// Keyframes asked since then of sources that aren't recorded: their pictures may be larger.
    pub fn take_unrecorded_keyframe_requests(&mut self) -> u64 {
        std::mem::take(&mut self.unrecorded_keyframe_requests)
    }

    /// STUN messages since then that were not the peer's, though they named it.
    pub fn take_forged(&mut self) -> u64 {
        std::mem::take(&mut self.paths.forged)
    }

    fn take_media(&mut self, now: Instant) {
        while let Some(event) = self.pipeline.poll_event() {
            if let media::Event::Frame(frame) = &event
                && let Some(gap) = self.watch.frame(frame.track, frame.time, now)
            {
                self.events.push_back(Event::Media(media::Event::Gap(gap)));
                self.events.push_back(Event::Trouble(frame.track, None));
            }
            self.events.push_back(Event::Media(event));
            if let Some(stopping) = &mut self.stopping {
                stopping.drained = now + LINGER;
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.poll_peer(now);
        if let Some(address) = self.paths.proven.pop_front() {
            return Some(Event::Proven(address));
        }
        if let Some(source) = self.sections.found.pop_front() {
            return Some(Event::Source(source));
        }
        self.take_media(now);
        self.events.pop_front()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.give_feedback(now);
        let waiting = self.outbox.pop_front().or_else(|| self.poll_peer_write(now));
        waiting
            .or_else(|| self.paths.outgoing.pop_front().map(|(from, to, data)| Transmit { from, to, data }))
    }

    fn poll_peer_write(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let message = self.peer.poll_write()?;
            let (from, to, mut data) =
                (message.transport.local_addr, message.transport.peer_addr, message.message);
            if let Some(to) = self.paths.outbound(to, &mut data, now) {
                return Some(Transmit { from, to, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_without_end_are_not_all_decrypted_and_the_offers_own_always_are() {
        let mut admitted = AdmittedSources::default();
        let offered = || [5].into_iter();
        assert!(admitted.admits(100, offered()));
        let forged = (1000..1_000_000).filter(|source| admitted.admits(*source, offered())).count();
        assert_eq!((forged, admitted.0.len()), (MAX_ADMITTED - 1, MAX_ADMITTED));
        assert!(admitted.admits(5, offered()), "the offer names it");
        assert!(admitted.admits(100, offered()), "it was there before");
    }
}
