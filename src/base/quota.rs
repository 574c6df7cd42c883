//! How many of something there may be at the same time, in all and for one client.

use crate::base::metrics::metrics;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// What clients that share one count have in common: an IPv4 address, or the /64 of an IPv6 one, which is what a single customer
/// has addresses of without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(IpAddr);

impl ClientKey {
    /// `None` for this machine, which has no count of its own. What comes from it is its operator, who
    /// has easier ways to do harm, or a proxy that passes no client's address on: counting that would let one
    /// visitor lock out all others.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            own if own.is_loopback() => None,
            address => Some(Self(network(address))),
        }
    }
}

/// What one customer is given: an IPv4 address, or the /64 of an IPv6 one (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// A bound, and the configuration's key that says it.
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub &'static str, pub usize);

/// All slots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitExceeded {
    /// All of the client's own.
    Own(&'static str),
    /// All there are.
    All(&'static str),
}

/// Slots, in all and for each client. Cheap to clone.
#[derive(Debug)]
pub struct Quota<K: Eq + Hash + Clone = ClientKey> {
    inner: Arc<Inner<K>>,
}

impl<K: Eq + Hash + Clone> Clone for Quota<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

#[derive(Debug)]
struct Inner<K> {
    all: Limit,
    each: Limit,
    taken: Mutex<Taken<K>>,
}

/// A client without a slot is not in it.
#[derive(Debug)]
struct Taken<K> {
    all: usize,
    each: HashMap<K, usize>,
}

/// One slot, free again when dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash = ClientKey> {
    inner: Arc<Inner<K>>,
    key: Option<K>,
}

impl<K: Eq + Hash + Clone> Quota<K> {
    /// So many in all, and so many for each; 0 for each leaves only the first bound.
    pub fn new(all: Limit, each: Limit) -> Self {
        let taken = Mutex::new(Taken { all: 0, each: HashMap::new() });
        Self { inner: Arc::new(Inner { all, each, taken }) }
    }

    /// Takes a slot; without a key of no client's own.
    ///
    /// # Errors
    ///
    /// There is none; it is counted as a refusal.
    pub fn enter(&self, key: Option<K>) -> Result<Permit<K>, LimitExceeded> {
        let Inner { all, each, .. } = *self.inner;
        let mut taken = self.inner.taken.lock();
        let own = key.as_ref().and_then(|key| taken.each.get(key)).copied().unwrap_or(0);
        let full = match () {
            () if key.is_some() && each.1 > 0 && own >= each.1 => Some(LimitExceeded::Own(each.0)),
            () if taken.all >= all.1 => Some(LimitExceeded::All(all.0)),
            () => None,
        };
        if let Some(full @ (LimitExceeded::Own(limit) | LimitExceeded::All(limit))) = full {
            drop(taken);
            metrics().refused(limit);
            return Err(full);
        }
        taken.all += 1;
        if let Some(key) = &key {
            taken.each.insert(key.clone(), own + 1);
        }
        drop(taken);
        Ok(Permit { inner: self.inner.clone(), key })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.inner.taken.lock().all
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.inner.taken.lock();
        taken.all -= 1;
        let Some(key) = &self.key else { return };
        match taken.each.get_mut(key) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.each.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Option<ClientKey> {
        ClientKey::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_this_machine_is_none() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("198.51.100.1"), client("198.51.100.2"));
        assert_eq!(client("::ffff:198.51.100.1"), client("198.51.100.1"));
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(client(own), None, "{own}");
        }
    }

    #[test]
    fn a_client_has_its_own_bound_all_have_one_and_a_place_left_is_free() {
        let quota = Quota::new(Limit("all", 3), Limit("each", 2));
        let (one, other) = (client("198.51.100.1"), client("2001:db8::1"));
        let held = [quota.enter(one).unwrap(), quota.enter(one).unwrap()];
        assert_eq!(quota.enter(one).unwrap_err(), LimitExceeded::Own("each"));
        let third = quota.enter(other).unwrap();
        assert_eq!(quota.enter(other).unwrap_err(), LimitExceeded::All("all"));
        assert_eq!(quota.enter(None).unwrap_err(), LimitExceeded::All("all"));
        drop(third);
        let local = quota.enter(None).unwrap();
        drop((held, local));
        assert_eq!((quota.taken(), quota.inner.taken.lock().each.len()), (0, 0), "something is kept");

        let unbounded = Quota::new(Limit("all", 100), Limit("each", 0));
        let held: Vec<_> = (0..100).map(|_| unbounded.enter(one).unwrap()).collect();
        assert_eq!(unbounded.enter(one).unwrap_err(), LimitExceeded::All("all"), "{}", held.len());
    }
}
