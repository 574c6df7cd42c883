//! All publications: which has which name, which may be resumed, which publishers are refused.

use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, Secret, SessionId, StreamName};
use crate::base::metrics::{Scrape, metrics};
use crate::base::quota::{ClientKey, Permit, Quota};
use crate::base::tasks::Tasks;
use crate::base::tombstones::Tombstones;
use crate::catalog::RecordingError;
use crate::live::Stream;
use crate::publish::limits::Meter;
use crate::publish::publication::{Change, ControlError, Publication, StreamInfo, What};
use crate::publish::{Limits, PublishError, Transport};
use crate::record::{Begun, Recordings};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Changes that may wait for a subscriber; one that is further behind learns that it missed
/// some, and reads the list again.
const CHANGES: usize = 256;

/// So many ended publications are remembered by their `resume` secret.
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
    streams: Quota,
    handshakes: Quota,
    /// Of secrets that are remembered after the end.
    tombstones: Tombstones,
    maps: Mutex<Maps>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Maps {
    /// The publication that has each name.
    names: HashMap<StreamName, Arc<Publication>>,
    /// All that may be resumed, and for a minute those whose file is sealed.
    secrets: HashMap<Secret, Arc<Publication>>,
    stopping: bool,
}

impl Publications {
    /// No publications yet.
    pub fn new(recordings: Recordings, tasks: Tasks, grace: Duration, limits: &Limits) -> Self {
        let quota = |(all, each)| Quota::new(all, each);
        let (streams, handshakes) = (quota(limits.streams()), quota(limits.handshakes()));
        let (limits, tombstones, maps) = (limits.clone(), Tombstones::new(MEMORY), Mutex::default());
        let changes = broadcast::Sender::new(CHANGES);
        let inner =
            Inner { recordings, tasks, grace, limits, streams, handshakes, tombstones, maps, changes };
        Self { inner: Arc::new(inner) }
    }

    /// A permit for a WebRTC session that has yet to connect.
    pub(crate) fn handshake(&self, client: Option<ClientKey>) -> Result<Permit, PublishError> {
        Ok(self.inner.handshakes.enter(client)?)
    }

    /// Reserves a name for a publisher that makes an offer, or finds the publication it had.
    pub fn reserve(
        &self,
        name: &StreamName,
        record: bool,
        resume: Option<&Secret>,
        bearer: Option<String>,
        client: Option<ClientKey>,
    ) -> Result<Arc<Publication>, PublishError> {
        // A call to the operating system, so before the lock.
        let space = if record { self.inner.recordings.has_space() } else { Ok(()) };
        let mut maps = self.inner.lock();
        if maps.stopping {
            return Err(PublishError::Stopping);
        }
        if let Some(resume) = resume {
            let held = maps.secrets.get(resume).filter(|held| held.name() == name && !held.is_over());
            return held.cloned().ok_or(PublishError::ResumeExpired);
        }
        if let Some(held) = maps.names.get(name).filter(|held| held.needs_name()) {
            let may = held.may_be_taken_over(bearer.as_deref());
            return if may { Ok(held.clone()) } else { Err(PublishError::StreamBusy(name.clone())) };
        }
        let permit = self.inner.streams.enter(client)?;
        if matches!(space, Err(RecordingError::DiskFull)) {
            return Err(PublishError::DiskFull);
        }
        let owner = Arc::downgrade(&self.inner);
        let meter = Meter::new(&self.inner.limits, Instant::now());
        let publication = Publication::new(name.clone(), record, bearer, owner, (permit, meter));
        let publication = Arc::new(publication);
        maps.secrets.insert(publication.resume().clone(), publication.clone());
        metrics().publications.begun.inc();
        Ok(publication)
    }

    /// The publication of this name behind a secret; for a minute after its end, too.
    pub fn find(&self, name: &StreamName, resume: &Secret) -> Option<Arc<Publication>> {
        self.inner.lock().secrets.get(resume).filter(|held| held.name() == name).cloned()
    }

