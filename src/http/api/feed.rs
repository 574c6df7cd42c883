//! What happens to streams and recordings, in one order, remembered for a while: what `/api/events` reads.

use crate::base::id::{StreamName, random_suffix};
use crate::base::tasks::Tasks;
use crate::catalog;
use crate::catalog::Manifest;
use crate::publish::publication as stream;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

/// Entries that are remembered, for clients that come back: some minutes of a busy server. Most are
/// about 1 KiB, a manifest of a thousand gaps is 60 KiB. The oldest goes when it is full; a client that
/// has not seen it by then is sent to the lists again.
const REMEMBERED: usize = 512;

/// Something that has happened.
#[derive(Clone, Debug)]
pub enum Entry {
    /// To a stream.
    Stream(stream::Change),
    /// To a recording.
    Recording(Box<catalog::Change>),
}

/// What has happened, and the thing it happened to as the API lists it.
#[derive(Serialize)]
struct EventData<What, Listed> {
    change: What,
    #[serde(flatten)]
    listed: Listed,
}

impl Entry {
    /// The stream it is about, which decides which clients may see it.
    pub fn stream(&self) -> &StreamName {
        match self {
            Self::Stream(change) => &change.info.stream,
            Self::Recording(change) => &change.manifest.stream,
        }
    }

    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stream(_) => "stream",
            Self::Recording(_) => "recording",
        }
    }

    /// The event's data; a recording as `listed` lists it.
    pub fn json<L: Serialize>(&self, listed: impl FnOnce(Manifest) -> L) -> serde_json::Result<String> {
        match self {
            Self::Stream(change) => {
                serde_json::to_string(&EventData { change: change.what, listed: &change.info })
            }
            Self::Recording(change) => {
                let listed = listed(change.manifest.clone());
                serde_json::to_string(&EventData { change: change.what, listed })
            }
        }
    }
}

/// All that happens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Distinguishes this run's numbers from another's.
    run: String,
    log: Mutex<Log>,
    /// The number after the newest entry's.
    end: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Arc<Entry>>,
    /// The number of the first one.
    first: u64,
}

impl Feed {
    /// Nothing so far; begins to listen.
    pub fn start(
        streams: Receiver<stream::Change>,
        recordings: Receiver<catalog::Change>,
        tasks: &Tasks,
    ) -> Self {
        let (run, log, end) = (random_suffix(), Mutex::default(), watch::Sender::new(0));
        let feed = Self { inner: Arc::new(Inner { run, log, end }) };
        let (inner, stop) = (feed.inner.clone(), tasks.stop_token());
        tasks.spawn("events", async move {
            tokio::select! {
                () = inner.listen(streams, recordings) => {}
                () = stop.cancelled() => {}
            }
        });
        feed
    }

    /// Reads all from now on, or from behind the entry with this id on.
    pub fn reader(&self, last: Option<&str>) -> Reader {
        let (log, end) = (self.inner.log.lock(), self.inner.end.subscribe());
        let newest = log.first + log.entries.len() as u64;
        let resumed = last.and_then(|last| {
            let (run, number) = last.split_once('-')?;
            let next: u64 = number.parse().ok()?;
            (run == self.inner.run && (log.first..=newest).contains(&next)).then_some(next)
        });
        let reader = Reader {
            inner: self.inner.clone(),
            end,
            next: resumed.unwrap_or(newest),
            lost: resumed.is_none(),
        };
        drop(log);
        reader
    }
}

