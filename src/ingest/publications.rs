//! All publications: who has which name, who may come back, who is refused.

use crate::base::id::{Secret, StreamName};
use crate::base::places::{Party, Place, Places};
use crate::base::reason::EndReason;
use crate::base::tasks::Tasks;
use crate::ingest::limits::Meter;
use crate::ingest::publication::{Publication, StreamInfo};
use crate::ingest::{Limits, Refusal, SessionId};
use crate::live::Stream;
use crate::record::{self, Recordings};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A `resume` secret tells what became of its publication for this long after the end.
const REMEMBERED: Duration = Duration::from_secs(60);

/// So many ended publications are remembered; of more than that in a minute, which nobody has without
/// wanting to fill our memory, the next ones are forgotten at once.
const MEMORY: usize = 2000;

/// All publications. Cheap to clone.
///
/// Locks are taken in this order: the maps, one publication's state, its status.
#[derive(Clone, Debug)]
pub struct Publications {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) recordings: Recordings,
    pub(super) tasks: Tasks,
    pub(super) grace: Duration,
    pub(super) limits: Limits,
    streams: Places,
    handshakes: Places,
    /// One for each secret that is remembered after the end.
    memory: Arc<Semaphore>,
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    /// Who has each name.
    names: HashMap<StreamName, Arc<Publication>>,
    /// Everybody who may come back, and for a minute those whose file is sealed.
    secrets: HashMap<Secret, Arc<Publication>>,
    stopping: bool,
}

impl Publications {
    /// No publications yet.
    pub fn new(recordings: Recordings, tasks: Tasks, grace: Duration, limits: &Limits) -> Self {
        let places = |(all, each)| Places::new(all, each);
        let (streams, handshakes) = (places(limits.streams()), places(limits.handshakes()));
        let (limits, memory, maps) = (limits.clone(), Arc::new(Semaphore::new(MEMORY)), Mutex::default());
        let inner = Inner { recordings, tasks, grace, limits, streams, handshakes, memory, maps };
        Self { inner: Arc::new(inner) }
    }

    /// A place for a WebRTC session that has yet to connect.
    pub(super) fn handshake(&self, client: Option<Party>) -> Result<Place, Refusal> {
        Ok(self.inner.handshakes.enter(client)?)
    }

    /// Reserves a name for a publisher who makes an offer, or finds the publication it had.
    pub fn reserve(
        &self,
        name: &StreamName,
        record: bool,
        resume: Option<&Secret>,
        bearer: Option<String>,
        client: Option<Party>,
    ) -> Result<Arc<Publication>, Refusal> {
        // A call to the operating system, so before the lock.
        let room = if record { self.inner.recordings.room() } else { Ok(()) };
        let mut maps = self.inner.lock();
        if maps.stopping {
            return Err(Refusal::Stopping);
        }
        if let Some(resume) = resume {
            let held = maps.secrets.get(resume).filter(|held| held.name() == name && !held.is_over());
            return held.cloned().ok_or(Refusal::ResumeExpired);
        }
        if let Some(held) = maps.names.get(name).filter(|held| !held.is_over()) {
            let may = held.may_be_taken_over(bearer.as_deref());
            return if may { Ok(held.clone()) } else { Err(Refusal::StreamBusy(name.clone())) };
        }
        let place = self.inner.streams.enter(client)?;
        if matches!(room, Err(record::Error::DiskFull)) {
            return Err(Refusal::DiskFull);
        }
        let owner = Arc::downgrade(&self.inner);
        let meter = Meter::new(&self.inner.limits, Instant::now());
        let publication = Publication::new(name.clone(), record, bearer, owner, (place, meter));
        let publication = Arc::new(publication);
        maps.secrets.insert(publication.resume().clone(), publication.clone());
        Ok(publication)
    }

    /// The publication of this name behind a secret; for a minute after its end, too.
    pub fn find(&self, name: &StreamName, resume: &Secret) -> Option<Arc<Publication>> {
        self.inner.lock().secrets.get(resume).filter(|held| held.name() == name).cloned()
    }

    /// The publication that waits for the return of this session.
    pub fn waiting_for(&self, session: &SessionId) -> Option<Arc<Publication>> {
        let maps = self.inner.lock();
        maps.secrets.values().find(|held| !held.is_over() && held.was(session)).cloned()
    }

    /// All live streams, by name.
    pub fn list(&self) -> Vec<StreamInfo> {
        let mut list: Vec<_> =
            self.inner.lock().names.values().map(|publication| publication.info()).collect();
        list.sort_by(|a, b| a.stream.cmp(&b.stream));
        list
    }

