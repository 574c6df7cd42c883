//! Where the peer is: STUN on one session's behalf.
//!
//! The ICE agent below never leaves the first pair it selects when it is the controlled one, so a
//! peer whose address changes (NAT rebinding, another network) would be lost. Until a pair is
//! selected this module only listens; from then on it answers the peer's checks itself, follows the
//! peer to a new address after an exchange that only the peer could have made, and shows the agent
//! nothing but the address it knows (`home`).
//!
//! A request alone moves nothing: whoever has captured one could replay it from elsewhere. The new
//! address must answer a fresh check of ours, signed with the peer's password (RFC 8445 section 7).

use crate::base::metrics::metrics;
use crate::ingest::webrtc::offer::Credentials;
use bytes::BytesMut;
use rtc::crypto::{RTCCryptoProvider, default_provider};
use rtc::stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use rtc::stun::xoraddr::XorMappedAddress;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Checks in flight that are remembered; older ones can't be answered any more.
const MAX_CHECKS: usize = 64;
/// A check that was not answered by then is forgotten.
const CHECK_LIFETIME: Duration = Duration::from_secs(5);
/// One address gets at most one check of ours in this time, so that forged sources can't make us
/// flood anybody.
const CHECK_PAUSE: Duration = Duration::from_millis(200);
/// Without any packet from the current address for this long, a valid check from another address
/// is enough to move there: a peer behind a NAT that rebinds does not know of it and nominates nothing.
const SILENCE: Duration = Duration::from_millis(500);

/// Without any packet from the current address for this long, media from another one is reason to
/// ask who is there; sooner it would be a packet that took its time.
const QUIET: Duration = Duration::from_millis(100);

/// Requests from other addresses than the peer's whose signature is looked at, each [`STRANGE_TIME`]: a
/// browser that tries ten addresses at once sends a fifth. Whoever has seen the user fragments can send
/// any number, and each signature costs as much as a packet of media.
const MAX_STRANGE: u32 = 100;
const STRANGE_TIME: Duration = Duration::from_secs(1);

/// What becomes of an incoming STUN message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// For the ICE agent, as if it came from this address.
    Agent(SocketAddr),
    /// Dealt with, or not worth an answer.
    Done,
}

/// A peer's addresses.
pub(super) struct Paths {
    local: Credentials,
    remote: Credentials,
    crypto: Arc<dyn RTCCryptoProvider>,
    /// The address the ICE agent has selected.
    home: Option<SocketAddr>,
    /// Where the peer is now.
    current: Option<SocketAddr>,
    /// Our address the peer talks to, for checks of our own.
    local_addr: Option<SocketAddr>,
    /// Last packet from the current address.
    heard: Instant,
    checks: VecDeque<Check>,
    /// Requests from elsewhere that were looked at, and since when.
    strange: (Instant, u32),
    /// Last check of an address that nobody has proven anything of.
    suspected: Option<Instant>,
    /// The agent's own messages and ours, to be sent.
    pub outgoing: VecDeque<(SocketAddr, SocketAddr, BytesMut)>,
    /// How long the last answered check took.
    pub round_trip: Option<Duration>,
    /// Requests and answers that the peer can't have signed.
    pub forged: u64,
    /// Addresses proven since the last look.
    pub proven: VecDeque<SocketAddr>,
}

