//! Where the peer is: STUN on one session's behalf.
//!
//! The ICE agent never leaves the first pair it selects when it is the controlled one, so a
//! peer whose address changes (NAT rebinding, another network) would be lost. Until a pair is
//! selected this module only listens; from then on it answers the peer's checks itself, follows the
//! peer to a new address after an exchange that only the peer could have made, and shows the agent
//! nothing but the address it knows (`selected`).
//!
//! A request alone moves nothing: an eavesdropper could replay one from elsewhere. The new
//! address must answer a fresh check of ours, signed with the peer's password (RFC 8445 section 7).
//!
//! An ICE restart must cost no media: the pair in use stays until the new generation is proven (RFC
//! 8445 section 9). The agent would drop everything from the restart to its next selection, so it hears
//! of none once it has selected a pair: it keeps the credentials it began with, and what it and the peer
//! say to each other is signed again in between.

mod stun;

use crate::base::metrics::metrics;
use crate::webrtc::TransportAddress;
use crate::webrtc::offer::Credentials;
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun::Signer;

/// Checks in flight that are remembered; older ones can't be answered any more.
const MAX_CHECKS: usize = 64;
/// A check that was not answered by then is forgotten.
const CHECK_LIFETIME: Duration = Duration::from_secs(5);
/// One address gets at most one check of ours in this time, so that forged sources can't make us
/// flood a victim.
const CHECK_PAUSE: Duration = Duration::from_millis(200);
/// Without any packet from the current address for this long, a valid check from another address
/// is enough to move there: a peer behind a NAT that rebinds does not know of it and nominates nothing.
const SILENCE: Duration = Duration::from_millis(500);

/// Without any packet from the current address for this long, media from another one is reason to
/// check that one; sooner it would be a packet that was delayed.
const QUIET: Duration = Duration::from_millis(100);

/// Requests from other addresses than the peer's whose signature is looked at, each [`OTHERS_WINDOW`]: a
/// browser that tries ten addresses at once sends a fifth. An attacker that has seen the user fragments can
/// send any number, and each signature costs as much as a packet of media.
const MAX_OTHERS: u32 = 100;
const OTHERS_WINDOW: Duration = Duration::from_secs(1);

/// What becomes of an incoming STUN message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// For the ICE agent, as if it came from this address.
    Agent(TransportAddress),
    /// Dealt with, or not worth an answer.
    Done,
}

/// Both sides' credentials from one ICE restart to the next.
#[derive(Clone, Debug)]
struct Generation {
    number: u64,
    local: Credentials,
    remote: Credentials,
}

/// A way to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The candidate of ours.
    pub local: SocketAddr,
    /// The peer's address. Its protocol is the candidate's too.
    pub remote: TransportAddress,
}

/// A peer's addresses.
pub(super) struct Paths {
    /// What the ICE agent knows.
    agent: Generation,
    /// What the peer has shown to use.
    generation: Generation,
    /// What it will use once it has the answer to its restart.
    next: Option<Generation>,
    signer: Signer,
    /// The peer's address in the pair that the ICE agent has selected.
    selected: Option<TransportAddress>,
    /// Where the peer is now, and the candidate of ours that it speaks to.
    current: Option<Path>,
    /// Last packet from the current address.
    heard: Instant,
    /// The connection to the current address is closed: nothing comes from there any more.
    closed: bool,
    checks: VecDeque<Check>,
    /// Requests from other addresses that were looked at, and since when.
    others: (Instant, u32),
    /// Last check of an address that only media came from.
    probed: Option<Instant>,
    /// The agent's own messages and ours, to be sent.
    pub outgoing: VecDeque<(Path, BytesMut)>,
    /// How long the last answered check took.
    pub round_trip: Option<Duration>,
    /// Requests and answers that the peer can't have signed.
    pub forged: u64,
    /// Addresses proven since the last look.
    pub proven: VecDeque<TransportAddress>,
}

struct Check {
    id: TransactionId,
    to: TransportAddress,
    at: Instant,
    /// Whose credentials it is signed with.
    generation: u64,
    purpose: Purpose,
}

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is the ICE agent's own.
    Agent,
    /// Whether the peer is there.
    Presence,
    /// The same, and the peer is followed there.
    Move,
}

