//! Our own session as an end of the simulated network.

use super::network::{Datagram, Endpoint};
use super::proof::KeptFrame;
use bytes::BytesMut;
use onrecord::ingest::webrtc::session::{Event, Session, SessionConfig};
use onrecord::media;
use std::time::Instant;

/// A session, and what came out of it.
pub struct Ours {
    pub session: Session,
    pub media: Vec<media::Event>,
    pub connected_at: Option<Instant>,
    /// The session has said that it is over.
    pub disconnected_at: Option<Instant>,
}

impl Ours {
    /// A session and its answer.
    pub fn accept(offer: &str, config: &SessionConfig, now: Instant) -> (Self, String) {
        let (session, answer) = Session::accept(offer, config, now).expect("an acceptable offer");
        (Self { session, media: Vec::new(), connected_at: None, disconnected_at: None }, answer.sdp)
    }

    /// The frames of one track so far.
    pub fn frames(&self, track: usize) -> impl Iterator<Item = &media::Frame> {
        self.media.iter().filter_map(move |event| match event {
            media::Event::Frame(frame) if frame.track == track => Some(frame),
            _ => None,
        })
    }

    /// The same, for the proof.
    pub fn kept(&self, track: usize) -> Vec<KeptFrame> {
        self.frames(track).map(|frame| KeptFrame::new(frame.time, &frame.data)).collect()
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Connected => self.connected_at = Some(now),
                Event::Media(event) => self.media.push(event),
                Event::Disconnected { .. } => self.disconnected_at = Some(now),
            }
        }
    }
}

impl Endpoint for Ours {
    fn receive(&mut self, now: Instant, datagram: Datagram) {
        let Datagram { from, to, bytes } = datagram;
        self.session.handle(now, from, to, BytesMut::from(&bytes[..]));
        self.take_events(now);
    }

    fn timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.take_events(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn transmit(&mut self, _now: Instant) -> Option<Datagram> {
        let transmit = self.session.poll_transmit()?;
        Some(Datagram { from: transmit.from, to: transmit.to, bytes: transmit.data.to_vec() })
    }
}
