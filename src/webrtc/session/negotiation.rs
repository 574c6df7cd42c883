//! A session's offers and answers.

use super::packets::Receiver;
use super::stalled::Watch;
use super::{Answer, Session, SessionConfig};
use crate::base::metrics::metrics;
use crate::rtp::{Pipeline, TrackSetup};
use crate::webrtc::offer::{self, Credentials, LocalTransport, ParsedOffer};
use crate::webrtc::peer::{Peer, Setup};
use crate::webrtc::sources::Sections;
use crate::webrtc::{Candidate, PeerError, Protocol, TransportAddress};
use rtc::ice::tcp_type::TcpType;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{RTCIceCandidate, RTCSessionDescription};

/// Candidates of a peer in one ICE generation; a browser with many interfaces has some twenty. Each is
/// sent checks, wherever it points.
const MAX_CANDIDATES: usize = 64;
/// Every negotiation costs the loop of all sessions about a millisecond. One a second for each session
/// is more than any network change needs,
const RESTART_EVERY: Duration = Duration::from_secs(1);
/// and so many may come at once.
const RESTART_BURST: u32 = 10;

/// How often a session has been renegotiated.
#[derive(Debug)]
pub(super) struct Restarts {
    /// When all that came will have been paid for.
    paid: Instant,
}

impl Restarts {
    fn another(&mut self, now: Instant) -> Result<(), PeerError> {
        let paid = self.paid.max(now) + RESTART_EVERY;
        if paid > now + RESTART_EVERY * RESTART_BURST {
            metrics().refused("ICE restarts");
            return Err(PeerError::RateLimited("the ICE restarts of one session"));
        }
        self.paid = paid;
        Ok(())
    }
}

impl Session {
    /// Answers an offer.
    pub fn accept(sdp: &str, config: &SessionConfig, now: Instant) -> Result<(Self, Answer), PeerError> {
        let offer = offer::parse(sdp)?;
        let candidates = host_candidates(&config.candidates).map_err(unusable)?;
        let local = Credentials::random();
        let setup = Setup {
            local: &local,
            remote: offer.credentials(),
            candidates: &candidates,
            controlling: offer.is_ice_lite,
            peer_is_dtls_client: offer.peer_is_dtls_client(),
        };
        let peer = Peer::new(&setup, &config.identity, now).map_err(unusable)?;
        let setups: Vec<TrackSetup> = offer
            .recorded
            .iter()
            .map(|section| TrackSetup { format: section.format, nack: section.has_nack() })
            .collect();
        let mut session = Self {
            peer,
            receiver: Receiver::new(&offer),
            identity: config.identity.clone(),
            own_candidates: candidates,
            origin_line: (rand::random_range(1..=u64::from(u32::MAX)), 0),
            sections: Sections::new(&offer.recorded, offer.mids()),
            local,
            watch: Watch::default(),
            unrecorded_keyframe_requests: 0,
            origin: config.origin,
            pipeline: Pipeline::new(config.pipeline.clone(), &setups, config.origin),
            events: VecDeque::new(),
            idle_timeout: config.idle_timeout,
            start_bitrate: config.start_bitrate,
            peer_candidates: 0,
            restarts: Restarts { paid: now },
            began: now,
            connected: false,
            last_heard: now,
            last_media: now,
            stopping: None,
            over: false,
            offer,
        };
        session.add_offered_candidates();
        let answer = session.answer()?;
        Ok((session, answer))
    }

    /// Answers a further offer of the same peer connection: an ICE restart, with the same media.
    /// `None` if it is another one's: it has other keys, so it needs a session of its own.
    pub fn reoffer(&mut self, sdp: &str, now: Instant) -> Result<Option<Answer>, PeerError> {
        self.restarts.another(now)?;
        let offer = offer::parse(sdp)?;
        if offer.identity() != self.offer.identity() {
            return Ok(None);
        }
        let tracks =
            |offer: &ParsedOffer| offer.recorded.iter().map(|c| (c.index, c.format)).collect::<Vec<_>>();
        if tracks(&offer) != tracks(&self.offer) {
            return Err(PeerError::BadSdp(
                "a re-offer must have the same tracks: stop and publish again".to_owned(),
            ));
        }
        let restarts = offer.credentials() != self.offer.credentials();
        self.sections.renew(&offer.recorded);
        self.receiver.renew(&offer);
        self.offer = offer;
        if restarts {
            self.restarted(now)?;
        }
        self.add_offered_candidates();
        self.answer().map(Some)
    }

