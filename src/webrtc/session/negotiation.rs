//! A session's offers and answers.

use super::stalled::Watch;
use super::{AdmittedSources, Answer, Session, SessionConfig};
use crate::base::metrics::metrics;
use crate::rtp::{Pipeline, TrackSetup};
use crate::webrtc::PeerError;
use crate::webrtc::dtls::RepeatFilter;
use crate::webrtc::interceptor::ReceiveChain;
use crate::webrtc::offer::{self, Credentials, ParsedOffer};
use crate::webrtc::paths::Paths;
use crate::webrtc::simulcast::extension;
use crate::webrtc::sources::Sections;
use crate::webrtc::{Candidate, peer};
use rtc::sdp::extmap::TRANSPORT_CC_URI;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{RTCIceCandidateInit, RTCPeerConnection, RTCSessionDescription};

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
        let lines: Vec<&str> = offer::lines(&offer.reduced).collect();
        let (receive, received) = ReceiveChain::new(offer.clocks(), extension(&lines, TRANSPORT_CC_URI));
        let mut peer = peer::build(offer.peer_is_dtls_client(), receive, now).map_err(unusable)?;
        for address in &config.candidates {
            peer.add_local_candidate(peer::host_candidate(*address).map_err(unusable)?).map_err(unusable)?;
        }
        let answered = negotiate(&mut peer, &offer.reduced, now)?;
        let local =
            Credentials::find(&answered).ok_or_else(|| PeerError::BadSdp("no ICE credentials".to_owned()))?;
        let paths = Paths::new(local.clone(), offer.credentials().clone(), now)
            .ok_or_else(|| PeerError::BadSdp("no crypto provider".to_owned()))?;
        let setups: Vec<TrackSetup> = offer
            .recorded
            .iter()
            .map(|section| TrackSetup { format: section.format, nack: section.has_nack() })
            .collect();
        let mut session = Self {
            peer,
            received,
            admitted: AdmittedSources::default(),
            sections: Sections::new(&offer.recorded, offer.mids()),
            local,
            watch: Watch::default(),
            unrecorded_keyframe_requests: 0,
            origin: config.origin,
            pipeline: Pipeline::new(config.pipeline.clone(), &setups, config.origin),
            paths,
            repeats: RepeatFilter::default(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            idle_timeout: config.idle_timeout,
            start_bitrate: config.start_bitrate,
            candidates: 0,
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
        let answer = session.answer(&answered);
        Ok((session, answer))
    }

    /// Answers a further offer of the same peer connection: an ICE restart, with the same media.
    /// `None` if it is another one's: it has other keys, so it needs a session of its own.
    pub fn reoffer(&mut self, sdp: &str, now: Instant) -> Result<Option<Answer>, PeerError> {
        self.restarts.another(now)?;
        let mut offer = offer::parse(sdp)?;
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
        if let Some(known) = self.kept_credentials(restarts) {
            offer.reduced = known.put_into(&offer.reduced);
        }
        let answered = negotiate(&mut self.peer, &offer.reduced, now)?;
        self.sections.renew(&offer.recorded);
        self.offer = offer;
        if restarts {
            self.restarted(&answered, now);
        }
        self.add_offered_candidates();
        Ok(Some(self.answer(&answered)))
    }

    /// Restarts ICE from a WHIP fragment (RFC 9725 section 4.3.3); returns the server's fragment.
    pub fn restart(&mut self, fragment: &str, now: Instant) -> Result<(String, String), PeerError> {
        let credentials = Credentials::find(fragment)
            .ok_or_else(|| PeerError::BadSdp("an ICE restart needs a=ice-ufrag and a=ice-pwd".to_owned()))?;
        self.restarts.another(now)?;
        if credentials == *self.offer.credentials() {
            return Err(PeerError::BadSdp("an ICE restart needs new credentials".to_owned()));
        }
        let known = self.kept_credentials(true).unwrap_or_else(|| credentials.clone());
        let sdp = known.put_into(&self.offer.reduced);
        let answered = negotiate(&mut self.peer, &sdp, now)?;
        self.offer.reduced = sdp;
        self.offer.set_credentials(credentials);
        self.offer.candidates = offer::candidates(fragment);
        self.restarted(&answered, now);
        self.add_offered_candidates();
        Ok((fragment_of(&self.answer(&answered).sdp), self.etag()))
    }

    /// The peer's credentials that the peer connection goes on with, whatever the peer has by now:
    /// those that it knows, unless it is to restart ICE itself. Once it has selected a pair it would
    /// drop all media until it selects the next, so from then on restarts are a matter of the paths.
    fn kept_credentials(&self, restarts: bool) -> Option<Credentials> {
        if restarts && !self.paths.has_selected_pair() {
            None
        } else {
            Credentials::find(&self.offer.reduced)
        }
    }

    fn restarted(&mut self, answered: &str, now: Instant) {
        self.local = match Credentials::find(answered) {
            Some(local) if !self.paths.has_selected_pair() => local,
            _ => Credentials::random(),
        };
        self.candidates = 0;
        self.paths.restart(self.local.clone(), self.offer.credentials().clone());
        // The peer has just spoken to us, by way of signalling.
        self.last_heard = now;
    }

    fn answer(&self, answered: &str) -> Answer {
        let (mid, index) = self.offer.tagged();
        let index = mid.is_none().then(|| index.try_into().ok()).flatten();
        let mid = mid.map(str::to_owned);
        let candidates = offer::candidates(answered)
            .into_iter()
            .map(|candidate| Candidate { candidate, sdp_mid: mid.clone(), sdp_m_line_index: index })
            .collect();
        let sdp = self.local.put_into(&self.offer.answer(answered, self.start_bitrate));
        Answer { sdp, candidates, etag: self.etag() }
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
        if self.candidates == MAX_CANDIDATES {
            metrics().refused("candidates");
            return Err(PeerError::RateLimited("the candidates of one session"));
        }
        let text = candidate.strip_prefix("a=").unwrap_or(candidate);
        let fields: Vec<&str> = text.split(' ').collect();
        let usable = fields.len() >= 8
            && fields[2].eq_ignore_ascii_case("udp")
            && fields[4].parse::<std::net::IpAddr>().is_ok();
        if usable {
            self.candidates += 1;
        }
        // From the selection of a pair on, the paths follow the peer wherever it proves to be.
        if usable && !self.paths.has_selected_pair() {
            let init = RTCIceCandidateInit { candidate: text.to_owned(), ..Default::default() };
            if let Err(error) = self.peer.add_remote_candidate(init) {
                tracing::debug!(%error, candidate = text, "a candidate is ignored");
            }
        }
        Ok(())
    }
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

fn negotiate(peer: &mut RTCPeerConnection, offer: &str, now: Instant) -> Result<String, PeerError> {
    let offer = RTCSessionDescription::offer(offer.to_owned()).map_err(unusable)?;
    peer.set_remote_description(now, offer).map_err(unusable)?;
    let answer = peer.create_answer(None).map_err(unusable)?;
    peer.set_local_description(now, answer.clone()).map_err(unusable)?;
    Ok(answer.sdp)
}

#[cfg(test)]
mod tests {
    use super::*;

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