impl Inner {
    async fn listen(&self, mut streams: Receiver<stream::Change>, mut recordings: Receiver<catalog::Change>) {
        loop {
            let next = tokio::select! {
                change = streams.recv() => change.map(Entry::Stream),
                change = recordings.recv() => change.map(|change| Entry::Recording(Box::new(change))),
            };
            match next {
                Ok(entry) => self.add(entry),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events came faster than they were noted");
                    self.forget();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn add(&self, entry: Entry) {
        let mut log = self.log.lock();
        log.entries.push_back(Arc::new(entry));
        if log.entries.len() > REMEMBERED {
            log.entries.pop_front();
            log.first += 1;
        }
        self.end.send_replace(log.first + log.entries.len() as u64);
    }

    /// Some are missing: no reader can go on from before.
    fn forget(&self) {
        let mut log = self.log.lock();
        log.first += log.entries.len() as u64 + 1;
        log.entries.clear();
        self.end.send_replace(log.first);
    }
}

/// What a reader comes to.
#[derive(Clone, Debug)]
pub enum Next {
    /// It has missed some, or has just come: it should read the lists.
    Reset,
    /// This happened.
    Entry(Arc<Entry>),
}

/// Reads entries at its own pace.
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    end: watch::Receiver<u64>,
    /// The number of the entry to come.
    next: u64,
    lost: bool,
}

impl Reader {
    /// What comes next, and the id to go on from; waits for it. `None` if nothing more will come.
    pub async fn next(&mut self) -> Option<(String, Next)> {
        loop {
            if std::mem::take(&mut self.lost) {
                return Some((self.id(), Next::Reset));
            }
            self.end.mark_unchanged();
            {
                let log = self.inner.log.lock();
                if self.next < log.first {
                    (self.next, self.lost) = (log.first + log.entries.len() as u64, true);
                    continue;
                }
                let index = usize::try_from(self.next - log.first).ok()?;
                if let Some(entry) = log.entries.get(index).cloned() {
                    self.next += 1;
                    return Some((self.id(), Next::Entry(entry)));
                }
            }
            self.end.changed().await.ok()?;
        }
    }

    fn id(&self) -> String {
        format!("{}-{}", self.inner.run, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{cam, manifest};
    use std::time::Duration;
    use tokio::sync::broadcast;

    fn live() -> stream::Change {
        stream::Change { what: stream::What::Live, info: cam() }
    }

    async fn next(reader: &mut Reader) -> (String, &'static str) {
        match tokio::time::timeout(Duration::from_secs(60), reader.next()).await.unwrap().unwrap() {
            (id, Next::Reset) => (id, "reset"),
            (id, Next::Entry(entry)) => (id, entry.kind()),
        }
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_goes_on_and_one_away_too_long_is_reset() {
        let (streams, recordings) = (broadcast::Sender::new(8), broadcast::Sender::new(8));
        let feed = Feed::start(streams.subscribe(), recordings.subscribe(), &Tasks::new());
        let mut reader = feed.reader(None);
        assert_eq!(next(&mut reader).await.1, "reset", "who is new reads the lists");
        streams.send(live()).unwrap();
        let (first, kind) = next(&mut reader).await;
        assert_eq!(kind, "stream");
        let sealed = catalog::Change { what: catalog::What::Sealed, manifest: manifest("cam", "a.webm", 1) };
        recordings.send(sealed).unwrap();
        let (second, kind) = next(&mut reader).await;
        assert_eq!(kind, "recording");
        let mut again = feed.reader(Some(&first));
        assert_eq!(next(&mut again).await, (second.clone(), "recording"), "neither twice nor not at all");

        // More than is remembered comes while both read nothing.
        for _ in 0..REMEMBERED {
            feed.inner.add(Entry::Stream(live()));
        }
        let mut kept = feed.reader(Some(&second));
        assert_eq!(next(&mut kept).await.1, "stream", "all of it is remembered");
        assert_eq!(next(&mut feed.reader(Some(&first))).await.1, "reset");
        feed.inner.add(Entry::Stream(live()));
        assert_eq!(next(&mut again).await.1, "reset", "a slow reader costs nobody anything");
        feed.inner.add(Entry::Stream(live()));
        assert_eq!(next(&mut again).await.1, "stream");
        assert!(feed.inner.log.lock().entries.len() <= REMEMBERED);
        for unknown in ["", "7", "run-7", &format!("{second}0000")] {
            assert_eq!(next(&mut feed.reader(Some(unknown))).await.1, "reset", "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn events_that_came_too_fast_to_be_noted_are_not_passed_over_in_silence() {
        let (streams, recordings) = (broadcast::Sender::new(2), broadcast::Sender::new(2));
        let feed = Feed::start(streams.subscribe(), recordings.subscribe(), &Tasks::new());
        let mut reader = feed.reader(None);
        next(&mut reader).await;
        // The task that notes them has had no turn yet.
        for _ in 0..5 {
            streams.send(live()).unwrap();
        }
        assert_eq!(next(&mut reader).await.1, "reset");
    }

    #[test]
    fn an_event_has_what_the_list_has() {
        let entry = Entry::Stream(live());
        let told: serde_json::Value =
            serde_json::from_str(&entry.json(|manifest| manifest).unwrap()).unwrap();
        let mut listed = serde_json::to_value(cam()).unwrap();
        listed["change"] = "live".into();
        assert_eq!((told, entry.stream().as_str()), (listed, "cam"));
    }
}
