//! Two endpoints and the network between them, in virtual time: no socket, no clock, as fast as the
//! processor goes. Losses and delays come from a seed; the peers' keys and identifiers do not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What travels.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// One end of the network. Time is an argument throughout.
pub trait Endpoint {
    fn receive(&mut self, now: Instant, datagram: Datagram);
    /// Its deadline has come.
    fn timeout(&mut self, now: Instant);
    fn deadline(&mut self) -> Option<Instant>;
    /// Asked after each of the above until there is nothing more to send.
    fn transmit(&mut self, now: Instant) -> Option<Datagram>;
}

/// Decides with the time since the start whether a datagram passes.
pub type Filter = Box<dyn FnMut(Duration, &[u8]) -> bool>;

/// Total loss for `length`, every `every`, from `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Bursts {
    pub first: Duration,
    pub every: Duration,
    pub length: Duration,
}

/// One direction.
pub struct Link {
    pub latency: Duration,
    /// Added to the latency, uniformly from nothing to this.
    pub jitter: Duration,
    /// The share of datagrams that never arrive.
    pub loss: f64,
    pub bursts: Option<Bursts>,
    /// The share that may overtake or be overtaken; the others arrive in order, as from a queue.
    pub reorder: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    pub filter: Option<Filter>,
    pub sent: u64,
    pub lost: u64,
    last_arrival: Option<Instant>,
}

impl Link {
    /// 30 ms, and nothing else happens.
    pub fn good() -> Self {
        Self {
            latency: Duration::from_millis(30),
            jitter: Duration::ZERO,
            loss: 0.0,
            bursts: None,
            reorder: 0.0,
            duplicate: 0.0,
            filter: None,
            sent: 0,
            lost: 0,
            last_arrival: None,
        }
    }

    /// When copies of the datagram arrive.
    fn arrivals(
        &mut self,
        now: Instant,
        since_start: Duration,
        bytes: &[u8],
        dice: &mut Dice,
    ) -> Vec<Instant> {
        self.sent += 1;
        let passes = self.filter.as_mut().is_none_or(|filter| filter(since_start, bytes));
        if !passes || self.in_burst(since_start) || dice.chance(self.loss) {
            self.lost += 1;
            return Vec::new();
        }
        let copies = 1 + usize::from(dice.chance(self.duplicate));
        (0..copies).map(|_| self.arrival(now, dice)).collect()
    }

    fn in_burst(&self, since_start: Duration) -> bool {
        self.bursts.is_some_and(|bursts| {
            since_start
                .checked_sub(bursts.first)
                .is_some_and(|since| since.as_nanos() % bursts.every.as_nanos() < bursts.length.as_nanos())
        })
    }

    fn arrival(&mut self, now: Instant, dice: &mut Dice) -> Instant {
        let arrival = now + self.latency + self.jitter.mul_f64(dice.fraction());
        if dice.chance(self.reorder) {
            return arrival;
        }
        let in_order = self.last_arrival.map_or(arrival, |last| last.max(arrival));
        self.last_arrival = Some(in_order);
        in_order
    }
}

/// The publisher's router: the world sees `outside` for `inside`.
#[derive(Clone, Copy, Debug)]
struct Nat {
    inside: SocketAddr,
    outside: SocketAddr,
}

/// The network.
pub struct Network<P, S> {
    pub publisher: P,
    pub server: S,
    /// From the publisher to the server.
    pub up: Link,
    pub down: Link,
    nat: Option<Nat>,
    start: Instant,
    now: Instant,
    flights: BTreeMap<(Instant, u64), Flight>,
    launched: u64,
    dice: Dice,
}

enum Flight {
    Up(Datagram),
    Down(Datagram),
}

