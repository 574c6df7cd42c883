//! Which session a datagram is for.
//!
//! STUN requests are routed by ICE user fragment, STUN responses by the transaction they answer, everything
//! else by the address it comes from; an address belongs to a session only once the session has proven it
//! (D4). Media from any other address only tells its session where the peer may be now.

use crate::webrtc::TransportAddress;
use rustc_hash::FxHashMap;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::Hash;
use std::net::SocketAddr;

/// STUN transactions of one session whose answers can still be told apart.
const MAX_TRANSACTIONS: usize = 32;
/// User fragments, addresses, or media sources of one session that lead to it.
const MAX_ROUTES: usize = 16;

/// The transaction ID of a STUN message (RFC 8489 section 5).
pub type Transaction = [u8; 12];

/// What a datagram is, as far as its first bytes tell (RFC 7983).
#[derive(Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A STUN binding request for this user fragment of ours: the part of USERNAME before the colon
    /// (RFC 8445 section 7.2.2).
    Request(&'a str),
    /// The answer to this STUN transaction of ours.
    Response(&'a Transaction),
    /// An RTP packet of this source, which SRTP leaves readable. From an unproven address it
    /// tells no more than where the peer may be now.
    Media(u32),
    /// DTLS, SRTCP, or anything.
    Other,
}

impl<'a> Kind<'a> {
    /// What a UDP payload is; what is cut short or malformed is [`Kind::Other`].
    pub fn of(datagram: &'a [u8]) -> Self {
        let transaction = || datagram.get(8..20)?.try_into().ok();
        match datagram {
            [0, 1, ..] => username(datagram).map_or(Kind::Other, Kind::Request),
            [1, 1 | 0x11, ..] => transaction().map_or(Kind::Other, Kind::Response),
            // Payload types 64 to 95 would be RTCP's (RFC 5761 section 4).
            [128..=191, second, _, _, _, _, _, _, a, b, c, d, ..]
                if !(64..=95).contains(&(second & 0x7f)) =>
            {
                Kind::Media(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => Kind::Other,
        }
    }
}

fn username(datagram: &[u8]) -> Option<&str> {
    const USERNAME: u16 = 6;
    let mut attributes = datagram.get(20..)?;
    loop {
        let u16_at = |at: usize| Some(u16::from_be_bytes([*attributes.get(at)?, *attributes.get(at + 1)?]));
        let (kind, length) = (u16_at(0)?, usize::from(u16_at(2)?));
        if kind == USERNAME {
            return std::str::from_utf8(attributes.get(4..4 + length)?).ok()?.split(':').next();
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

/// A session, in the tables of routes; never used twice.
pub(super) type Key = u64;

/// Routes of one sort. Of more than `most` that lead to one session the oldest is forgotten.
#[derive(Debug)]
pub(super) struct Table<R> {
    most: usize,
    /// Looked into for each packet. A peer chooses no more than [`MAX_ROUTES`] of them, so that it can't make many
    /// fall together, whatever the hash.
    sessions: FxHashMap<R, Key>,
    /// By session, the oldest first.
    routes: FxHashMap<Key, VecDeque<R>>,
}

impl<R: Clone + Eq + Hash> Table<R> {
    fn new(most: usize) -> Self {
        Self { most, sessions: FxHashMap::default(), routes: FxHashMap::default() }
    }

    fn get<Q: Eq + Hash + ?Sized>(&self, route: &Q) -> Option<Key>
    where
        R: Borrow<Q>,
    {
        self.sessions.get(route).copied()
    }

    /// The route leads to this session from now on, whichever had it. Gives the one that is forgotten for it.
    pub fn insert(&mut self, route: R, key: Key) -> Option<R> {
        self.sessions.insert(route.clone(), key);
        self.note(route, key)
    }

    /// The route leads to this session, unless another one has it.
    pub fn insert_free(&mut self, route: R, key: Key) {
        self.sessions.entry(route.clone()).or_insert(key);
        self.note(route, key);
    }

    fn note(&mut self, route: R, key: Key) -> Option<R> {
        let routes = self.routes.entry(key).or_default();
        routes.retain(|known| *known != route);
        routes.push_back(route);
        if routes.len() <= self.most {
            return None;
        }
        let oldest = routes.pop_front()?;
        self.forget(&oldest, key).then_some(oldest)
    }

    /// Ends a route; gives the session that it led to.
    fn take(&mut self, route: &R) -> Option<Key> {
        let key = self.sessions.remove(route)?;
        if let Some(routes) = self.routes.get_mut(&key) {
            routes.retain(|known| known != route);
        }
        Some(key)
    }

    /// Ends a route, unless another session has it by now.
    fn forget(&mut self, route: &R, key: Key) -> bool {
        let is_its = self.sessions.get(route) == Some(&key);
        if is_its {
            self.sessions.remove(route);
        }
        is_its
    }

    /// Ends the routes of a session; gives them, but for those that another one has by now.
    fn remove(&mut self, key: Key) -> VecDeque<R> {
        let mut routes = self.routes.remove(&key).unwrap_or_default();
        routes.retain(|route| self.forget(route, key));
        routes
    }

    /// Adds the routes of a session to another table.
    fn copy(&self, key: Key, to: &mut Self) {
        for route in self.routes.get(&key).into_iter().flatten() {
            if self.sessions.get(route) == Some(&key) {
                to.insert(route.clone(), key);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[derive(Debug)]
pub(super) struct Routes {
    pub ufrags: Table<String>,
    pub transactions: Table<Transaction>,
    pub addresses: Table<TransportAddress>,
    pub sources: Table<u32>,
    /// TCP connections that its peer has authenticated on, by the addresses they come from.
    pub connections: Table<SocketAddr>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            ufrags: Table::new(MAX_ROUTES),
            transactions: Table::new(MAX_TRANSACTIONS),
            addresses: Table::new(MAX_ROUTES),
            sources: Table::new(MAX_ROUTES),
            connections: Table::new(MAX_ROUTES),
        }
    }
}

impl Routes {
    /// The session a datagram is for; false if it is media that comes from an address that is not proven
    /// to be its peer's.
    pub fn find(&self, kind: &Kind<'_>, from: TransportAddress) -> Option<(Key, bool)> {
        let proven = match kind {
            Kind::Request(ufrag) => self.ufrags.get(*ufrag),
            Kind::Response(transaction) => self.transactions.get(*transaction),
            Kind::Media(_) | Kind::Other => self.addresses.get(&from),
        };
        match (proven, kind) {
            (Some(key), _) => Some((key, true)),
            (None, Kind::Media(source)) => self.sources.get(source).map(|key| (key, false)),
            (None, _) => None,
        }
    }

    /// Ends all routes of a session; gives its TCP connections.
    pub fn remove(&mut self, key: Key) -> impl Iterator<Item = SocketAddr> {
        self.ufrags.remove(key);
        self.transactions.remove(key);
        self.addresses.remove(key);
        self.sources.remove(key);
        self.connections.remove(key).into_iter()
    }

    /// Adds the routes of a session to others.
    pub fn copy(&self, key: Key, to: &mut Self) {
        self.ufrags.copy(key, &mut to.ufrags);
        self.transactions.copy(key, &mut to.transactions);
        self.addresses.copy(key, &mut to.addresses);
        self.sources.copy(key, &mut to.sources);
        self.connections.copy(key, &mut to.connections);
    }

    /// The TCP connection from this address is closed: what comes from there next is another's. Gives the session
    /// whose it was.
    pub fn close(&mut self, connection: SocketAddr) -> Option<Key> {
        self.addresses.take(&TransportAddress::tcp(connection));
        self.connections.take(&connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_keeps_its_newest_routes_and_takes_none_of_another_away() {
        let mut table = Table::new(MAX_ROUTES);
        for source in 0..40_u32 {
            table.insert(source, 1);
            table.insert(7, 1);
        }
        assert_eq!((table.len(), table.routes[&1].len()), (MAX_ROUTES, MAX_ROUTES), "routes kept");
        assert_eq!((table.get(&39), table.get(&7)), (Some(1), Some(1)));
        table.insert_free(39, 2);
        assert_eq!(table.get(&39), Some(1), "it has been another session's");
        table.insert(39, 2);
        table.remove(1);
        assert_eq!((table.len(), table.get(&39)), (1, Some(2)), "it is another session's by now");
    }

    #[test]
    fn the_same_address_in_both_protocols_may_be_two_peers() {
        let address: SocketAddr = ([198, 51, 100, 7], 5000).into();
        let (udp, tcp) = (TransportAddress::udp(address), TransportAddress::tcp(address));
        let mut routes = Routes::default();
        routes.addresses.insert(udp, 1);
        routes.addresses.insert(tcp, 2);
        routes.connections.insert(address, 2);
        assert_eq!(routes.find(&Kind::Other, udp), Some((1, true)));
        assert_eq!(routes.find(&Kind::Other, tcp), Some((2, true)));
        assert_eq!(routes.close(address), Some(2));
        assert_eq!(routes.find(&Kind::Other, tcp), None, "its connection is closed");
        assert_eq!(routes.find(&Kind::Other, udp), Some((1, true)));
        assert_eq!(routes.close(address), None);
    }

    #[test]
    fn a_session_has_its_newest_connections_and_they_end_with_it() {
        let mut routes = Routes::default();
        let from = |port| SocketAddr::from(([198, 51, 100, 7], port));
        for port in 1..=MAX_ROUTES as u16 {
            assert_eq!(routes.connections.insert(from(port), 1), None);
        }
        assert_eq!(routes.connections.insert(from(1), 1), None, "it has spoken again");
        assert_eq!(routes.connections.insert(from(100), 1), Some(from(2)));
        assert_eq!(routes.close(from(100)), Some(1));
        routes.connections.insert(from(3), 2);
        assert_eq!(routes.remove(1).count(), MAX_ROUTES - 2, "one is another session's by now");
        assert_eq!(routes.remove(2).collect::<Vec<_>>(), [from(3)]);
    }

    #[test]
    fn a_stun_request_names_its_session_and_rubbish_names_none() {
        let mut request = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        request.extend([0; 12]);
        request.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        request.extend([0, 6, 0, 9]);
        request.extend(b"mine:hers");
        request.extend([0; 3]);
        assert_eq!(Kind::of(&request), Kind::Request("mine"));
        for cut in 0..request.len() - 4 {
            assert_eq!(Kind::of(&request[..cut]), Kind::Other, "cut at {cut}");
        }
        request[0] = 1;
        assert_eq!(Kind::of(&request), Kind::Response(&[0; 12]), "its answer");
    }

    #[test]
    fn media_names_its_source_and_reports_and_dtls_do_not() {
        let packet = |first, second| [first, second, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
        for (first, second, expected) in [
            (0x80, 96, Kind::Media(0x0102_0304)),
            (0x90, 0x80 | 111, Kind::Media(0x0102_0304)),
            (0x80, 200, Kind::Other),
            (0x81, 205, Kind::Other),
            (22, 254, Kind::Other),
        ] {
            assert_eq!(Kind::of(&packet(first, second)), expected, "{first} {second}");
        }
        assert_eq!(Kind::of(&packet(0x80, 96)[..11]), Kind::Other, "cut short");
    }
}
