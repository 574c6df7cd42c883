//! A bare session on the `str0m` crate: decrypts, puts frames together, reports, throws away.

use crate::bare::{Send, Session};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc};

pub struct Str0mSession(Rtc);

impl Session for Str0mSession {
    fn accept(offer: &str, local: SocketAddr, now: Instant) -> (Self, String) {
        let rtc = Rtc::builder().clear_codecs().enable_vp8(true).enable_opus(true, false).build(now);
        let mut session = Self(rtc);
        session.0.add_local_candidate(Candidate::host(local, "udp").unwrap());
        session.drain(now, &mut |_, _| {});
        let offer = SdpOffer::from_sdp_string(offer).unwrap();
        let answer = session.0.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        session.drain(now, &mut |_, _| {});
        (session, answer)
    }

    /// Drains at once: str0m wants all output taken before the next input.
    fn receive(&mut self, now: Instant, path: (SocketAddr, SocketAddr), datagram: &[u8], send: Send<'_>) {
        // What it can't read is nothing that a peer would answer.
        if let Ok(received) = Receive::new(Protocol::Udp, path.0, path.1, datagram) {
            let _ = self.0.handle_input(Input::Receive(now, received));
            self.drain(now, send);
        }
    }

    fn timeout(&mut self, now: Instant) {
        let _ = self.0.handle_input(Input::Timeout(now));
    }

    fn drain(&mut self, now: Instant, send: Send<'_>) -> Instant {
        loop {
            match self.0.poll_output() {
                Ok(Output::Timeout(at)) => return at,
                Ok(Output::Transmit(datagram)) => send(datagram.destination, &datagram.contents),
                Ok(Output::Event(_)) => {}
                Err(_) => return now + Duration::from_secs(1),
            }
        }
    }
}