impl<P: Endpoint, S: Endpoint> Network<P, S> {
    pub fn new(seed: u64, start: Instant, publisher: P, server: S) -> Self {
        Self {
            publisher,
            server,
            up: Link::good(),
            down: Link::good(),
            nat: None,
            start,
            now: start,
            flights: BTreeMap::new(),
            launched: 0,
            dice: Dice(seed),
        }
    }

    /// Both directions alike.
    pub fn both(&mut self, mut change: impl FnMut(&mut Link)) {
        change(&mut self.up);
        change(&mut self.down);
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// From now on the publisher at `inside` is seen as `outside`; what is sent to an address it had
    /// before goes nowhere, and neither does what is sent to `inside`.
    pub fn bind_nat(&mut self, inside: SocketAddr, outside: SocketAddr) {
        self.nat = Some(Nat { inside, outside });
    }

    /// Lets so much virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.elapsed() + time);
    }

    /// Lets virtual time pass until so long after the start.
    pub fn run_until(&mut self, since_start: Duration) {
        let end = self.start + since_start;
        self.run_while(end, |_| true);
    }

    /// Runs until the condition holds; whether it came to that before `limit` since the start.
    pub fn run_until_true(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.start + limit;
        self.run_while(end, |network| !holds(network));
        holds(self)
    }

    fn run_while(&mut self, end: Instant, mut goes_on: impl FnMut(&Self) -> bool) {
        let mut stuck = 0;
        loop {
            self.launch();
            if !goes_on(self) {
                return;
            }
            let next = self.next_event().filter(|next| *next <= end);
            let Some(next) = next else {
                self.now = self.now.max(end);
                return;
            };
            stuck = if next > self.now { 0 } else { stuck + 1 };
            assert!(stuck < 10_000, "{:?}: a deadline stays in the past", self.elapsed());
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
        [flight, self.publisher.deadline(), self.server.deadline()].into_iter().flatten().min()
    }

    /// Does everything that is due.
    fn step(&mut self) {
        let now = self.now;
        while let Some(flight) = self.flights.first_entry().filter(|flight| flight.key().0 <= now) {
            match flight.remove() {
                Flight::Up(datagram) => self.server.receive(now, datagram),
                Flight::Down(datagram) => self.publisher.receive(now, datagram),
            }
            self.launch();
        }
        if self.publisher.deadline().is_some_and(|at| at <= now) {
            self.publisher.timeout(now);
        }
        if self.server.deadline().is_some_and(|at| at <= now) {
            self.server.timeout(now);
        }
    }

    /// Takes what the endpoints have to send.
    fn launch(&mut self) {
        let since_start = self.elapsed();
        while let Some(mut datagram) = self.publisher.transmit(self.now) {
            if let Some(nat) = self.nat.filter(|nat| nat.inside == datagram.from) {
                datagram.from = nat.outside;
            }
            for at in self.up.arrivals(self.now, since_start, &datagram.bytes, &mut self.dice) {
                self.launched += 1;
                self.flights.insert((at, self.launched), Flight::Up(datagram.clone()));
            }
        }
        while let Some(mut datagram) = self.server.transmit(self.now) {
            if let Some(nat) = self.nat {
                if datagram.to != nat.outside {
                    continue;
                }
                datagram.to = nat.inside;
            }
            for at in self.down.arrivals(self.now, since_start, &datagram.bytes, &mut self.dice) {
                self.launched += 1;
                self.flights.insert((at, self.launched), Flight::Down(datagram.clone()));
            }
        }
    }
}

/// The payload type of an RTP packet, which SRTP leaves readable; `None` for STUN, DTLS and RTCP
/// (RFC 7983, RFC 5761 section 4).
pub fn rtp_payload_type(datagram: &[u8]) -> Option<u8> {
    let &[first, second, ..] = datagram else { return None };
    let is_rtp = (128..192).contains(&first) && !(192..224).contains(&second);
    is_rtp.then_some(second & 0x7f)
}

/// SplitMix64: a handful of lines, the same numbers everywhere.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, but without, 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.fraction() < share
    }
}
