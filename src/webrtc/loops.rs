//! Several event loops behind one port (`webrtc.loops`), and what they know of each other.
//!
//! Each loop has a socket of its own. The kernel gives all that comes from one address to the same of them, by a
//! hash of the addresses (`SO_REUSEPORT`); nobody can say beforehand which that will be. So a session goes to where
//! its peer's datagrams come, and again when the peer's address changes. What comes to another loop meanwhile is
//! handed over, by a table of all routes that the loops share: it is asked for what a loop doesn't know itself.

use crate::base::id::SessionId;
use crate::webrtc::TransportAddress;
use crate::webrtc::route::{Key, Kind, Routes};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More cost more than they give: each wakes by itself.
const MAX_AUTO: usize = 8;
/// More are a mistake.
const MAX: u64 = 64;

/// How many event loops there are (`webrtc.loops`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loops {
    /// One, and when one is full another: up to one a processor, and eight at most.
    #[default]
    Auto,
    /// So many: 1 to 64.
    Number(usize),
}

impl Loops {
    /// How many begin, and how many there may come to be on this machine.
    pub fn numbers(self) -> (usize, usize) {
        match self {
            Self::Auto => (1, std::thread::available_parallelism().map_or(1, usize::from).min(MAX_AUTO)),
            Self::Number(number) => (number, number),
        }
    }
}

impl<'de> Deserialize<'de> for Loops {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Number(u64),
            Text(String),
        }
        let value = Value::deserialize(from)?;
        let (number, found) = match &value {
            Value::Text(text) if text == "auto" => return Ok(Self::Auto),
            Value::Number(number) => (Some(*number), number.to_string()),
            Value::Text(text) => (text.parse().ok(), format!("{text:?}")),
        };
        match number {
            Some(number @ 1..=MAX) => Ok(Self::Number(number as usize)),
            _ => Err(D::Error::custom(format!(
                "expected \"auto\", or a number from 1 to {MAX}, found {found}"
            ))),
        }
    }
}

/// What all loops know of each other's sessions.
#[derive(Debug)]
pub(super) struct Directory {
    /// How many loops there may be.
    most: usize,
    /// How many there are.
    active: AtomicUsize,
    /// Of the next session.
    key: AtomicU64,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routes: Routes,
    /// The loop that each session lives on.
    homes: FxHashMap<Key, usize>,
    ids: HashMap<SessionId, Key>,
}

