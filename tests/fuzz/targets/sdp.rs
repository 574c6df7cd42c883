//! A client's offer: it is answered section by section, or refused in words; never more.

use onrecord::webrtc::PeerError;
use onrecord::rtp;
use onrecord::webrtc::dtls::Identity;
use onrecord::webrtc::TransportAddress;
use onrecord::webrtc::session::{Session, SessionConfig};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// One for all: making it is no part of what is tried.
static IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("a certificate")));

pub fn run(data: &[u8]) {
    let Ok(offer) = std::str::from_utf8(data) else { return };
    let now = Instant::now();
    let address = ([192, 0, 2, 1], 8189).into();
    let config = SessionConfig {
        candidates: vec![TransportAddress::udp(address), TransportAddress::tcp(address)],
        identity: IDENTITY.clone(),
        pipeline: rtp::Config {
            reorder_window: Duration::from_secs(1),
            keyframe_interval: Duration::from_secs(4),
        },
        origin: now,
        idle_timeout: Duration::from_secs(60),
        start_bitrate: 2_000_000,
    };
    let (mut session, answer) = match Session::accept(offer, &config, now) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            assert!(matches!(refusal, PeerError::BadSdp(_) | PeerError::UnsupportedCodec), "{refusal:?}");
            assert!(refusal.to_string().len() < 4096, "a refusal of {} bytes", refusal.to_string().len());
            return;
        }
    };
    let sections = |sdp: &str| sdp.split('\n').filter(|line| line.starts_with("m=")).count();
    assert_eq!(sections(&answer.sdp), sections(offer), "RFC 3264: one section for each");
    assert!((1..=2).contains(&session.tracks().len()));
    step(&mut session, now);
    // The same offer again is no restart; what follows may be refused, but not break the session.
    let _ = session.reoffer(offer, now);
    let _ = session.restart(offer, now);
    step(&mut session, now + Duration::from_millis(50));
}

fn step(session: &mut Session, now: Instant) {
    session.handle_timeout(now);
    let sent = std::iter::from_fn(|| session.poll_transmit(now)).take(10_000).count();
    assert!(sent < 10_000, "it sends without end");
    let told = std::iter::from_fn(|| session.poll_event(now)).take(1000).count();
    assert!(told < 1000, "it tells without end");
}
