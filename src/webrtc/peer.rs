//! One peer connection's transport, assembled from the protocol crates: ICE finds the way to the peer (RFC
//! 8445), [`paths`](crate::webrtc::paths) follows it from there, DTLS agrees on keys (RFC 5764), and what comes
//! protected by them is opened where it lies.
//!
//! No datagram of media passes through anything but [`Inbound`]; the rest is a few datagrams a second.

use crate::webrtc::TransportAddress;
use crate::webrtc::dtls::{Association, Identity, Outcome};
use crate::webrtc::offer::Credentials;
use crate::webrtc::packet_path::srtp::{Inbound, Outbound};
use crate::webrtc::paths::{self, Path, Paths};
use crate::webrtc::session::Transmit;
use bytes::BytesMut;
use rtc::ice::candidate::unmarshal_candidate;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::ice::{Agent, AgentConfig, Event};
use rtc::sansio::Protocol;
use rtc::shared::error::Result;
use rtc::shared::{TaggedBytesMut, TransportContext};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The session decides when a peer is gone; the agent must not be quicker.
const ICE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the agent checks the path in use.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// How a peer connection begins.
pub(super) struct Setup<'a> {
    pub local: &'a Credentials,
    pub remote: &'a Credentials,
    /// Our candidates, as [`candidate_line`] writes them.
    pub candidates: &'a [String],
    /// The peer is ICE-lite, so that we nominate (RFC 8445 section 6.1.1).
    pub controlling: bool,
    /// The peer begins the DTLS handshake.
    pub peer_is_dtls_client: bool,
}

/// What a peer connection tells.
pub(super) enum PeerEvent {
    /// It is up, with a peer that has shown this certificate (DER).
    Connected(Vec<u8>),
    /// The peer has closed it.
    Closed,
}

pub(super) struct Peer {
    agent: Agent,
    pub paths: Paths,
    dtls: Association,
    identity: Arc<Identity>,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
    /// Where RTCP is sealed; used again once what was is sent.
    sealing: BytesMut,
    events: VecDeque<PeerEvent>,
    outbox: VecDeque<Transmit>,
    /// When ICE or DTLS wants the time; kept, since to ask them costs more than a packet does.
    due: Option<Instant>,
}

impl Peer {
    pub fn new(setup: &Setup<'_>, identity: &Arc<Identity>, now: Instant) -> Result<Self> {
        let Setup { local, remote, candidates, controlling, peer_is_dtls_client } = *setup;
        let config = AgentConfig {
            local_ufrag: local.ufrag.clone(),
            local_pwd: local.pwd.clone(),
            multicast_dns_mode: MulticastDnsMode::Disabled,
            disconnected_timeout: Some(ICE_TIMEOUT),
            failed_timeout: Some(ICE_TIMEOUT),
            keepalive_interval: Some(KEEPALIVE),
            ..AgentConfig::default()
        };
        let mut agent = Agent::new(now, Arc::new(config), identity.crypto.clone())?;
        for candidate in candidates {
            agent.add_local_candidate(unmarshal_candidate(candidate)?)?;
        }
        agent.start_connectivity_checks(now, controlling, remote.ufrag.clone(), remote.pwd.clone())?;
        let due = agent.poll_timeout();
        Ok(Self {
            agent,
            paths: Paths::new(local.clone(), remote.clone(), identity.crypto.clone(), now),
            dtls: Association::new(identity, !peer_is_dtls_client),
            identity: identity.clone(),
            inbound: None,
            outbound: None,
            sealing: BytesMut::new(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            due,
        })
    }

    /// Asks ICE and DTLS when they want the time, behind whatever was done with them.
    fn note_due(&mut self) {
        self.due = self.agent.poll_timeout().into_iter().chain(self.dtls.deadline()).min();
    }

    /// Takes a candidate of the peer (`candidate:…`). From the selection of a pair on, the paths follow the peer
    /// wherever it proves to be.
    pub fn add_candidate(&mut self, candidate: &str) -> Result<()> {
        if !self.paths.has_selected_pair() {
            self.agent.add_remote_candidate(unmarshal_candidate(candidate)?)?;
            self.note_due();
        }
        Ok(())
    }

    /// ICE restarts with these credentials. The agent would drop everything until its next selection, so it hears
    /// of it only if it has selected nothing yet.
    pub fn restart(&mut self, local: &Credentials, remote: &Credentials, now: Instant) -> Result<()> {
        if !self.paths.has_selected_pair() {
            self.agent.restart(now, local.ufrag.clone(), local.pwd.clone(), true)?;
            self.agent.set_remote_credentials(remote.ufrag.clone(), remote.pwd.clone())?;
            self.note_due();
        }
        self.paths.restart(local.clone(), remote.clone());
        Ok(())
    }

    /// Takes a STUN message that came from `from` to our candidate `to`; whether only the peer can have made it.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        from: TransportAddress,
        to: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let (mut message, mut authentic) = (BytesMut::from(datagram), false);
        let inbound = self.paths.inbound_stun(from, to, &mut message, now, &mut authentic);
        if let paths::Inbound::Agent(known_as) = inbound {
            let transport = TransportContext {
                local_addr: to,
                peer_addr: known_as.address,
                transport_protocol: known_as.protocol.into(),
                ecn: None,
            };
            if let Err(error) = self.agent.handle_read(TaggedBytesMut { now, transport, message }) {
                tracing::debug!(%error, "a STUN message is dropped");
            }
            self.take_from_agent(now);
            self.note_due();
        }
        authentic
    }