impl Directory {
    /// Of no loops yet.
    pub fn new(most: usize) -> Arc<Self> {
        let (active, key) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { most, active, key, known: RwLock::default() })
    }

    /// How many loops there are.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// There is one more.
    pub fn activate(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop that the next session begins on: they take turns, until it is known where its peer's datagrams come.
    pub fn next_home(&self) -> usize {
        self.begun() as usize % self.active().max(1)
    }

    /// The last one couldn't be started after all.
    pub fn deactivate(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many sessions have begun.
    pub fn begun(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// A session is about to begin on a loop.
    pub fn begin(&self, id: &SessionId, home: usize) -> Key {
        let key = self.key.fetch_add(1, Ordering::Relaxed);
        if !self.is_alone() {
            let mut known = self.known.write();
            known.homes.insert(key, home);
            known.ids.insert(id.clone(), key);
        }
        key
    }

    /// The loop that a session lives on.
    pub fn home(&self, id: &SessionId) -> Option<usize> {
        if self.is_alone() {
            return Some(0);
        }
        let known = self.known.read();
        known.homes.get(known.ids.get(id)?).copied()
    }

    /// How many sessions each loop has; nothing is known of a single one.
    pub fn sessions(&self) -> Vec<u64> {
        let mut sessions = vec![0; self.most];
        self.known.read().homes.values().for_each(|home| sessions[*home] += 1);
        sessions.truncate(self.active());
        sessions
    }

    /// There is one loop, and never another.
    fn is_alone(&self) -> bool {
        self.most == 1
    }
}

/// What the routes of a closed connection led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A session of this loop.
    Here(Key),
    /// One of another loop.
    At(usize),
}

/// A loop's own routes, with those of the others behind them.
#[derive(Debug)]
pub(super) struct LoopRoutes {
    own: Routes,
    directory: Arc<Directory>,
    /// Which loop this is.
    pub at: usize,
}

impl LoopRoutes {
    pub fn new(directory: Arc<Directory>, at: usize) -> Self {
        Self { own: Routes::default(), directory, at }
    }

    /// The session of this loop that a datagram is for: see [`Routes::find`].
    pub fn find(&self, kind: &Kind<'_>, from: TransportAddress) -> Option<(Key, bool)> {
        self.own.find(kind, from)
    }

    /// The loop that has the session a datagram is for, which is none of this loop's own yet.
    pub fn elsewhere(&self, kind: &Kind<'_>, from: TransportAddress) -> Option<usize> {
        if self.directory.active() == 1 {
            return None;
        }
        let known = self.directory.known.read();
        let (key, _) = known.routes.find(kind, from)?;
        known.homes.get(&key).copied()
    }

    /// The loop that has a session which is not here, or will be in a moment.
    pub fn home(&self, id: &SessionId) -> Option<usize> {
        self.directory.home(id).filter(|_| !self.directory.is_alone())
    }

    /// Adds a route to a session of this loop.
    pub fn add<T>(&mut self, insert: impl Fn(&mut Routes) -> T) -> T {
        if !self.directory.is_alone() {
            insert(&mut self.directory.known.write().routes);
        }
        insert(&mut self.own)
    }

    /// A session of this loop is over: gives its TCP connections.
    pub fn end(&mut self, id: &SessionId, key: Key) -> impl Iterator<Item = SocketAddr> {
        if !self.directory.is_alone() {
            let mut known = self.directory.known.write();
            known.homes.remove(&key);
            known.ids.remove(id);
            let _ = known.routes.remove(key).count();
        }
        self.own.remove(key)
    }

    /// The TCP connection from this address is closed. Gives the session whose it was.
    pub fn close(&mut self, connection: SocketAddr) -> Option<Whose> {
        let here = self.own.close(connection).map(Whose::Here);
        if self.directory.is_alone() {
            return here;
        }
        let mut known = self.directory.known.write();
        let key = known.routes.close(connection);
        here.or_else(|| known.homes.get(&key?).copied().map(Whose::At))
    }

    /// A session goes over to another loop, to which `give` gives it: all that comes to that one by the table is
    /// behind it.
    pub fn give(&mut self, key: Key, to: usize, give: impl FnOnce()) {
        let _ = self.own.remove(key).count();
        let mut known = self.directory.known.write();
        give();
        known.homes.insert(key, to);
    }

    /// A session has come over from another loop.
    pub fn take(&mut self, key: Key) {
        self.directory.known.read().routes.copy(key, &mut self.own);
    }

    #[cfg(test)]
    pub fn ufrags(&self) -> usize {
        self.own.ufrags.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_of_loops_is_one_or_more_or_as_many_as_there_are_processors() {
        let read = |value: serde_json::Value| serde_json::from_value::<Loops>(value);
        assert_eq!(read(json!("auto")).unwrap(), Loops::Auto);
        let (begin, most) = Loops::Auto.numbers();
        assert!(begin == 1 && (1..=MAX_AUTO).contains(&most));
        for (value, number) in [(json!(1), 1), (json!("2"), 2), (json!(64), 64)] {
            assert_eq!(read(value).unwrap().numbers(), (number, number));
        }
        for value in [json!(0), json!("many"), json!(65), json!("")] {
            let error = read(value).unwrap_err().to_string();
            assert!(error.starts_with("expected \"auto\", or a number from 1 to 64, found "), "{error}");
        }
    }

    #[test]
    fn a_session_that_goes_over_to_another_loop_takes_its_routes_along_and_leaves_none() {
        let directory = Directory::new(2);
        let mut loops = [0, 1].map(|at| LoopRoutes::new(directory.clone(), at));
        directory.activate();
        assert_eq!(directory.next_home(), 0);
        let id = SessionId::new();
        let key = directory.begin(&id, 0);
        let from = SocketAddr::from(([198, 51, 100, 7], 5000));
        let address = TransportAddress::tcp(from);
        loops[0].add(|routes| routes.ufrags.insert("ours".to_owned(), key));
        loops[0].add(|routes| routes.addresses.insert(address, key));
        loops[0].add(|routes| routes.connections.insert(from, key));
        let other = TransportAddress::udp(from);
        let request = Kind::Request("ours");
        assert_eq!(
            (loops[0].find(&request, other), loops[1].find(&request, other)),
            (Some((key, true)), None)
        );
        assert_eq!(
            (loops[1].elsewhere(&request, other), directory.sessions()),
            (None, vec![1]),
            "there is one"
        );
        directory.activate();
        assert_eq!((loops[1].elsewhere(&request, other), directory.sessions()), (Some(0), vec![1, 0]));
        assert_eq!(loops[1].elsewhere(&Kind::Other, other), None, "another protocol's");
        assert_eq!(directory.home(&id), Some(0));

        loops[0].give(key, 1, || {});
        assert_eq!(
            (loops[0].find(&request, other), loops[0].elsewhere(&Kind::Other, address)),
            (None, Some(1))
        );
        assert_eq!(loops[1].find(&request, other), None, "it is on its way");
        loops[1].take(key);
        assert_eq!(loops[1].find(&Kind::Other, address), Some((key, true)));
        assert_eq!(directory.home(&id), Some(1));
        assert_eq!(loops[0].close(from), Some(Whose::At(1)));
        assert_eq!(loops[1].close(from), Some(Whose::Here(key)));

        loops[1].add(|routes| routes.connections.insert(from, key));
        assert_eq!(loops[1].end(&id, key).collect::<Vec<_>>(), [from]);
        assert_eq!((directory.home(&id), loops[0].elsewhere(&request, other)), (None, None));
    }
}