    /// The publication that waits for the publisher of this session.
    pub fn waiting_for(&self, session: &SessionId) -> Option<Arc<Publication>> {
        let maps = self.inner.lock();
        maps.secrets.values().find(|held| !held.is_over() && held.is_current(session)).cloned()
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
    pub fn kick(&self, name: &StreamName) -> Result<(), PublishError> {
        let held = self.inner.lock().names.get(name).filter(|held| !held.is_over()).cloned();
        held.ok_or(PublishError::SessionNotFound)?.end(EndReason::Kicked, Instant::now());
        Ok(())
    }

    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let all: Vec<_> = self.inner.lock().secrets.values().cloned().collect();
        let transports: Vec<_> = all.iter().filter_map(|publication| publication.transport()).collect();
        let of = |transport: Option<Transport>| {
            transports.iter().filter(|other| **other == transport).count() as u64
        };
        let values = [
            (Transport::Webrtc.as_str(), of(Some(Transport::Webrtc))),
            (Transport::Chunks.as_str(), of(Some(Transport::Chunks))),
            (Transport::Mjpeg.as_str(), of(Some(Transport::Mjpeg))),
            ("none", of(None)),
        ];
        let help = "Publications by way in; none: they have not connected yet";
        scrape.gauges("streams", help, "way", values);
        let most = all.iter().filter_map(|publication| publication.stream()).map(|stream| stream.backlog());
        let help = "Bytes that wait for a recorder to write them: the most of all streams";
        scrape.gauge("recorder_queue_max_bytes", help, most.max().unwrap_or(0) as u64);
    }

    /// The streams that begin and end from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// A stream's media goes to a new file from now on.
    pub fn begin_file(&self, name: &StreamName) -> Result<Begun, ControlError> {
        self.live(name)?.begin_file()
    }

    /// A stream is recorded no longer, and goes on.
    pub fn stop_recording(&self, name: &StreamName) -> Result<RecordingId, ControlError> {
        self.live(name)?.stop_recording()
    }

    fn live(&self, name: &StreamName) -> Result<Arc<Publication>, ControlError> {
        self.inner.lock().names.get(name).cloned().ok_or(ControlError::NotLive)
    }

    /// Takes no more offers.
    pub fn refuse(&self) {
        self.inner.lock().stopping = true;
    }

    /// Ends all that are left: those that wait for their publisher.
    pub fn stop(&self) {
        self.refuse();
        let all: Vec<_> = self.inner.lock().secrets.values().cloned().collect();
        for publication in all {
            publication.end(EndReason::ServerStopped, Instant::now());
        }
    }
}

impl Inner {
    /// Gives the name to the first publication that connects; one that leaves, or whose file is being sealed, needs it
    /// no more.
    pub(crate) fn claim(&self, publication: &Arc<Publication>) -> Result<(), PublishError> {
        let mut maps = self.lock();
        if publication.is_over() {
            // Under the lock that its release needs: a name taken after that would never be free again.
            return Err(PublishError::SessionNotFound);
        }
        if maps.stopping {
            return Err(PublishError::Stopping);
        }
        let holder = maps.names.entry(publication.name().clone()).or_insert_with(|| publication.clone());
        if !holder.needs_name() {
            *holder = publication.clone();
        }
        if Arc::ptr_eq(holder, publication) {
            Ok(())
        } else {
            Err(PublishError::StreamBusy(publication.name().clone()))
        }
    }

    /// An error only means that there is no subscriber.
    pub(super) fn announce(&self, what: What, info: StreamInfo) {
        let _ = self.changes.send(Change { what, info });
    }