impl Paths {
    /// Paths of a session with these credentials.
    pub fn new(
        local: Credentials,
        remote: Credentials,
        crypto: Arc<dyn RTCCryptoProvider>,
        now: Instant,
    ) -> Self {
        let first = Generation { number: 0, local, remote };
        Self {
            agent: first.clone(),
            generation: first,
            next: None,
            signer: Signer::new(crypto),
            selected: None,
            current: None,
            heard: now,
            closed: false,
            checks: VecDeque::new(),
            others: (now, 0),
            probed: None,
            outgoing: VecDeque::new(),
            round_trip: None,
            forged: 0,
            proven: VecDeque::new(),
        }
    }

    /// Whether the agent has selected a pair: from then on restarts are no business of it.
    pub fn has_selected_pair(&self) -> bool {
        self.selected.is_some()
    }

    /// A new ICE generation. With a pair in use that stays until the new one is proven; without, the
    /// agent has been given the new credentials too.
    pub fn restart(&mut self, local: Credentials, remote: Credentials) {
        let number = self.next.as_ref().unwrap_or(&self.generation).number + 1;
        let new = Generation { number, local, remote };
        if self.has_selected_pair() {
            self.next = Some(new);
        } else {
            (self.agent, self.generation) = (new.clone(), new);
            self.checks.clear();
        }
    }

    /// The generations that the peer may use, the newest first.
    fn in_use(&self) -> impl Iterator<Item = &Generation> {
        self.next.iter().chain([&self.generation])
    }

    /// The agent has selected this pair.
    pub fn select(&mut self, pair: Path, now: Instant) {
        if self.selected.replace(pair.remote) != Some(pair.remote) || self.current.is_none() {
            (self.current, self.heard, self.closed) = (Some(pair), now, false);
        }
    }

    /// Where what is sent to the peer goes, once a pair is selected.
    pub fn current(&self) -> Option<Path> {
        self.current
    }

    fn is_current(&self, remote: TransportAddress) -> bool {
        self.current.is_some_and(|current| current.remote == remote)
    }

    /// Notes a packet from this address.
    pub fn heard(&mut self, from: TransportAddress, now: Instant) {
        if self.is_current(from) {
            (self.heard, self.closed) = (now, false);
        }
    }

    /// Notes that the peer's connection from this address is closed. If that is where it was, it is followed to
    /// the next place that it shows itself at, without the wait for silence.
    pub fn closed(&mut self, from: TransportAddress) {
        self.closed |= self.is_current(from);
    }

    /// The address that the agent knows the sender of a packet by.
    fn known_as(&self, from: TransportAddress) -> TransportAddress {
        self.selected.filter(|_| self.is_current(from)).unwrap_or(from)
    }

    /// Takes a STUN message, which is signed again if it is for the agent and of a generation that the
    /// agent doesn't know. `authentic` is set if only the peer can have made it.
    pub fn inbound_stun(
        &mut self,
        from: TransportAddress,
        to: SocketAddr,
        datagram: &mut BytesMut,
        now: Instant,
        authentic: &mut bool,
    ) -> Inbound {
        let is_request = datagram.starts_with(&BINDING_REQUEST.value().to_be_bytes());
        if is_request && !self.is_current(from) && !self.admits_from_elsewhere(now) {
            return Inbound::Done;
        }
        let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
        if message.decode().is_err() {
            return Inbound::Done;
        }
        if message.typ == BINDING_REQUEST {
            let generation = self.generation_of(&mut message);
            *authentic = generation.is_some();
            self.forged += u64::from(!*authentic);
            generation.map_or(Inbound::Done, |generation| self.request(from, to, &message, &generation, now))
        } else if message.typ == BINDING_SUCCESS {
            let inbound = self.response(Path { local: to, remote: from }, &mut message, now, authentic);
            if let (Inbound::Agent(_), false) = (&inbound, self.agent.number == self.generation.number)
                && let Some(signed) = self.signer.resign(&message, None, &self.agent.remote.pwd)
            {
                *datagram = signed;
            }
            inbound
        } else {
            self.heard(from, now);
            Inbound::Agent(self.known_as(from))
        }
    }

    fn admits_from_elsewhere(&mut self, now: Instant) -> bool {
        let (since, looked) = &mut self.others;
        if now.saturating_duration_since(*since) >= OTHERS_WINDOW {
            (*since, *looked) = (now, 0);
        }
        *looked += 1;
        if *looked > MAX_OTHERS {
            metrics().refused("STUN requests");
        }
        *looked <= MAX_OTHERS
    }

