//! The shell around one `str0m::Rtc`: datagrams and time in, datagrams and events out, and a wall
//! clock that may run at another speed than true time.

use super::network::Datagram;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// A clock that is fast by so many parts in a million.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    ppm: f64,
}

impl Clock {
    pub fn new(start: Instant, ppm: f64) -> Self {
        Self { start, ppm }
    }

    /// What it shows at this true time.
    pub fn shows(&self, now: Instant) -> Instant {
        self.start + now.saturating_duration_since(self.start).mul_f64(1.0 + self.ppm * 1e-6)
    }

    /// The true time at which it shows this: at the earliest, so that a deadline is never early.
    fn when(&self, shown: Instant) -> Instant {
        if self.ppm == 0.0 {
            return shown;
        }
        let since = shown.saturating_duration_since(self.start).div_f64(1.0 + self.ppm * 1e-6);
        self.start + since + Duration::from_micros(1)
    }
}

/// A WebRTC peer without sockets, tasks and clock.
pub struct Peer {
    pub rtc: Rtc,
    pub local: SocketAddr,
    /// What it has a candidate of.
    pub protocol: Protocol,
    clock: Clock,
    /// As the peer's own clock shows it.
    deadline: Option<Instant>,
    out: VecDeque<Datagram>,
    events: VecDeque<Event>,
}

impl Peer {
    pub fn new(config: RtcConfig, local: SocketAddr, clock: Clock) -> Self {
        let (out, events) = (VecDeque::new(), VecDeque::new());
        let (rtc, protocol) = (config.build(clock.start), Protocol::Udp);
        let mut peer = Self { rtc, local, protocol, clock, deadline: None, out, events };
        // Its ICE agent names no deadline before it was told the time once.
        peer.timeout(clock.start);
        peer
    }

    /// Adds its own address as a candidate; gives it as an SDP attribute's value.
    pub fn add_local_candidate(&mut self) -> String {
        let candidate = match self.protocol {
            Protocol::Tcp => Candidate::builder().tcp().host(self.local).tcptype(TcpType::Active).build(),
            _ => Candidate::host(self.local, "udp"),
        };
        let candidate = candidate.expect("a valid address");
        let line = candidate.to_sdp_string();
        self.rtc.add_local_candidate(candidate);
        self.drain();
        line
    }

    pub fn receive(&mut self, now: Instant, datagram: &Datagram) {
        let received = Receive::new(self.protocol, datagram.from, datagram.to, &datagram.bytes);
        // What can't be parsed is nothing a peer would answer.
        if let Ok(received) = received {
            self.input(Input::Receive(self.clock.shows(now), received));
        }
    }

    pub fn timeout(&mut self, now: Instant) {
        self.input(Input::Timeout(self.clock.shows(now)));
    }

    fn input(&mut self, input: Input) {
        if self.rtc.is_alive() {
            self.rtc.handle_input(input).expect("str0m takes the input");
            self.drain();
        }
    }

    /// str0m's contract: after each change all output is taken before the next change.
    pub fn drain(&mut self) {
        self.deadline = None;
        while self.rtc.is_alive() {
            match self.rtc.poll_output().expect("str0m goes on") {
                Output::Timeout(at) => {
                    self.deadline = Some(at);
                    return;
                }
                Output::Transmit(sent) => self.out.push_back(Datagram {
                    from: sent.source,
                    to: sent.destination,
                    bytes: sent.contents.to_vec(),
                }),
                Output::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// When it wants to be woken, in true time; never once it is closed.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|at| self.clock.when(at))
    }

    pub fn next_datagram(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What its own clock shows.
    pub fn shown(&self, now: Instant) -> Instant {
        self.clock.shows(now)
    }
}