    /// Frees the name at once and the secret after a while.
    pub(super) fn release(self: &Arc<Self>, name: &StreamName, resume: &Secret) {
        let mut maps = self.lock();
        if maps.names.get(name).is_some_and(|held| held.resume() == resume) {
            maps.names.remove(name);
        }
        let Some(tombstone) = self.tombstones.add() else {
            maps.secrets.remove(resume);
            return;
        };
        let (inner, resume, stop) = (self.clone(), resume.clone(), self.tasks.stop_token());
        self.tasks.spawn("forget a publication", async move {
            stop.run_until_cancelled(tombstone.expires()).await;
            inner.lock().secrets.remove(&resume);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{self, Codec, Event, Frame, Track};
    use crate::publish::status::Status;
    use crate::record;
    use bytes::Bytes;

    const TRACKS: [Track; 1] = [Track::opus(2)];
    const PICTURES: Track = Track::video(Codec::Mjpeg);

    fn publications(dir: &std::path::Path) -> Publications {
        let config = record::Config { dir: dir.to_owned(), min_free: 0, ..Default::default() };
        let (recordings, events) = Recordings::open(config, false, Tasks::new()).unwrap();
        drop(events);
        let limits = Limits { max_streams: 10, max_streams_per_address: 3, ..Limits::default() };
        Publications::new(recordings, Tasks::new(), Duration::from_secs(3600), &limits)
    }

    fn session() -> SessionId {
        SessionId::new()
    }

    /// One that has made an offer, and its session.
    fn offered(all: &Publications, record: bool) -> (Arc<Publication>, SessionId) {
        let publication = all.reserve(&"name".parse().unwrap(), record, None, None, None).unwrap();
        let session = session();
        publication.offered(&session);
        (publication, session)
    }

    fn status(publication: &Publication) -> &'static str {
        publication.status().borrow().as_str()
    }

    #[tokio::test]
    async fn a_session_that_connects_after_the_end_takes_no_name_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (ended, late) = offered(&all, true);
        ended.end(EndReason::Kicked, Instant::now());
        assert!(ended.connected(&late, Transport::Webrtc, &TRACKS, Instant::now()).is_err());
        assert!(all.list().is_empty(), "{:?}", all.list());
        let (next, session) = offered(&all, true);
        next.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
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
        assert_eq!(status(&publication), "PENDING");
        assert_eq!(publication.session(), Some(second.clone()), "the one a re-offer is for");
        publication.lost(&second, Instant::now());
        assert_eq!(status(&publication), "FAILED");
        assert!(publication.connected(&second, Transport::Webrtc, &TRACKS, Instant::now()).is_err());
    }

    #[tokio::test]
    async fn a_name_is_free_while_the_file_before_is_still_being_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (first, session) = offered(&all, true);
        first.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
        let name = first.name().clone();
        assert!(matches!(all.reserve(&name, true, None, None, None), Err(PublishError::StreamBusy(_))));
        all.kick(&name).unwrap();
        assert_eq!(all.kick(&name), Err(PublishError::SessionNotFound), "kicked twice");
        // Its recorder has not run yet.
        assert_eq!(status(&first), "PENDING");
        let (second, session) = offered(&all, true);
        second.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
        let _ = first.status().wait_for(Status::is_final).await.unwrap();
        let again = all.reserve(&name, true, None, None, None);
        assert!(matches!(again, Err(PublishError::StreamBusy(_))), "it was freed");
    }

    #[tokio::test]
    async fn what_is_not_recorded_does_not_fail_and_a_lost_session_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (never, _) = offered(&all, false);
        never.end(EndReason::Stopped, Instant::now());
        assert_eq!(status(&never), "UNPUBLISHED");

