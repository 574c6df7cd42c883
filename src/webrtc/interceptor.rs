//! Where packets leave the peer connection: decrypted, authentic, and not yet told apart.
//!
//! The peer connection knows one source (SSRC) of each section, whichever of those that its offer declares,
//! and drops the packets of all others. So they are taken from it in front of that choice, which
//! [`crate::webrtc::sources`] makes. What must count all of them does: congestion feedback
//! (transport-wide, so every source) and receiver reports.

use rtc::interceptor::{
    Interceptor, Packet, RTPHeaderExtension, ReceiverReportBuilder, StreamInfo, TaggedPacket,
    TwccReceiverBuilder,
};
use rtc::sansio::Protocol;
use rtc::sdp::extmap::TRANSPORT_CC_URI;
use rtc::shared::error::{Error, Result};
use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// What has come, in order. It is emptied after each datagram, which brings one packet at most.
pub(super) type ReceivedPackets = Receiver<TaggedPacket>;

/// The whole chain of interceptors of a peer connection that receives.
pub(super) struct ReceiveChain {
    congestion: Box<dyn Interceptor>,
    reports: Box<dyn Interceptor>,
    /// Payload types with the rates of their clocks.
    clocks: Vec<(u8, u32)>,
    /// Sources that reports are made of. The session admits a bounded number of them.
    reported: HashSet<u32>,
    received: Sender<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

impl ReceiveChain {
    /// `clocks` are the payload types that are expected, with the rates of their clocks; `congestion` the id
    /// of the extension that counts packets transport-wide.
    pub fn new(clocks: Vec<(u8, u32)>, congestion: Option<u8>) -> (Self, ReceivedPackets) {
        let (sender, received) = channel();
        let mut counter = TwccReceiverBuilder::new().build();
        if let Some(id) = congestion {
            // What one source has bound counts for all.
            let extension = RTPHeaderExtension { uri: TRANSPORT_CC_URI.to_owned(), id: u16::from(id) };
            let rtp_header_extensions = vec![extension];
            counter.bind_remote_stream(&StreamInfo { rtp_header_extensions, ..StreamInfo::default() });
        }
        let receive = Self {
            congestion: Box::new(counter),
            reports: Box::new(ReceiverReportBuilder::new().build()),
            clocks,
            reported: HashSet::new(),
            received: sender,
            outbound: VecDeque::new(),
        };
        (receive, received)
    }

    fn report_on(&mut self, packet: &TaggedPacket) {
        let Packet::Rtp(rtp) = &packet.message.packet else { return };
        let clock = self.clocks.iter().find(|(payload_type, _)| *payload_type == rtp.header.payload_type);
        if let Some((_, clock_rate)) = clock
            && self.reported.insert(rtp.header.ssrc)
        {
            let (ssrc, clock_rate) = (rtp.header.ssrc, *clock_rate);
            self.reports.bind_remote_stream(&StreamInfo { ssrc, clock_rate, ..StreamInfo::default() });
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for ReceiveChain {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<()> {
        self.report_on(&packet);
        self.congestion.handle_read(packet)?;
        while let Some(packet) = self.congestion.poll_read() {
            self.reports.handle_read(packet)?;
        }
        while let Some(packet) = self.reports.poll_read() {
            // An error means that the session is over.
            let _ = self.received.send(packet);
        }
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        None
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<()> {
        self.outbound.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        let own = self.outbound.pop_front();
        own.or_else(|| self.congestion.poll_write()).or_else(|| self.reports.poll_write())
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<()> {
        self.congestion.handle_timeout(now)?;
        self.reports.handle_timeout(now)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.congestion.poll_timeout().into_iter().chain(self.reports.poll_timeout()).min()
    }
}

/// Sources are bound when their packets come, whatever the peer connection thinks of them.
impl Interceptor for ReceiveChain {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