    /// Restarts ICE from a WHIP fragment (RFC 9725 section 4.3.3); returns the server's fragment.
    pub fn restart(&mut self, fragment: &str, now: Instant) -> Result<(String, String), PeerError> {
        let credentials = Credentials::find(fragment)
            .ok_or_else(|| PeerError::BadSdp("an ICE restart needs a=ice-ufrag and a=ice-pwd".to_owned()))?;
        self.restarts.another(now)?;
        if credentials == *self.offer.credentials() {
            return Err(PeerError::BadSdp("an ICE restart needs new credentials".to_owned()));
        }
        self.offer.set_credentials(credentials);
        self.offer.candidates = offer::candidates(fragment);
        self.restarted(now)?;
        self.add_offered_candidates();
        Ok((fragment_of(&self.answer()?.sdp), self.etag()))
    }

    fn restarted(&mut self, now: Instant) -> Result<(), PeerError> {
        let local = Credentials::random();
        self.peer.restart(&local, self.offer.credentials(), now).map_err(unusable)?;
        (self.local, self.peer_candidates) = (local, 0);
        // The peer has just spoken to us, by way of signalling.
        self.last_heard = now;
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, PeerError> {
        let (id, version) = self.origin_line;
        self.origin_line = (id, version + 1);
        let local = LocalTransport {
            credentials: &self.local,
            fingerprint: self.identity.fingerprint(),
            candidates: &self.own_candidates,
            origin: self.origin_line,
        };
        // Parsed once more: nothing leaves that is no session description.
        let sdp = self.offer.answer(&local, self.start_bitrate);
        let sdp = RTCSessionDescription::answer(sdp).map_err(unusable)?.sdp;
        let (mid, index) = self.offer.tagged();
        let index = mid.is_none().then(|| index.try_into().ok()).flatten();
        let mid = mid.map(str::to_owned);
        let told = |candidate: &String| Candidate {
            candidate: candidate.clone(),
            sdp_mid: mid.clone(),
            sdp_m_line_index: index,
        };
        let candidates = self.own_candidates.iter().map(told).collect();
        Ok(Answer { sdp, candidates, etag: self.etag() })
    }

    fn add_offered_candidates(&mut self) {
        for candidate in std::mem::take(&mut self.offer.candidates) {
            // One too many is counted, and no reason to refuse the offer.
            let _ = self.add_candidate(&candidate);
        }
    }

    /// Adds a candidate of the peer. A `.local` or broken one is ignored: the peer's own checks
    /// reveal its address.
    pub fn add_candidate(&mut self, candidate: &str) -> Result<(), PeerError> {
        if self.peer_candidates == MAX_CANDIDATES {
            metrics().refused("candidates");
            return Err(PeerError::RateLimited("the candidates of one session"));
        }
        let text = candidate.strip_prefix("a=").unwrap_or(candidate);
        let fields: Vec<&str> = text.split(' ').collect();
        let usable = fields.len() >= 8
            && fields[2].eq_ignore_ascii_case("udp")
            && fields[4].parse::<std::net::IpAddr>().is_ok();
        if usable {
            self.peer_candidates += 1;
            if let Err(error) = self.peer.add_candidate(text) {
                tracing::debug!(%error, candidate = text, "a candidate is ignored");
            }
        }
        Ok(())
    }
}

/// Our addresses, the best first, as host candidates.
fn host_candidates(offered: &[TransportAddress]) -> rtc::shared::error::Result<Vec<String>> {
    let mut places = [0, 0];
    let one = |offered: &TransportAddress| {
        let place = &mut places[usize::from(offered.protocol == Protocol::Tcp)];
        *place += 1;
        host_candidate(*offered, *place - 1)
    };
    offered.iter().map(one).collect()
}

/// One of our addresses as a host candidate, `candidate:…`; the lower its `place` among those of its protocol, the better.
fn host_candidate(offered: TransportAddress, place: u16) -> rtc::shared::error::Result<String> {
    let (network, tcp_type, local_preference) = match offered.protocol {
        Protocol::Udp => ("udp", TcpType::Unspecified, u16::MAX - place),
        // RFC 6544 section 4.2: direction 4 is a host candidate's that waits for connections. Thereby every
        // UDP one comes first.
        Protocol::Tcp => ("tcp", TcpType::Passive, (4 << 13) + (8191 - place)),
    };
    let component = 1;
    let config = CandidateHostConfig {
        base_config: CandidateConfig {
            network: network.to_owned(),
            address: offered.address.ip().to_string(),
            port: offered.address.port(),
            component,
            // RFC 8445 section 5.1.2.1; 126 is for host candidates.
            priority: 126 << 24 | u32::from(local_preference) << 8 | (256 - u32::from(component)),
            ..Default::default()
        },
        tcp_type,
    };
    Ok(RTCIceCandidate::from(&config.new_candidate_host()?).to_json()?.candidate)
}

fn unusable(error: impl std::fmt::Display) -> PeerError {
    PeerError::BadSdp(format!("the SDP offer can't be used: {error}"))
}

/// What a WHIP client needs of an answer after an ICE restart (RFC 8840 section 9).
fn fragment_of(answer: &str) -> String {
    let wanted = ["m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"];
    offer::lines(answer)
        .filter(|line| wanted.iter().any(|key| line.starts_with(key)))
        .fold(String::new(), |out, line| out + line + "\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_what_others_read_as_ours_and_udp_comes_before_tcp() {
        let addresses = ["203.0.113.7:8189", "[2001:db8::7]:8189"].map(|text| text.parse().unwrap());
        let offered = [addresses.map(TransportAddress::udp), addresses.map(TransportAddress::tcp)].concat();
        let mut priorities = Vec::new();
        for (offered, line) in offered.iter().zip(host_candidates(&offered).unwrap()) {
            let read = str0m::Candidate::from_sdp_string(&line).unwrap();
            let is_tcp = offered.protocol == Protocol::Tcp;
            assert_eq!(read.addr(), offered.address, "{line}");
            assert_eq!(read.proto() == str0m::net::Protocol::Tcp, is_tcp, "{line}");
            assert_eq!(read.tcptype(), is_tcp.then_some(str0m::net::TcpType::Passive), "{line}");
            assert_eq!(line.ends_with(" typ host tcptype passive"), is_tcp, "{line}");
            let agents = rtc::ice::candidate::unmarshal_candidate(&line).unwrap();
            assert_eq!((agents.addr(), agents.network_type().is_tcp()), (offered.address, is_tcp), "{line}");
            priorities.push(agents.priority());
        }
        // RFC 8445 section 5.1.2.1 and RFC 6544 section 4.2, by hand.
        assert_eq!(priorities, [2_130_706_431, 2_130_706_175, 2_124_414_975, 2_124_414_719]);
    }

    #[test]
    fn restarts_may_come_in_a_burst_and_then_one_a_second() {
        let start = Instant::now();
        let mut restarts = Restarts { paid: start };
        let taken = |restarts: &mut Restarts, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter(|_| restarts.another(now).is_ok()).count()
        };
        assert_eq!(taken(&mut restarts, 0), 10);
        assert_eq!(taken(&mut restarts, 1), 1);
        assert_eq!(taken(&mut restarts, 4), 3);
        assert_eq!(taken(&mut restarts, 1000), 10);
        let refused = (0..11).find_map(|_| restarts.another(start).err()).unwrap();
        assert!(matches!(refused, PeerError::RateLimited(_)), "{refused}");
    }
}
