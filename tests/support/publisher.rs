//! An independent WebRTC publisher on `str0m`: sends frames by schedule, answers NACKs with RTX, sends
//! reports, asks nothing of a clock or a socket.

use super::media::{Clip, Encoded};
use super::network::{Datagram, Endpoint, rtp_payload_type};
use super::peer::{Clock, Peer};
use super::source::{Looped, Source};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::Protocol;
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::{NackEntry, Rtcp};
use str0m::{Candidate, Event, IceConnectionState, Rtc};

/// When sender reports go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reports {
    /// From the moment every track has sent something.
    Always,
    /// Not before so long after the connection.
    After(Duration),
    Never,
}

/// One track to publish.
pub struct TrackConfig {
    pub source: Box<dyn Source>,
    /// What was captured in the first so long is not sent: a device that starts late.
    pub starts_after: Duration,
    /// From capture to sending.
    pub encoding_takes: Duration,
    /// By how many parts in a million its capture clock is fast: frames come that much more often,
    /// their timestamps claim the nominal rate.
    pub ppm: f64,
    /// Nothing is sent of what was captured in these (DTX).
    pub pauses: Vec<Range<Duration>>,
    /// Nor in these, and its media clock stands still meanwhile: a microphone that was taken away.
    pub stands: Vec<Range<Duration>>,
    /// Of its first frame.
    pub rtp_start: u32,
}

impl TrackConfig {
    pub fn new(source: Box<dyn Source>) -> Self {
        Self {
            source,
            starts_after: Duration::ZERO,
            encoding_takes: Duration::ZERO,
            ppm: 0.0,
            pauses: Vec::new(),
            stands: Vec::new(),
            // Wraps after five seconds of video, nine of audio: every test sees it.
            rtp_start: u32::MAX - 450_000,
        }
    }
}

/// What to publish and how.
pub struct Config {
    pub local: SocketAddr,
    /// What it reaches the server by.
    pub protocol: Protocol,
    pub video: Option<TrackConfig>,
    /// Encodings of one camera by their rids (simulcast), in the order of the offer, in place of `video`.
    pub encodings: Vec<(&'static str, TrackConfig)>,
    pub audio: Option<TrackConfig>,
    pub reports: Reports,
    /// By how many parts in a million its wall clock (of the reports) is fast.
    pub wall_ppm: f64,
    /// Offers RED (RFC 2198) for audio, and sends it if it is accepted.
    pub red: bool,
    /// Leaves the candidate out of the offer; it is to be sent afterwards.
    pub trickle: bool,
    /// Notes what is asked of each source.
    pub notes_asked: bool,
}

impl Config {
    pub fn new(local: SocketAddr) -> Self {
        Self {
            local,
            protocol: Protocol::Udp,
            video: None,
            encodings: Vec::new(),
            audio: None,
            reports: Reports::Always,
            wall_ppm: 0.0,
            red: true,
            trickle: false,
            notes_asked: false,
        }
    }

    /// Plays both clips in step, whatever is asked of it.
    pub fn playing(local: SocketAddr, (video, audio): (Clip, Clip)) -> Self {
        Self {
            video: Some(TrackConfig::new(Looped::steady(video))),
            audio: Some(TrackConfig::new(Looped::steady(audio))),
            ..Self::new(local)
        }
    }
}

/// A frame that was given to the network.
#[derive(Clone, Debug)]
pub struct Sent {
    pub kind: MediaKind,
    /// The encoding it is of.
    pub rid: Option<Rid>,
    /// True time of its capture, since the connection.
    pub captured: Duration,
    pub keyframe: bool,
    pub data: Arc<[u8]>,
}

/// What a source (SSRC) was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These packets once more.
    Again(u32, Vec<u16>),
    Keyframe(u32),
}

impl Asked {
    fn of(feedback: &Rtcp) -> Option<Self> {
        match feedback {
            Rtcp::Nack(nack) => {
                let following = |entry: &NackEntry| {
                    let (first, bits) = (entry.pid, entry.blp);
                    (0..16)
                        .filter(move |bit| bits >> bit & 1 == 1)
                        .map(move |bit| first.wrapping_add(bit + 1))
                };
                let all =
                    nack.reports.iter().flat_map(|entry| [entry.pid].into_iter().chain(following(entry)));
                Some(Self::Again(*nack.ssrc, all.collect()))
            }
            Rtcp::Pli(asked) => Some(Self::Keyframe(*asked.ssrc)),
            _ => None,
        }
    }
}

