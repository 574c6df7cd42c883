//! Our own session as an end of the simulated network, addressed as the engine does it.

use super::network::{Datagram, Endpoint};
use super::proof::KeptFrame;
use onrecord::webrtc::TransportAddress;
use onrecord::webrtc::dtls::Identity;
use onrecord::webrtc::route::Kind;
use onrecord::webrtc::session::{Event, Session, SessionConfig, SessionEnd};
use onrecord::{media, rtp};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A session, and what came out of it.
pub struct Ours {
    pub session: Session,
    /// All its media so far, and when it came out.
    pub media: Vec<(Instant, media::Event)>,
    pub connected_at: Option<Instant>,
    /// The session has said that it is over.
    pub ended: Option<(Instant, SessionEnd)>,
    /// Tracks that brought nothing, or did so again, and when that was told.
    pub troubles: Vec<(Instant, usize, Option<media::GapReason>)>,
    /// Where its peer was found to be: each move.
    pub proven: Vec<SocketAddr>,
    routed: HashSet<SocketAddr>,
    sources: HashSet<u32>,
}

/// The defaults of the configuration, for a server at this address.
pub fn config(local: SocketAddr, now: Instant) -> SessionConfig {
    SessionConfig {
        candidates: vec![TransportAddress::udp(local)],
        identity: Arc::new(Identity::generate().expect("a certificate")),
        pipeline: rtp::Config {
            reorder_window: Duration::from_secs(1),
            keyframe_interval: Duration::from_secs(4),
        },
        origin: now,
        idle_timeout: Duration::from_secs(60),
        start_bitrate: 2_000_000,
    }
}

impl Ours {
    /// A session and its answer.
    pub fn accept(offer: &str, config: &SessionConfig, now: Instant) -> (Self, String) {
        let (session, answer) = Session::accept(offer, config, now).expect("an acceptable offer");
        let ours = Self {
            session,
            media: Vec::new(),
            connected_at: None,
            ended: None,
            troubles: Vec::new(),
            proven: Vec::new(),
            routed: HashSet::new(),
            sources: HashSet::new(),
        };
        (ours, answer.sdp)
    }

    /// The frames of one track so far.
    pub fn frames(&self, track: usize) -> impl Iterator<Item = &media::Frame> {
        self.media.iter().filter_map(move |(_, event)| match event {
            media::Event::Frame(frame) if frame.track == track => Some(frame),
            _ => None,
        })
    }

    /// The same, for the proof.
    pub fn kept(&self, track: usize) -> Vec<KeptFrame> {
        self.frames(track).map(|frame| KeptFrame::new(frame.time, &frame.data)).collect()
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(TransportAddress { address, .. }) = self.session.poll_proven() {
            self.routed.insert(address);
            if self.proven.last() != Some(&address) {
                self.proven.push(address);
            }
        }
        while let Some(event) = self.session.poll_event(now) {
            match event {
                Event::Connected => self.connected_at = Some(now),
                Event::Authenticated(_) => {}
                Event::Source(source) => drop(self.sources.insert(source)),
                Event::Media(event) => self.media.push((now, event)),
                Event::Trouble(track, reason) => self.troubles.push((now, track, reason)),
                Event::Ended(end) => self.ended = Some((now, end)),
            }
        }
    }
}

impl Endpoint for Ours {
    fn receive(&mut self, now: Instant, datagram: Datagram) {
        let Datagram { from, to, mut bytes } = datagram;
        let routed = self.routed.contains(&from);
        let udp = TransportAddress::udp(from);
        match Kind::of(&bytes) {
            Kind::Media(source) if !routed && self.sources.contains(&source) => {
                self.session.handle_unproven(now, udp, to);
            }
            // STUN finds its session without an address; the rest only from a proven one (D4).
            Kind::Media(_) | Kind::Other if !routed => return,
            _ => self.session.handle(now, now, udp, to, &mut bytes),
        }
        self.take_events(now);
    }

    fn timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.take_events(now);
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.session.deadline()
    }

    fn transmit(&mut self, now: Instant) -> Option<Datagram> {
        let transmit = self.session.poll_transmit(now)?;
        Some(Datagram { from: transmit.from, to: transmit.to.address, bytes: transmit.data.to_vec() })
    }
}