    /// Whose credentials a request of the peer is signed with.
    fn generation_of(&self, message: &mut Message) -> Option<Generation> {
        let name = TextAttribute::get_from_as(message, ATTR_USERNAME).ok()?.text;
        let named = |generation: &&Generation| {
            name.split_once(':') == Some((generation.local.ufrag.as_str(), generation.remote.ufrag.as_str()))
        };
        let generation = self.in_use().find(named)?;
        self.signer.is_signed(message, &generation.local.pwd).then(|| generation.clone())
    }

    fn request(
        &mut self,
        from: TransportAddress,
        to: SocketAddr,
        message: &Message,
        generation: &Generation,
        now: Instant,
    ) -> Inbound {
        let (Some(selected), Some(current)) = (self.selected, self.current) else {
            return Inbound::Agent(from);
        };
        if let Some(answer) = self.signer.answer(message, from.address, &generation.local.pwd) {
            self.outgoing.push_back((Path { local: to, remote: from }, answer));
        }
        let is_next = generation.number > self.generation.number;
        if from == current.remote {
            self.heard(from, now);
            if generation.number == self.agent.number {
                return Inbound::Agent(selected);
            }
            if is_next {
                self.check(from, to, generation, Purpose::Presence, now);
            }
            return Inbound::Done;
        }
        let silent = self.closed || now.saturating_duration_since(self.heard) >= SILENCE;
        if message.contains(ATTR_USE_CANDIDATE) || silent {
            self.check(from, to, generation, Purpose::Move, now);
        } else if is_next {
            // Once it has nominated this address it sends from here at once.
            self.check(from, to, generation, Purpose::Presence, now);
        }
        Inbound::Done
    }

    /// Media of this session came from an unproven address. If the peer is silent where it was, that
    /// address is checked; only a signed answer moves anything (D4). At most one
    /// such check in [`CHECK_PAUSE`], whatever addresses are forged.
    pub fn probe(&mut self, from: TransportAddress, to: SocketAddr, now: Instant) {
        let within = |at: Instant, pause| now.saturating_duration_since(at) < pause;
        let asked = self.probed.is_some_and(|at| within(at, CHECK_PAUSE));
        let talks = !self.closed && within(self.heard, QUIET);
        if self.current.is_none_or(|current| current.remote == from) || talks || asked {
            return;
        }
        self.probed = Some(now);
        let generation = self.next.as_ref().unwrap_or(&self.generation).clone();
        self.check(from, to, &generation, Purpose::Move, now);
    }

    /// Checks whether the peer really is at `remote`, unless that has just been checked.
    fn check(
        &mut self,
        remote: TransportAddress,
        local: SocketAddr,
        generation: &Generation,
        purpose: Purpose,
        now: Instant,
    ) {
        let recent = |check: &&mut Check| {
            check.purpose != Purpose::Agent
                && (check.to, check.generation) == (remote, generation.number)
                && now.saturating_duration_since(check.at) < CHECK_PAUSE
        };
        if let Some(check) = self.checks.iter_mut().find(recent) {
            check.purpose = if purpose == Purpose::Move { purpose } else { check.purpose };
            return;
        }
        if let Some((id, request)) = self.signer.request(generation) {
            self.remember(id, remote, generation.number, purpose, now);
            self.outgoing.push_back((Path { local, remote }, request));
        }
    }

    fn remember(
        &mut self,
        id: TransactionId,
        to: TransportAddress,
        generation: u64,
        purpose: Purpose,
        at: Instant,
    ) {
        self.checks.retain(|check| at.saturating_duration_since(check.at) < CHECK_LIFETIME);
        if self.checks.len() == MAX_CHECKS {
            self.checks.pop_front();
        }
        self.checks.push_back(Check { id, to, at, generation, purpose });
    }

    fn response(&mut self, path: Path, message: &mut Message, now: Instant, authentic: &mut bool) -> Inbound {
        let from = path.remote;
        let asked =
            self.checks.iter().position(|check| check.id == message.transaction_id && check.to == from);
        let Some(check) = asked.and_then(|at| self.checks.remove(at)) else {
            return Inbound::Done;
        };
        let Some(generation) = self.in_use().find(|generation| generation.number == check.generation) else {
            return Inbound::Done;
        };
        let password = generation.remote.pwd.clone();
        if !self.signer.is_signed(message, &password) {
            self.forged += 1;
            return Inbound::Done;
        }
        *authentic = true;
        self.round_trip = Some(now.saturating_duration_since(check.at));
        self.proven.push_back(from);
        if check.purpose == Purpose::Move {
            if let Some(before) = self.current.replace(path).filter(|before| before.remote != from) {
                tracing::info!(from = %before.remote, to = %from, "the peer moved");
            }
            (self.heard, self.closed) = (now, false);
        }
        if self.is_current(from)
            && let Some(next) = self.next.take_if(|next| next.number == check.generation)
        {
            self.generation = next;
        }
        match check.purpose {
            Purpose::Agent => {
                self.heard(from, now);
                Inbound::Agent(self.known_as(from))
            }
            Purpose::Presence | Purpose::Move => Inbound::Done,
        }
    }

