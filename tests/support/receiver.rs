//! The publisher's counterpart on `str0m`: what the harness itself is proven against.

use super::network::{Datagram, Endpoint};
use super::peer::{Clock, Peer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaKind, MediaTime, Mid};
use str0m::{Event, Rtc};

/// A frame that arrived.
#[derive(Debug)]
pub struct Received {
    pub kind: MediaKind,
    pub at: Instant,
    pub time: MediaTime,
    pub keyframe: bool,
    /// Nothing is missing before it.
    pub contiguous: bool,
    pub data: Arc<[u8]>,
    /// The newest sender report's wall clock and RTP time.
    pub report: Option<(Duration, MediaTime)>,
}

/// Receives everything, asks for a keyframe when something is missing.
pub struct Receiver {
    peer: Peer,
    video: Option<Mid>,
    received: Vec<Received>,
}

impl Receiver {
    /// A receiver and its answer.
    pub fn accept(offer: &str, local: SocketAddr, now: Instant) -> (Self, String) {
        let rtc = Rtc::builder().clear_codecs().enable_vp8(true).enable_opus(true, true);
        let mut peer = Peer::new(rtc, local, Clock::new(now, 0.0));
        peer.add_local_candidate();
        let mut receiver = Self { peer, video: None, received: Vec::new() };
        let answer = receiver.accept_again(offer);
        (receiver, answer)
    }

    /// Answers a further offer on the same connection.
    pub fn accept_again(&mut self, offer: &str) -> String {
        let offer = SdpOffer::from_sdp_string(offer).expect("an SDP offer");
        let answer = self.peer.rtc.sdp_api().accept_offer(offer).expect("an acceptable offer");
        self.peer.drain();
        answer.to_sdp_string()
    }

    pub fn received(&self) -> &[Received] {
        &self.received
    }

    pub fn count(&self, kind: MediaKind) -> usize {
        self.received.iter().filter(|frame| frame.kind == kind).count()
    }

    pub fn request_keyframe(&mut self) {
        let Some(mut writer) = self.video.and_then(|mid| self.peer.rtc.writer(mid)) else { return };
        writer.request_keyframe(None, KeyframeRequestKind::Pli).expect("video to ask for");
        self.peer.drain();
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.peer.next_event() {
            match event {
                Event::MediaAdded(media) if media.kind.is_video() => self.video = Some(media.mid),
                Event::MediaData(data) => {
                    let kind = if self.video == Some(data.mid) { MediaKind::Video } else { MediaKind::Audio };
                    if kind.is_video() && !data.contiguous {
                        self.request_keyframe();
                    }
                    self.received.push(Received {
                        kind,
                        at: now,
                        time: data.time,
                        keyframe: data.is_keyframe(),
                        contiguous: data.contiguous,
                        report: data.last_sender_info.map(|report| {
                            let wall = report.ntp_time.duration_since(std::time::UNIX_EPOCH);
                            (wall.expect("a clock after 1970"), report.rtp_time)
                        }),
                        data: data.data,
                    });
                }
                _ => {}
            }
        }
    }
}

impl Endpoint for Receiver {
    fn receive(&mut self, now: Instant, datagram: Datagram) {
        self.peer.receive(now, &datagram);
        self.handle_events(now);
    }

    fn timeout(&mut self, now: Instant) {
        self.peer.timeout(now);
        self.handle_events(now);
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.peer.deadline()
    }

    fn transmit(&mut self, _now: Instant) -> Option<Datagram> {
        self.peer.next_datagram()
    }
}