struct Check {
    id: TransactionId,
    to: SocketAddr,
    at: Instant,
    /// Sent by this module, to decide on a move (else by the ICE agent).
    ours: bool,
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paths")
            .field("home", &self.home)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Paths {
    /// Paths of a session with these credentials; `None` if the build has no crypto provider.
    pub fn new(local: Credentials, remote: Credentials, now: Instant) -> Option<Self> {
        Some(Self {
            local,
            remote,
            crypto: default_provider().ok()?,
            home: None,
            current: None,
            local_addr: None,
            heard: now,
            checks: VecDeque::new(),
            strange: (now, 0),
            suspected: None,
            outgoing: VecDeque::new(),
            round_trip: None,
            forged: 0,
            proven: VecDeque::new(),
        })
    }

    /// A new ICE generation: everything is proven anew.
    pub fn restart(&mut self, local: Credentials, remote: Credentials) {
        (self.local, self.remote) = (local, remote);
        (self.home, self.current) = (None, None);
        self.checks.clear();
    }

    /// Notes a packet that is no STUN; returns the address the agent knows its sender by.
    pub fn inbound(&mut self, from: SocketAddr, now: Instant) -> SocketAddr {
        match (self.home, self.current) {
            (Some(home), Some(current)) if from == current => {
                self.heard = now;
                home
            }
            _ => from,
        }
    }

    /// Takes a STUN message. `authentic` is set if only the peer can have made it.
    pub fn inbound_stun(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
        now: Instant,
        authentic: &mut bool,
    ) -> Inbound {
        let is_request = datagram.starts_with(&BINDING_REQUEST.value().to_be_bytes());
        if is_request && self.current != Some(from) && !self.looks_at_stranger(now) {
            return Inbound::Done;
        }
        let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
        if message.decode().is_err() {
            return Inbound::Done;
        }
        if message.typ == BINDING_REQUEST {
            *authentic = self.is_from_peer(&mut message);
            self.forged += u64::from(!*authentic);
            if *authentic { self.request(from, to, &message, now) } else { Inbound::Done }
        } else if message.typ == BINDING_SUCCESS {
            self.response(from, &mut message, now, authentic)
        } else {
            Inbound::Agent(self.inbound(from, now))
        }
    }

    fn looks_at_stranger(&mut self, now: Instant) -> bool {
        let (since, looked) = &mut self.strange;
        if now.saturating_duration_since(*since) >= STRANGE_TIME {
            (*since, *looked) = (now, 0);
        }
        *looked += 1;
        if *looked > MAX_STRANGE {
            metrics().refused("STUN requests");
        }
        *looked <= MAX_STRANGE
    }

    fn is_from_peer(&self, message: &mut Message) -> bool {
        let expected = format!("{}:{}", self.local.ufrag, self.remote.ufrag);
        TextAttribute::get_from_as(message, ATTR_USERNAME).is_ok_and(|name| name.text == expected)
            && MessageIntegrity::check(message, self.local.pwd.as_bytes(), self.crypto.crypto()).is_ok()
    }

    fn request(&mut self, from: SocketAddr, to: SocketAddr, message: &Message, now: Instant) -> Inbound {
        let (Some(home), Some(current)) = (self.home, self.current) else {
            return Inbound::Agent(from);
        };
        self.local_addr = Some(to);
        self.answer(from, to, message);
        if from == current {
            self.heard = now;
            return Inbound::Agent(home);
        }
        let silent = now.saturating_duration_since(self.heard) >= SILENCE;
        if message.contains(ATTR_USE_CANDIDATE) || silent {
            self.check(from, to, now);
        }
        Inbound::Done
    }

    /// Media of this session came from an address that is nobody's. If the peer is silent where it
    /// was, that address is asked who it is; only a signed answer moves anything (D4). At most one
    /// such check in [`CHECK_PAUSE`], whatever addresses are forged.
    pub fn suspect(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) {
        let within = |at: Instant, pause| now.saturating_duration_since(at) < pause;
        let asked = self.suspected.is_some_and(|at| within(at, CHECK_PAUSE));
        if self.current.is_none_or(|current| current == from) || within(self.heard, QUIET) || asked {
            return;
        }
        self.suspected = Some(now);
        self.check(from, to, now);
    }

    /// Answers a check of the peer with the address it really came from.
    fn answer(&mut self, from: SocketAddr, to: SocketAddr, request: &Message) {
        let mut message = Message::new();
        let crypto = self.crypto.clone();
        let setters: [Box<dyn Setter + '_>; 5] = [
            Box::new(request.transaction_id),
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress { ip: from.ip(), port: from.port() }),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                self.local.pwd.clone(),
                crypto.crypto(),
            )),
            Box::new(FINGERPRINT),
        ];
        if message.build(&setters).is_ok() {
            self.outgoing.push_back((to, from, BytesMut::from(&message.raw[..])));
        }
    }

    /// Asks whether the peer really is at `at`.
    fn check(&mut self, at: SocketAddr, local: SocketAddr, now: Instant) {
        if self
            .checks
            .iter()
            .any(|c| c.ours && c.to == at && now.saturating_duration_since(c.at) < CHECK_PAUSE)
        {
            return;
        }
        let id = TransactionId::new();
        let mut message = Message::new();
        let crypto = self.crypto.clone();
        let name = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        // 110 is the type preference of a peer-reflexive candidate (RFC 8445 section 5.1.2.2).
        message.typ = BINDING_REQUEST;
        message.transaction_id = id;
        message.write_header();
        message.add(ATTR_USERNAME, name.as_bytes());
        message.add(ATTR_ICE_CONTROLLED, &rand::random::<[u8; 8]>());
        message.add(ATTR_PRIORITY, &(110_u32 << 24 | 0x00ff_ff00).to_be_bytes());
        let signed: [Box<dyn Setter + '_>; 2] = [
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                self.remote.pwd.clone(),
                crypto.crypto(),
            )),
            Box::new(FINGERPRINT),
        ];
        if signed.iter().all(|setter| setter.add_to(&mut message).is_ok()) {
            self.remember(id, at, now, true);
            self.outgoing.push_back((local, at, BytesMut::from(&message.raw[..])));
        }
    }

    fn remember(&mut self, id: TransactionId, to: SocketAddr, at: Instant, ours: bool) {
        self.checks.retain(|check| at.saturating_duration_since(check.at) < CHECK_LIFETIME);
        if self.checks.len() == MAX_CHECKS {
            self.checks.pop_front();
        }
        self.checks.push_back(Check { id, to, at, ours });
    }

    fn response(
        &mut self,
        from: SocketAddr,
        message: &mut Message,
        now: Instant,
        authentic: &mut bool,
    ) -> Inbound {
        let asked =
            self.checks.iter().position(|check| check.id == message.transaction_id && check.to == from);
        let Some(check) = asked.and_then(|at| self.checks.remove(at)) else {
            return Inbound::Done;
        };
        if MessageIntegrity::check(message, self.remote.pwd.as_bytes(), self.crypto.crypto()).is_err() {
            self.forged += 1;
            return Inbound::Done;
        }
        *authentic = true;
        self.round_trip = Some(now.saturating_duration_since(check.at));
        self.proven.push_back(from);
        if check.ours {
            tracing::info!(from = ?self.current, to = %from, "the peer moved");
            self.current = Some(from);
            self.heard = now;
            return Inbound::Done;
        }
        Inbound::Agent(self.inbound(from, now))
    }

    /// Turns what the ICE agent and the layers above it send into what goes out; `None` if it is
    /// not to be sent.
    pub fn outbound(&mut self, to: SocketAddr, datagram: &[u8], now: Instant) -> Option<SocketAddr> {
        let is_stun = datagram.first().is_some_and(|first| *first < 4);
        if !is_stun {
            // Only the selected pair carries anything else.
            if self.home.replace(to) != Some(to) || self.current.is_none() {
                self.current = Some(to);
                self.heard = now;
            }
            return self.current;
        }
        let target = match (self.home, self.current) {
            (Some(home), Some(current)) if to == home => current,
            _ => to,
        };
        let is_request = datagram.starts_with(&BINDING_REQUEST.value().to_be_bytes());
        if !is_request {
            // From selection on, requests are answered by this module.
            return self.home.is_none().then_some(target);
        }
        if let Some(Ok(id)) = datagram.get(8..20).map(TryInto::try_into) {
            self.remember(TransactionId(id), target, now, false);
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([198, 51, 100, 7], port).into()
    }

    fn paths(now: Instant) -> Paths {
        let credentials =
            |ufrag: &str| Credentials { ufrag: ufrag.to_owned(), pwd: format!("{ufrag}-secret") };
        let mut paths = Paths::new(credentials("ours"), credentials("hers"), now).unwrap();
        assert_eq!(paths.outbound(address(1), &[22], now), Some(address(1)), "the agent's pair");
        paths
    }

    /// What somebody who knows this password would answer to the newest check.
    fn answer(paths: &Paths, password: &str) -> Vec<u8> {
        let mut message = Message::new();
        let crypto = paths.crypto.clone();
        let signed =
            MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), crypto.crypto());
        let setters: [Box<dyn Setter + '_>; 4] = [
            Box::new(paths.checks.back().unwrap().id),
            Box::new(BINDING_SUCCESS),
            Box::new(signed),
            Box::new(FINGERPRINT),
        ];
        message.build(&setters).unwrap();
        message.raw
    }

    #[test]
    fn media_from_elsewhere_is_asked_who_it_is_only_in_silence_and_seldom() {
        let start = Instant::now();
        let (mut paths, local) = (paths(start), address(8189));
        let mut asked = Vec::new();
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            if ms < 300 {
                paths.inbound(address(1), now);
            }
            paths.suspect(address(1000 + ms as u16), local, now);
            if paths.outgoing.pop_front().is_some() {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [399, 599, 799, 999]);
        assert_eq!(paths.current, Some(address(1)));
    }

    #[test]
    fn a_flood_of_forged_requests_is_looked_at_a_hundred_times_a_second_and_the_peer_always() {
        let start = Instant::now();
        let mut paths = paths(start);
        for second in 0..3 {
            let now = start + Duration::from_secs(second);
            let looked = (0..10_000).filter(|_| paths.looks_at_stranger(now)).count();
            assert_eq!(looked, 100);
            let (mut request, crypto, password) =
                (Message::new(), paths.crypto.clone(), "ours-secret".to_owned());
            let signed = MessageIntegrity::new_short_term_integrity_with_provider(password, crypto.crypto());
            let setters: [Box<dyn Setter + '_>; 4] = [
                Box::new(TransactionId::new()),
                Box::new(BINDING_REQUEST),
                Box::new(TextAttribute { attr: ATTR_USERNAME, text: "ours:hers".to_owned() }),
                Box::new(signed),
            ];
            request.build(&setters).unwrap();
            for (from, expected) in [(address(1), true), (address(2), false)] {
                let mut authentic = false;
                paths.inbound_stun(from, address(8189), &request.raw, now, &mut authentic);
                assert_eq!(authentic, expected, "from {from}");
            }
        }
    }

    #[test]
    fn only_the_peers_own_answer_from_the_asked_address_moves_it() {
        let start = Instant::now();
        let now = start + Duration::from_millis(200);
        let (mut paths, local, mut authentic) = (paths(start), address(8189), false);
        paths.suspect(address(2), local, now);
        let forged = answer(&paths, "a guess");
        paths.inbound_stun(address(2), local, &forged, now, &mut authentic);
        assert_eq!((authentic, paths.current), (false, Some(address(1))), "with another password");

        let now = now + CHECK_PAUSE;
        paths.suspect(address(2), local, now);
        let signed = answer(&paths, "hers-secret");
        paths.inbound_stun(address(3), local, &signed, now, &mut authentic);
        assert_eq!((authentic, paths.current), (false, Some(address(1))), "from another address");
        let later = now + Duration::from_millis(60);
        paths.inbound_stun(address(2), local, &signed, later, &mut authentic);
        assert_eq!((authentic, paths.current), (true, Some(address(2))));
        assert_eq!(paths.round_trip, Some(Duration::from_millis(60)));
        assert_eq!(paths.outbound(address(1), &[22], later), Some(address(2)), "what follows goes there");
        assert_eq!(paths.inbound(address(2), later), address(1), "and is shown as from home");
    }
}