struct Track {
    kind: MediaKind,
    mid: Mid,
    rid: Option<Rid>,
    config: TrackConfig,
    next: Encoded,
    sending: bool,
}

impl Track {
    fn new(kind: MediaKind, mid: Mid, rid: Option<Rid>, mut config: TrackConfig) -> Self {
        let next = config.source.next();
        Self { kind, mid, rid, config, next, sending: false }
    }

    /// True time of the next frame's capture, since the connection.
    fn captured(&self) -> Duration {
        self.next.time.div_f64(1.0 + self.config.ppm * 1e-6)
    }

    fn is_sent(&self) -> bool {
        let time = self.next.time;
        let silent = self.config.pauses.iter().chain(&self.config.stands).any(|hole| hole.contains(&time));
        time >= self.config.starts_after && !silent
    }

    fn rtp_time(&self) -> MediaTime {
        let rate = if self.kind.is_video() { Frequency::NINETY_KHZ } else { Frequency::FORTY_EIGHT_KHZ };
        // Rounded, because a time in whole nanoseconds is a little less than the frame's.
        let over = self.config.stands.iter().filter(|hole| hole.end <= self.next.time);
        let time = self.next.time - over.map(|hole| hole.end - hole.start).sum::<Duration>();
        let ticks = (time.as_nanos() * u128::from(rate.get()) + 500_000_000) / 1_000_000_000;
        MediaTime::new(u64::from(self.config.rtp_start) + ticks as u64, rate)
    }
}

/// The publisher.
pub struct Publisher {
    peer: Peer,
    tracks: Vec<Track>,
    reports: Reports,
    pending: Option<SdpPendingOffer>,
    out: VecDeque<Datagram>,
    connected_at: Option<Instant>,
    stopped: bool,
    sent: Vec<Sent>,
    keyframe_requests: Vec<Instant>,
    ice: IceConnectionState,
    candidate: String,
    rtx: Option<u8>,
    resent: usize,
    asked: Vec<(Instant, Asked)>,
}

/// How often reports are sent: both tracks' at once, in one datagram.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How many packets, and for how long, can be sent again: more than any reorder window waits.
const RTX_CACHE: (usize, Duration) = (4096, Duration::from_secs(5));

impl Publisher {
    /// A publisher and its offer.
    pub fn new(config: Config, now: Instant) -> (Self, String) {
        let rtc = Rtc::builder()
            .clear_codecs()
            .enable_raw_packets(config.notes_asked)
            .enable_vp8(true)
            .enable_opus(true, config.red)
            .set_rtcp_report_interval_audio(REPORT_INTERVAL)
            .set_rtcp_report_interval_video(REPORT_INTERVAL);
        let mut peer = Peer::new(rtc, config.local, Clock::new(now, config.wall_ppm));
        peer.protocol = config.protocol;
        let mut candidate = String::new();
        if !config.trickle {
            candidate = peer.add_local_candidate();
        }
        let mut change = peer.rtc.sdp_api();
        let mut tracks = Vec::new();
        for (kind, config) in [(MediaKind::Audio, config.audio), (MediaKind::Video, config.video)] {
            if let Some(config) = config {
                let mid = change.add_media(kind, Direction::SendOnly, None, None, None);
                tracks.push(Track::new(kind, mid, None, config));
            }
        }
        if !config.encodings.is_empty() {
            let send = config.encodings.iter().map(|(rid, _)| SimulcastLayer::new(rid)).collect();
            let simulcast = Simulcast { send, recv: Vec::new() };
            let mid = change.add_media(MediaKind::Video, Direction::SendOnly, None, None, Some(simulcast));
            let track = |(rid, config)| Track::new(MediaKind::Video, mid, Some(Rid::from(rid)), config);
            tracks.extend(config.encodings.into_iter().map(track));
        }
        let (offer, pending) = change.apply().expect("a track to publish");
        peer.drain();
        if config.trickle {
            candidate = peer.add_local_candidate();
        }
        let publisher = Self {
            peer,
            tracks,
            reports: config.reports,
            pending: Some(pending),
            out: VecDeque::new(),
            connected_at: None,
            stopped: false,
            sent: Vec::new(),
            keyframe_requests: Vec::new(),
            ice: IceConnectionState::New,
            candidate,
            rtx: None,
            resent: 0,
            asked: Vec::new(),
        };
        (publisher, offer.to_sdp_string())
    }