    /// Where a message of the agent goes that it means for `path`, signed again where that must be; `None` if it
    /// is not to be sent.
    pub fn outbound(&mut self, path: Path, datagram: &mut BytesMut, now: Instant) -> Option<Path> {
        let path = match (self.selected, self.current) {
            (Some(selected), Some(current)) if path.remote == selected => current,
            _ => path,
        };
        let is_request = datagram.starts_with(&BINDING_REQUEST.value().to_be_bytes());
        if !is_request {
            // From selection on, requests are answered by this module.
            return self.selected.is_none().then_some(path);
        }
        if let Some(Ok(id)) = datagram.get(8..20).map(TryInto::try_into) {
            self.remember(TransactionId(id), path.remote, self.generation.number, Purpose::Agent, now);
        }
        if self.agent.number != self.generation.number {
            let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
            message.decode().ok()?;
            let generation = &self.generation;
            *datagram = self.signer.resign(&message, Some(generation), &generation.remote.pwd)?;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::crypto::default_provider;
    use rtc::stun::fingerprint::FINGERPRINT;
    use rtc::stun::message::Setter;

    fn local(port: u16) -> SocketAddr {
        ([198, 51, 100, 7], port).into()
    }

    fn address(port: u16) -> TransportAddress {
        TransportAddress::udp(local(port))
    }

    fn paths(now: Instant) -> Paths {
        let credentials =
            |ufrag: &str| Credentials { ufrag: ufrag.to_owned(), pwd: format!("{ufrag}-secret") };
        let mut paths =
            Paths::new(credentials("ours"), credentials("theirs"), default_provider().unwrap(), now);
        paths.select(Path { local: local(8189), remote: address(1) }, now);
        paths
    }

    /// A check of the peer's, nominating or not.
    fn request(paths: &Paths, nominates: bool) -> BytesMut {
        let mut request = Message::new();
        request.typ = BINDING_REQUEST;
        request.transaction_id = TransactionId::new();
        request.write_header();
        request.add(ATTR_USERNAME, b"ours:theirs");
        if nominates {
            request.add(ATTR_USE_CANDIDATE, &[]);
        }
        let setters: [Box<dyn Setter + '_>; 2] =
            [Box::new(paths.signer.integrity("ours-secret")), Box::new(FINGERPRINT)];
        for setter in &setters {
            setter.add_to(&mut request).unwrap();
        }
        BytesMut::from(&request.raw[..])
    }

    /// What a peer with this password would answer to the newest check.
    fn answer(paths: &Paths, password: &str) -> BytesMut {
        let mut message = Message::new();
        let signed = paths.signer.integrity(password);
        let setters: [Box<dyn Setter + '_>; 4] = [
            Box::new(paths.checks.back().unwrap().id),
            Box::new(BINDING_SUCCESS),
            Box::new(signed),
            Box::new(FINGERPRINT),
        ];
        message.build(&setters).unwrap();
        BytesMut::from(&message.raw[..])
    }

    #[test]
    fn media_from_elsewhere_is_checked_only_in_silence_and_seldom() {
        let start = Instant::now();
        let (mut paths, local) = (paths(start), local(8189));
        let mut asked = Vec::new();
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            if ms < 300 {
                paths.heard(address(1), now);
            }
            paths.probe(address(1000 + ms as u16), local, now);
            if paths.outgoing.pop_front().is_some() {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [399, 599, 799, 999]);
        assert!(paths.is_current(address(1)));
    }

    #[test]
    fn a_flood_of_forged_requests_is_looked_at_a_hundred_times_a_second_and_the_peer_always() {
        let start = Instant::now();
        let mut paths = paths(start);
        for second in 0..3 {
            let now = start + Duration::from_secs(second);
            let looked = (0..10_000).filter(|_| paths.admits_from_elsewhere(now)).count();
            assert_eq!(looked, 100);
            let mut request = Message::new();
            let signed = paths.signer.integrity("ours-secret");
            let setters: [Box<dyn Setter + '_>; 4] = [
                Box::new(TransactionId::new()),
                Box::new(BINDING_REQUEST),
                Box::new(TextAttribute { attr: ATTR_USERNAME, text: "ours:theirs".to_owned() }),
                Box::new(signed),
            ];
            request.build(&setters).unwrap();
            drop(setters);
            for (from, expected) in [(address(1), true), (address(2), false)] {
                let mut authentic = false;
                let mut datagram = BytesMut::from(&request.raw[..]);
                paths.inbound_stun(from, local(8189), &mut datagram, now, &mut authentic);
                assert_eq!(authentic, expected, "from {from}");
            }
        }
    }

    #[test]
    fn only_the_peers_own_answer_from_the_asked_address_moves_it() {
        let start = Instant::now();
        let now = start + Duration::from_millis(200);
        let (mut paths, local, other, mut authentic) = (paths(start), local(8189), local(8190), false);
        paths.probe(address(2), local, now);
        let mut forged = answer(&paths, "a guess");
        paths.inbound_stun(address(2), local, &mut forged, now, &mut authentic);
        assert!(!authentic && paths.is_current(address(1)), "with another password");

        let now = now + CHECK_PAUSE;
        paths.probe(address(2), local, now);
        let mut signed = answer(&paths, "theirs-secret");
        paths.inbound_stun(address(3), local, &mut signed, now, &mut authentic);
        assert!(!authentic && paths.is_current(address(1)), "from another address");
        let later = now + Duration::from_millis(60);
        paths.inbound_stun(address(2), other, &mut signed, later, &mut authentic);
        assert!(authentic);
        assert_eq!(paths.round_trip, Some(Duration::from_millis(60)));
        assert_eq!(
            paths.current(),
            Some(Path { local: other, remote: address(2) }),
            "what follows goes there"
        );
        assert_eq!(paths.known_as(address(2)), address(1), "and is shown as from the selected address");
    }

    #[test]
    fn the_peers_tcp_address_is_another_than_the_same_one_of_udp() {
        let now = Instant::now();
        let (mut paths, to, mut authentic) = (paths(now), local(8189), false);
        let (udp, tcp) = (address(1), TransportAddress::tcp(local(1)));
        let mut nomination = request(&paths, true);
        paths.inbound_stun(tcp, to, &mut nomination, now, &mut authentic);
        assert!(authentic && paths.is_current(udp) && !paths.is_current(tcp));
        let asked: Vec<_> = paths.outgoing.drain(..).map(|(path, _)| path.remote).collect();
        assert_eq!(asked, [tcp, tcp], "an answer, and a check of ours");
        let mut signed = answer(&paths, "theirs-secret");
        authentic = false;
        paths.inbound_stun(udp, to, &mut signed, now, &mut authentic);
        assert!(!authentic && paths.is_current(udp), "the answer came another way");
        paths.inbound_stun(tcp, to, &mut signed, now, &mut authentic);
        assert!(authentic && paths.is_current(tcp));
        assert_eq!(paths.proven, [tcp]);
        assert_eq!(paths.known_as(tcp), udp, "the agent is told what it knows");
        let mut back = request(&paths, true);
        paths.inbound_stun(udp, to, &mut back, now, &mut authentic);
        let mut signed = answer(&paths, "theirs-secret");
        paths.inbound_stun(udp, to, &mut signed, now, &mut authentic);
        assert!(paths.is_current(udp), "and by nomination to UDP again");
    }

    #[test]
    fn a_peer_whose_connection_is_closed_is_followed_at_once() {
        let now = Instant::now();
        let (mut paths, to, mut authentic) = (paths(now), local(8189), false);
        let tcp = |port| TransportAddress::tcp(local(port));
        let mut go = |paths: &mut Paths, from| {
            let mut check = request(paths, false);
            paths.inbound_stun(from, to, &mut check, now, &mut authentic);
            if paths.outgoing.drain(..).count() == 2 {
                let mut signed = answer(paths, "theirs-secret");
                paths.inbound_stun(from, to, &mut signed, now, &mut authentic);
            }
        };
        paths.select(Path { local: to, remote: tcp(1) }, now);
        go(&mut paths, tcp(2));
        assert!(paths.is_current(tcp(1)), "it has just been heard of there");
        paths.closed(tcp(2));
        go(&mut paths, tcp(3));
        assert!(paths.is_current(tcp(1)), "another connection is closed");
        paths.closed(tcp(1));
        go(&mut paths, tcp(4));
        assert!(paths.is_current(tcp(4)));
        go(&mut paths, tcp(5));
        assert!(paths.is_current(tcp(4)), "this one is open");
    }
}