    /// Takes a DTLS datagram.
    pub fn handle_dtls(&mut self, now: Instant, from: TransportAddress, datagram: &[u8]) {
        if !self.paths.has_selected_pair() {
            return;
        }
        self.paths.heard(from, now);
        match self.dtls.read(now, datagram) {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Closed) => self.events.push_back(PeerEvent::Closed),
            Ok(Outcome::Agreed(agreed)) => {
                let keys = &agreed.srtp.keys;
                let (profile, crypto) = (agreed.srtp.profile, self.identity.crypto.crypto());
                let inbound =
                    Inbound::new(profile, &keys.remote_master_key, &keys.remote_master_salt, crypto);
                let (key, salt) = (&keys.local_master_key, &keys.local_master_salt);
                match (inbound, Outbound::new(profile, key, salt, crypto)) {
                    (Ok(inbound), Ok(outbound)) => {
                        (self.inbound, self.outbound) = (Some(inbound), Some(outbound));
                        self.events.push_back(PeerEvent::Connected(agreed.certificate));
                    }
                    (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "SRTP keys"),
                }
            }
            Err(error) => tracing::debug!(%error, "a DTLS datagram is dropped"),
        }
        // Once it is up, only an alert of the peer's own makes DTLS send one (record type 21, RFC 5246 section
        // 6.2.1).
        if self.flush_dtls() && self.inbound.is_some() {
            self.events.push_back(PeerEvent::Closed);
        }
        self.note_due();
    }

    /// What opens SRTP, once the handshake is through.
    pub fn inbound(&mut self) -> Option<&mut Inbound> {
        self.inbound.as_mut()
    }

    /// Sends a compound RTCP packet, once there are keys and a path.
    pub fn send_rtcp(&mut self, packet: &[u8]) {
        let Some(outbound) = &mut self.outbound else { return };
        self.sealing.extend_from_slice(packet);
        let sealed = outbound.seal(&mut self.sealing);
        let data = self.sealing.split();
        match sealed {
            Ok(()) => self.send(data),
            Err(error) => tracing::debug!(%error, "feedback is not sent"),
        }
    }

    fn send(&mut self, data: BytesMut) {
        if let Some(Path { local, remote }) = self.paths.current() {
            self.outbox.push_back(Transmit { from: local, to: remote, data });
        }
    }

    /// Puts what DTLS has to say into the outbox; whether there is an alert in it.
    fn flush_dtls(&mut self) -> bool {
        let mut alert = false;
        while let Some(data) = self.dtls.poll_transmit() {
            alert |= data.first() == Some(&21);
            self.send(data);
        }
        alert
    }

    /// What the agent says goes out before what it has decided counts: its answer to the check that nominates the
    /// pair is still its own.
    fn take_from_agent(&mut self, now: Instant) {
        while let Some(message) = self.agent.poll_write() {
            let TransportContext { local_addr, peer_addr, transport_protocol, .. } = message.transport;
            let remote = TransportAddress { protocol: transport_protocol.into(), address: peer_addr };
            let (path, mut data) = (Path { local: local_addr, remote }, message.message);
            if let Some(Path { local, remote }) = self.paths.outbound(path, &mut data, now) {
                self.outbox.push_back(Transmit { from: local, to: remote, data });
            }
        }
        while let Some(event) = self.agent.poll_event() {
            let Event::SelectedCandidatePairChange(local, remote) = event.event else { continue };
            // The agent tells its peer's candidates apart by their addresses alone.
            let protocol = local.network_type().to_protocol().into();
            let remote = TransportAddress { protocol, address: remote.addr() };
            self.paths.select(Path { local: local.base_addr(), remote }, now);
            if let Err(error) = self.dtls.begin(now) {
                tracing::warn!(%error, "the DTLS handshake can't begin");
            }
            self.flush_dtls();
        }
    }

    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let own = |(Path { local, remote }, data)| Transmit { from: local, to: remote, data };
        self.outbox.pop_front().or_else(|| self.paths.outgoing.pop_front().map(own))
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        if let Err(error) = self.agent.handle_timeout(now) {
            tracing::debug!(%error, "ICE timers");
        }
        self.take_from_agent(now);
        self.dtls.handle_timeout(now);
        self.flush_dtls();
        self.note_due();
    }

    /// When `handle_timeout` is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Says goodbye to the peer.
    pub fn close(&mut self, now: Instant) {
        self.dtls.close(now);
        self.flush_dtls();
        if let Err(error) = self.agent.close() {
            tracing::debug!(%error, "closing ICE");
        }
    }
}