    /// The media of the stream that has this name.
    pub fn stream(&self, name: &StreamName) -> Option<Stream> {
        self.inner.lock().names.get(name)?.stream()
    }

    /// Ends one stream.
    pub fn kick(&self, name: &StreamName) -> Result<(), Refusal> {
        let held = self.inner.lock().names.get(name).filter(|held| !held.is_over()).cloned();
        held.ok_or(Refusal::SessionNotFound)?.end(EndReason::Kicked, Instant::now());
        Ok(())
    }

    /// Takes no more offers.
    pub fn refuse(&self) {
        self.inner.lock().stopping = true;
    }

    /// Ends all that are left: those who wait for a publisher's return.
    pub fn stop(&self) {
        self.refuse();
        let all: Vec<_> = self.inner.lock().secrets.values().cloned().collect();
        for publication in all {
            publication.end(EndReason::ServerStopped, Instant::now());
        }
    }
}

impl Inner {
    /// Gives the name to whoever connects first; one whose file is being sealed needs it no more.
    pub(super) fn claim(&self, publication: &Arc<Publication>) -> Result<(), Refusal> {
        let mut maps = self.lock();
        if publication.is_over() {
            // Under the lock that its release needs: a name taken after that would never be free again.
            return Err(Refusal::SessionNotFound);
        }
        if maps.stopping {
            return Err(Refusal::Stopping);
        }
        let holder = maps.names.entry(publication.name().clone()).or_insert_with(|| publication.clone());
        if holder.is_over() {
            *holder = publication.clone();
        }
        if Arc::ptr_eq(holder, publication) {
            Ok(())
        } else {
            Err(Refusal::StreamBusy(publication.name().clone()))
        }
    }

    /// Frees the name at once and the secret after a while.
    pub(super) fn release(self: &Arc<Self>, name: &StreamName, resume: &Secret) {
        let mut maps = self.lock();
        if maps.names.get(name).is_some_and(|held| held.resume() == resume) {
            maps.names.remove(name);
        }
        let Ok(remembered) = self.memory.clone().try_acquire_owned() else {
            maps.secrets.remove(resume);
            return;
        };
        let (inner, resume, stop) = (self.clone(), resume.clone(), self.tasks.stop_token());
        self.tasks.spawn("forget a publication", async move {
            tokio::select! {
                () = tokio::time::sleep(REMEMBERED) => {}
                () = stop.cancelled() => {}
            }
            inner.lock().secrets.remove(&resume);
            drop(remembered);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Way;
    use crate::ingest::status::Status;
    use crate::media::{Event, Frame, Track};
    use crate::record;

    const TRACKS: [Track; 1] = [Track::opus(2)];

    fn publications(dir: &std::path::Path) -> Publications {
        let config = record::Config { dir: dir.to_owned(), min_free: 0, ..Default::default() };
        let (recordings, events) = Recordings::open(config, false, Tasks::new()).unwrap();
        drop(events);
        let limits = Limits { max_streams: 10, max_streams_per_address: 3, ..Limits::default() };
        Publications::new(recordings, Tasks::new(), Duration::from_secs(3600), &limits)
    }

    fn session() -> SessionId {
        SessionId(Secret::new())
    }

    /// One that has made an offer, and its session.
    fn offered(all: &Publications, record: bool) -> (Arc<Publication>, SessionId) {
        let publication = all.reserve(&"name".parse().unwrap(), record, None, None, None).unwrap();
        let session = session();
        publication.offered(&session);
        (publication, session)
    }

    fn word(publication: &Publication) -> &'static str {
        publication.status().borrow().word()
    }

    #[tokio::test]
    async fn a_session_that_connects_after_the_end_takes_no_name_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (ended, late) = offered(&all, true);
        ended.end(EndReason::Kicked, Instant::now());
        assert!(ended.connected(&late, Way::Webrtc, &TRACKS, Instant::now()).is_err());
        assert!(all.list().is_empty(), "{:?}", all.list());
        let (next, session) = offered(&all, true);
        next.connected(&session, Way::Webrtc, &TRACKS, Instant::now()).unwrap();
        assert_eq!(all.list().len(), 1);
    }

    #[tokio::test]
    async fn a_publication_fails_only_when_its_last_session_has_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (publication, first) = offered(&all, true);
        let second = session();
        publication.offered(&second);
        publication.lost(&first, Instant::now());
        assert_eq!(word(&publication), "PENDING");
        assert_eq!(publication.session(), Some(second.clone()), "whom a re-offer is for");
        publication.lost(&second, Instant::now());
        assert_eq!(word(&publication), "FAILED");
        assert!(publication.connected(&second, Way::Webrtc, &TRACKS, Instant::now()).is_err());
    }

