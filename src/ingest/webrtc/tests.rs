//! What an offer takes, when its answer doesn't come about.

use super::*;
use crate::base::tasks::Tasks;
use crate::publish::Limits;
use crate::record::{self, Recordings};
use crate::webrtc::engine::Command;
use str0m::media::{Direction, MediaKind};
use tokio::sync::{mpsc, oneshot};

/// Permits for so many streams, and an engine that is this receiver: it takes nothing by itself.
pub(crate) fn held(
    dir: &std::path::Path,
    max_streams: usize,
) -> (WebRtc, mpsc::Receiver<Command<Publication>>) {
    let config = record::Config { dir: dir.to_owned(), min_free: 0, ..Default::default() };
    let (recordings, events) = Recordings::open(config, false, Tasks::new()).unwrap();
    drop(events);
    let limits = Limits { max_streams, ..Limits::default() };
    let publications = Publications::new(recordings, Tasks::new(), Duration::ZERO, &limits);
    let (peers, receiver) = Peers::held();
    (WebRtc { peers, publications }, receiver)
}

pub(crate) fn offer(stream: &str) -> Offer {
    let mut rtc = str0m::Rtc::builder().build(Instant::now());
    let mut change = rtc.sdp_api();
    change.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    let sdp = change.apply().unwrap().0.to_sdp_string();
    let stream = stream.parse().unwrap();
    Offer { stream, sdp, record: false, resume: None, bearer: None, session: None, client: None }
}

fn filling() -> Command<Publication> {
    Command::StopAll { reply: oneshot::channel().0 }
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_engine_takes_its_offer_leaves_nothing_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (webrtc, mut engine) = held(dir.path(), 1);
    webrtc.peers.fill(filling());
    let gave_up = tokio::time::timeout(Duration::from_millis(50), webrtc.accept(offer("first"))).await;
    assert!(gave_up.is_err(), "{gave_up:?}");
    engine.recv().await.unwrap();
    let second = webrtc.accept(offer("second")).await;
    assert!(second.is_ok(), "the only permit is still taken: {second:?}");
    assert!(matches!(engine.recv().await, Some(Command::Add { .. })));
}

#[tokio::test]
async fn an_offer_that_no_engine_is_left_for_leaves_nothing_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (webrtc, engine) = held(dir.path(), 1);
    drop(engine);
    assert_eq!(webrtc.accept(offer("first")).await.map(drop), Err(PublishError::Stopping));
    let next = webrtc.publications.reserve(&"second".parse().unwrap(), false, None, None, None);
    assert!(next.is_ok(), "the only permit is still taken: {next:?}");
}

#[tokio::test]
async fn a_hung_engine_does_not_keep_the_server_from_ending_its_publications() {
    let dir = tempfile::tempdir().unwrap();
    let (webrtc, _hung) = held(dir.path(), 1);
    let publication = webrtc.publications.reserve(&"held".parse().unwrap(), false, None, None, None).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(60), webrtc.stop_all()).await;
    assert!(stopped.is_ok() && publication.is_over(), "it waits for an engine that never answers");
}