    /// Takes the answer to the latest offer.
    pub fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("an SDP answer");
        let pending = self.pending.take().expect("an offer to answer");
        self.peer.rtc.sdp_api().accept_answer(pending, answer).expect("an answer to this offer");
        self.peer.drain();
        for track in &self.tracks {
            let mut api = self.peer.rtc.direct_api();
            if let Some(stream) = api.stream_tx_by_mid(track.mid, track.rid) {
                // str0m drops resends at more than 15 % of what it sends; a lossy link asks for more.
                stream.set_rtx_cache(RTX_CACHE.0, RTX_CACHE.1, None);
            }
            self.peer.drain();
        }
        self.rtx = self.rtx_payload_type();
    }

    /// Its own candidate, `candidate:…`.
    pub fn candidate(&self) -> &str {
        self.candidate.trim_start_matches("a=")
    }

    /// A candidate of the server, `candidate:…`.
    pub fn add_remote_candidate(&mut self, candidate: &str) {
        let candidate = Candidate::from_sdp_string(candidate).expect("a candidate");
        self.peer.rtc.add_remote_candidate(candidate);
        self.peer.drain();
    }

    /// A new offer with new ICE credentials, on the same connection.
    pub fn restart_ice(&mut self) -> String {
        let mut change = self.peer.rtc.sdp_api();
        change.ice_restart(true);
        let (offer, pending): (SdpOffer, _) = change.apply().expect("a restart to offer");
        self.pending = Some(pending);
        self.peer.drain();
        offer.to_sdp_string()
    }

    /// Each track goes on from new sources (SSRCs), as encoders that begin anew do; gives them.
    pub fn change_sources(&mut self) -> Vec<(MediaKind, u32)> {
        let mut sources = Vec::new();
        for track in &mut self.tracks {
            let mut api = self.peer.rtc.direct_api();
            let (new, repair) = (api.new_ssrc(), api.new_ssrc());
            let repair = track.kind.is_video().then_some(repair);
            api.reset_stream_tx(track.mid, track.rid, new, repair).expect("a stream with other sources");
            track.config.source.request_keyframe();
            sources.push((track.kind, *new));
            self.peer.drain();
        }
        sources
    }

    /// No more frames; ICE stays up.
    pub fn stop_sending(&mut self) {
        self.stopped = true;
    }

    /// Says goodbye: a DTLS close_notify.
    pub fn close(&mut self) {
        self.stopped = true;
        self.peer.rtc.close().expect("str0m closes");
        self.peer.drain();
    }

    /// When media began.
    pub fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }

    /// Whether its connection has neither failed nor been closed by either side.
    pub fn is_alive(&self) -> bool {
        self.peer.rtc.is_alive()
    }

    pub fn ice(&self) -> IceConnectionState {
        self.ice
    }

    /// Everything sent so far, in sending order.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    pub fn sent_of(&self, kind: MediaKind) -> Vec<Sent> {
        self.sent.iter().filter(|sent| sent.kind == kind).cloned().collect()
    }

    /// When keyframe requests (PLI, FIR) arrived.
    pub fn keyframe_requests(&self) -> &[Instant] {
        &self.keyframe_requests
    }

    /// The payload type of retransmitted video, readable in the RTP header; once answered.
    pub fn rtx_payload_type(&mut self) -> Option<u8> {
        let track = self.tracks.iter().find(|track| track.kind.is_video())?;
        let writer = self.peer.rtc.writer(track.mid)?;
        let rtx = writer.payload_params().find_map(|params| params.resend())?;
        Some(*rtx)
    }

    /// What its sources were asked for, if it notes that.
    pub fn asked(&self) -> &[(Instant, Asked)] {
        &self.asked
    }

    /// Packets of video that were sent again.
    pub fn resent(&self) -> usize {
        self.resent
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.peer.next_event() {
            match event {
                Event::Connected => {
                    self.connected_at.get_or_insert(now);
                }
                Event::RawPacket(packet) => {
                    if let RawPacket::RtcpRx(feedback) = &*packet {
                        self.asked.extend(Asked::of(feedback).map(|asked| (now, asked)));
                    }
                }
                Event::IceConnectionStateChange(state) => self.ice = state,
                Event::KeyframeRequest(request) => {
                    self.keyframe_requests.push(now);
                    let is_it = |track: &&mut Track| (track.mid, track.rid) == (request.mid, request.rid);
                    if let Some(track) = self.tracks.iter_mut().find(is_it) {
                        track.config.source.request_keyframe();
                    }
                }
                _ => {}
            }
        }
    }

    /// Sends what is due.
    fn send_media(&mut self, now: Instant) {
        for index in 0..self.tracks.len() {
            // Asked again for each frame: a peer that has closed the connection takes no more.
            while let Some(start) = self.media_start() {
                let track = &mut self.tracks[index];
                let captured = track.captured();
                if start + captured + track.config.encoding_takes > now {
                    break;
                }
                let rtp_time = track.rtp_time();
                let is_sent = track.is_sent();
                let following = track.config.source.next();
                let frame = std::mem::replace(&mut track.next, following);
                if is_sent {
                    track.sending = true;
                    let (kind, mid, rid) = (track.kind, track.mid, track.rid);
                    self.write((mid, rid), kind, start + captured, rtp_time, frame.data.clone());
                    self.sent.push(Sent { kind, rid, captured, keyframe: frame.keyframe, data: frame.data });
                }
            }
        }
    }

    fn write(
        &mut self,
        (mid, rid): (Mid, Option<Rid>),
        kind: MediaKind,
        captured: Instant,
        time: MediaTime,
        data: Arc<[u8]>,
    ) {
        let codec = if kind.is_video() { Codec::Vp8 } else { Codec::Opus };
        let shown = self.peer.shown(captured);
        let writer = self.peer.rtc.writer(mid).expect("a negotiated track");
        let payload_type: Option<Pt> =
            writer.payload_params().find(|params| params.spec().codec == codec).map(|params| params.pt());
        let payload_type = payload_type.expect("a negotiated codec");
        let writer = rid.into_iter().fold(writer, |writer, rid| writer.rid(rid));
        writer.write(payload_type, shown, time, data).expect("str0m takes the frame");
        self.peer.drain();
    }

    /// When media began, while it goes on: str0m takes none once its ICE has given up.
    fn media_start(&self) -> Option<Instant> {
        self.connected_at.filter(|_| !self.stopped && self.peer.rtc.is_alive())
    }

    fn next_media(&self) -> Option<Instant> {
        let start = self.media_start()?;
        self.tracks.iter().map(|track| start + track.captured() + track.config.encoding_takes).min()
    }

    /// str0m sends reports whether or not there was media (then claiming RTP time 0) and can't be told
    /// to hold them. Their header is readable in SRTCP, so they are held back here.
    fn may_report(&self, now: Instant) -> bool {
        let since = self.connected_at.map(|start| now.saturating_duration_since(start));
        let sending = self.tracks.iter().all(|track| track.sending);
        match self.reports {
            Reports::Always => sending,
            Reports::After(hold) => sending && since.is_some_and(|since| since >= hold),
            Reports::Never => false,
        }
    }
}

impl Endpoint for Publisher {
    fn receive(&mut self, now: Instant, datagram: Datagram) {
        self.peer.receive(now, &datagram);
        self.handle_events(now);
    }

    fn timeout(&mut self, now: Instant) {
        self.send_media(now);
        self.peer.timeout(now);
        self.handle_events(now);
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.peer.deadline().into_iter().chain(self.next_media()).min()
    }

    fn transmit(&mut self, now: Instant) -> Option<Datagram> {
        loop {
            let datagram = self.peer.next_datagram()?;
            let kind = rtp_payload_type(&datagram.bytes);
            self.resent += usize::from(kind.is_some() && kind == self.rtx);
            if !is_sender_report(&datagram.bytes) || self.may_report(now) {
                return Some(datagram);
            }
        }
    }
}

/// RTCP packet type 200 (RFC 3550 section 6.4.1); a compound packet begins with it.
fn is_sender_report(datagram: &[u8]) -> bool {
    matches!(datagram, [128..192, 200, ..])
}