    #[tokio::test]
    async fn a_name_is_free_while_the_file_before_is_still_being_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (first, session) = offered(&all, true);
        first.connected(&session, Way::Webrtc, &TRACKS, Instant::now()).unwrap();
        let name = first.name().clone();
        assert!(matches!(all.reserve(&name, true, None, None, None), Err(Refusal::StreamBusy(_))));
        all.kick(&name).unwrap();
        assert_eq!(all.kick(&name), Err(Refusal::SessionNotFound), "kicked twice");
        // Its recorder has not run yet.
        assert_eq!(word(&first), "PENDING");
        let (second, session) = offered(&all, true);
        second.connected(&session, Way::Webrtc, &TRACKS, Instant::now()).unwrap();
        let _ = first.status().wait_for(Status::is_final).await.unwrap();
        let again = all.reserve(&name, true, None, None, None);
        assert!(matches!(again, Err(Refusal::StreamBusy(_))), "it was freed");
    }

    #[tokio::test]
    async fn what_is_not_recorded_does_not_fail_and_a_lost_session_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (never, _) = offered(&all, false);
        never.end(EndReason::Stopped, Instant::now());
        assert_eq!(word(&never), "UNPUBLISHED");

        let (publication, session) = offered(&all, false);
        publication.connected(&session, Way::Webrtc, &TRACKS, Instant::now()).unwrap();
        publication.lost(&session, Instant::now());
        assert_eq!(word(&publication), "PENDING", "it is not waited for");
        all.waiting_for(&session).unwrap().end(EndReason::Stopped, Instant::now());
        assert_eq!(word(&publication), "UNPUBLISHED");
        assert!(all.waiting_for(&session).is_none() && all.list().is_empty());
    }

    #[tokio::test]
    async fn streams_are_bounded_in_all_and_for_one_client_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let client = Party::of("198.51.100.1".parse().unwrap());
        let reserve =
            |n: usize, client| all.reserve(&format!("name {n}").parse().unwrap(), false, None, None, client);
        let mut held: Vec<_> = (0..3).map(|n| reserve(n, client).unwrap()).collect();
        assert_eq!(reserve(3, client).unwrap_err(), Refusal::RateLimited("limits.max_streams_per_address"));
        held.extend((3..10).map(|n| reserve(n, None).unwrap()));
        assert_eq!(reserve(10, None).unwrap_err(), Refusal::LimitReached("limits.max_streams"));
        held[0].end(EndReason::Stopped, Instant::now());
        reserve(11, client).unwrap();
    }

    #[tokio::test]
    async fn publications_that_end_by_the_thousand_are_not_all_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let mut last = None;
        for _ in 0..2 * MEMORY {
            let (publication, _) = offered(&all, false);
            publication.end(EndReason::Stopped, Instant::now());
            last = Some(publication);
        }
        let (last, kept) = (last.unwrap(), all.inner.lock().secrets.len());
        assert_eq!((kept, all.inner.streams.taken()), (MEMORY, 0), "remembered, places taken");
        assert!(all.find(last.name(), last.resume()).is_none());
    }

    #[tokio::test]
    async fn a_publication_that_exceeds_a_limit_ends_with_that_reason() {
        let dir = tempfile::tempdir().unwrap();
        let config = record::Config { dir: dir.path().to_owned(), min_free: 0, ..Default::default() };
        let (recordings, _events) = Recordings::open(config, false, Tasks::new()).unwrap();
        let limits = Limits { max_bytes: 1000, ..Limits::default() };
        let all = Publications::new(recordings, Tasks::new(), Duration::ZERO, &limits);
        let (publication, session) = offered(&all, false);
        publication.connected(&session, Way::Webrtc, &TRACKS, Instant::now()).unwrap();
        for _ in 0..11 {
            assert!(!publication.is_over());
            let data = vec![0; 100].into();
            let frame = Frame { track: 0, time: Duration::ZERO, keyframe: true, size: None, data };
            publication.media(&session, Event::Frame(frame), Instant::now());
        }
        let status = publication.status().borrow().clone();
        assert!(matches!(status, Status::Unpublished { reason: EndReason::Limit, .. }), "{status:?}");
    }
}