        let (publication, session) = offered(&all, false);
        publication.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
        publication.lost(&session, Instant::now());
        assert_eq!(status(&publication), "PENDING", "it is not waited for");
        all.waiting_for(&session).unwrap().end(EndReason::Stopped, Instant::now());
        assert_eq!(status(&publication), "UNPUBLISHED");
        assert!(all.waiting_for(&session).is_none() && all.list().is_empty());
    }

    #[tokio::test]
    async fn streams_are_bounded_in_all_and_for_one_client_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let client = ClientKey::of("198.51.100.1".parse().unwrap());
        let reserve =
            |n: usize, client| all.reserve(&format!("name {n}").parse().unwrap(), false, None, None, client);
        let mut held: Vec<_> = (0..3).map(|n| reserve(n, client).unwrap()).collect();
        assert_eq!(
            reserve(3, client).unwrap_err(),
            PublishError::RateLimited("limits.max_streams_per_address")
        );
        held.extend((3..10).map(|n| reserve(n, None).unwrap()));
        assert_eq!(reserve(10, None).unwrap_err(), PublishError::LimitReached("limits.max_streams"));
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
        assert_eq!((kept, all.inner.streams.taken()), (MEMORY, 0), "remembered, permits taken");
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
        publication.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
        for _ in 0..11 {
            assert!(!publication.is_over());
            let data = vec![0; 100].into();
            let frame = Frame { keyframe: true, ..Frame::of(0, data) };
            publication.media(&session, Event::Frame(frame), Instant::now());
        }
        let status = publication.status().borrow().clone();
        assert!(matches!(status, Status::Unpublished { reason: EndReason::Limit, .. }), "{status:?}");
    }

    #[tokio::test]
    async fn connecting_and_beginning_a_file_do_not_wait_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("records");
        let all = publications(&folder);
        let (publication, session) = offered(&all, true);
        let bytes = all.reserve(&"bytes".parse().unwrap(), true, None, None, None).unwrap();
        // A call to it would fail now.
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(all.inner.recordings.has_space().is_err());
        publication.connected(&session, Transport::Webrtc, &TRACKS, Instant::now()).unwrap();
        bytes.connected_bytes(&self::session(), Transport::Chunks, Instant::now()).unwrap();
    }

    /// A picture that stands for itself.
    fn picture(publication: &Publication, session: &SessionId, ms: u64) {
        let (time, data) = (Duration::from_millis(ms), Bytes::from_static(b"picture"));
        let frame = Frame { time, keyframe: true, ..Frame::of(0, data) };
        publication.media(session, media::Event::Frame(frame), Instant::now());
    }

    /// On air with pictures, and what becomes of it.
    fn on_air(all: &Publications, record: bool) -> (Arc<Publication>, SessionId) {
        let (publication, session) = offered(all, record);
        publication.connected(&session, Transport::Mjpeg, &[PICTURES], Instant::now()).unwrap();
        picture(&publication, &session, 0);
        (publication, session)
    }

    async fn last(publication: &Publication) -> Status {
        let mut status = publication.status();
        let wait = status.wait_for(Status::is_final);
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap().clone()
    }

    fn kept(status: &Status) -> Option<(&RecordingId, EndReason)> {
        let Status::Unpublished { recording, reason } = status else { panic!("{status:?}") };
        recording.as_ref().map(|recording| (&recording.id, *reason))
    }

    #[tokio::test]
    async fn recording_begins_and_stops_as_the_operator_asks_and_the_last_file_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let name = "name".parse().unwrap();
        assert!(matches!(all.begin_file(&name), Err(ControlError::NotLive)));
        let mut changes = all.changes();
        let (publication, session) = on_air(&all, false);
        assert!(matches!(all.stop_recording(&name), Err(ControlError::NotRecorded)));
        let first = all.begin_file(&name).unwrap();
        assert_eq!((first.continues, first.waits), (None, false));
        assert_eq!(all.list()[0].recording, Some(first.recording.clone()));
        picture(&publication, &session, 100);
        assert_eq!(all.stop_recording(&name).unwrap(), first.recording);
        assert!(matches!(all.stop_recording(&name), Err(ControlError::NotRecorded)));
        assert_eq!((all.list()[0].recording.clone(), status(&publication)), (None, "PUBLISHING"));
        picture(&publication, &session, 200);
        let second = all.begin_file(&name).unwrap();
        assert_eq!((second.continues, second.waits), (None, false), "the first one is another recording");
        picture(&publication, &session, 300);
        all.stop_recording(&name).unwrap();
        all.kick(&name).unwrap();
        let last = last(&publication).await;
        assert_eq!(kept(&last), Some((&second.recording, EndReason::Kicked)));
        assert!(all.list().is_empty() && matches!(all.begin_file(&name), Err(ControlError::NotLive)));
        let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok())
            .map(|change| (change.what, change.info.recording))
            .collect();
        assert_eq!(told, [(What::Live, None), (What::Ended, Some(second.recording))]);
    }

    #[tokio::test]
    async fn a_recording_without_a_frame_is_no_failure_where_the_publisher_asked_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let all = publications(dir.path());
        let (publication, _) = on_air(&all, false);
        all.begin_file(publication.name()).unwrap();
        publication.end(EndReason::Stopped, Instant::now());
        assert_eq!(kept(&last(&publication).await), None);
    }

    #[tokio::test]
    async fn requests_that_come_all_at_once_lose_no_picture() {
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let all = publications(dir.path());
            let (publication, session) = on_air(&all, true);
            let publisher = {
                let (publication, session) = (publication.clone(), session.clone());
                std::thread::spawn(move || (1..=400).for_each(|n| picture(&publication, &session, n * 10)))
            };
            let operators: Vec<_> = (0..3)
                .map(|_| {
                    let (all, name) = (all.clone(), publication.name().clone());
                    std::thread::spawn(move || {
                        for _ in 0..5 {
                            let _ = all.begin_file(&name);
                        }
                    })
                })
                .collect();
            for thread in operators {
                thread.join().unwrap();
            }
            publisher.join().unwrap();
            if round % 2 == 0 {
                let _ = all.stop_recording(publication.name());
            }
            publication.end(EndReason::Stopped, Instant::now());
            let last = last(&publication).await;
            all.inner.recordings.drained().await;
            let files = all.inner.recordings.list();
            let pictures: u64 = files.iter().map(|file| file.tracks[0].frames).sum();
            assert_eq!(pictures, 401, "in {} files", files.len());
            assert_eq!(kept(&last).map(|(id, _)| id), Some(&files[0].id), "the newest one is told");
            for pair in files.windows(2) {
                assert_eq!(pair[0].continues.as_ref(), Some(&pair[1].id));
            }
        }
    }
}
