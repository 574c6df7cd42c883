//! Addresses from which too many credentials failed lately.
//!
//! Only unknown credentials count: an expired token, or one that is good for something else, was made by
//! us or by a signer we trust, and shows no guessing. A correct credential is served from an address that
//! has to wait, too: behind one address there may be a class, and one pupil with a mistyped token must not
//! lock out the others; 256 random bits and signatures can't be guessed, however often one may try. What
//! waiting keeps from is `auth.url`, which may know credentials that can be guessed, and must not be
//! flooded: nothing new from such an address reaches it.

use crate::base::quota::network;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long failures are counted together, from the first on, and how long the last of them waits at most.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered: some megabyte. Of more, those whose first failure is longest ago are
/// forgotten; an attacker with so many addresses isn't stopped by counting.
const ADDRESSES: usize = 10_000;

/// The addresses that failed lately. Time is an argument.
#[derive(Debug)]
pub(super) struct Failures {
    max: u32,
    counts: HashMap<IpAddr, Count>,
    /// In the order their windows began, which is that in which they end.
    order: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Failures {
    /// None yet; so many failures in a window are allowed.
    pub fn new(max: u32) -> Self {
        Self { max, counts: HashMap::new(), order: VecDeque::new() }
    }

    /// Notes a failure.
    pub fn note(&mut self, from: IpAddr, now: Instant) {
        self.forget(now);
        let from = network(from);
        if let Some(count) = self.counts.get_mut(&from) {
            count.failures = count.failures.saturating_add(1);
            return;
        }
        if self.counts.len() >= ADDRESSES {
            self.forget_first();
        }
        self.counts.insert(from, Count { since: now, failures: 1 });
        self.order.push_back(from);
    }

    /// The seconds this address has to wait, if it has.
    pub fn wait(&self, from: IpAddr, now: Instant) -> Option<u64> {
        let count = self.counts.get(&network(from)).filter(|count| count.failures >= self.max)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(count.since))?;
        (!left.is_zero()).then(|| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }

    fn forget(&mut self, now: Instant) {
        let over = |count: &Count| now.saturating_duration_since(count.since) >= WINDOW;
        while self.order.front().and_then(|first| self.counts.get(first)).is_some_and(over) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.order.pop_front() {
            self.counts.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_too_many_failures_until_its_minute_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let mut failures = Failures::new(3);
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other) = (from("192.0.2.1"), from("192.0.2.2"));
        for second in [0.0, 10.0, 20.0] {
            assert_eq!(failures.wait(one, at(second)), None);
            failures.note(one, at(second));
        }
        assert_eq!(failures.wait(one, at(20.0)), Some(40));
        assert_eq!(failures.wait(one, at(20.5)), Some(40));
        assert_eq!(failures.wait(one, at(59.9)), Some(1));
        assert_eq!(failures.wait(one, at(60.0)), None);
        assert_eq!(failures.wait(other, at(20.0)), None);
        assert_eq!(failures.wait(from("::ffff:192.0.2.1"), at(20.0)), Some(40), "the same address");
        failures.note(one, at(61.0));
        assert_eq!(failures.wait(one, at(61.0)), None, "a new minute begins at nothing");

        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            failures.note(from(host), at(62.0));
        }
        assert_eq!(failures.wait(from("2001:db8::77"), at(62.0)), Some(60));
        assert_eq!(failures.wait(from("2001:db8:0:1::1"), at(62.0)), None);
    }

    #[test]
    fn the_memory_of_failures_is_bounded_and_forgets_the_oldest() {
        let start = Instant::now();
        let mut failures = Failures::new(1);
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..ADDRESSES as u32 + 10 {
            failures.note(address(n), start + Duration::from_micros(n.into()));
        }
        assert_eq!((failures.counts.len(), failures.order.len()), (ADDRESSES, ADDRESSES));
        let now = start + Duration::from_secs(1);
        assert_eq!((failures.wait(address(9), now), failures.wait(address(10), now)), (None, Some(60)));
        failures.note(address(1 << 30), start + 2 * WINDOW);
        assert_eq!((failures.counts.len(), failures.order.len()), (1, 1), "what is over is forgotten");
    }
}
