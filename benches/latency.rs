//! How long a picture takes from its last packet to a viewer of `/live`, as far as it can be seen from outside.
//!
//! Viewers are sent clusters of up to 100 ms of frames, so most of it is waiting for the cluster's end; what is
//! left of it for each cluster's newest picture comes nearest to what the server itself takes.

use crate::publishers::Sender;
use crate::report::percentile;
use crate::support::viewer::{Seen, Viewer};
use serde::Serialize;
use std::ops::Range;
use std::time::{Duration, Instant};
use str0m::media::MediaKind;
use tokio::task::JoinHandle;

/// In ms.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    /// The same for the newest picture of each message.
    pub newest_p50: f64,
    pub newest_p99: f64,
    pub pictures: usize,
    /// Pictures that never came.
    pub missing: usize,
}

/// What a viewer was sent, and when.
type Messages = Vec<(Instant, Vec<u8>)>;

/// A picture that takes longer is missing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches `bench-0` to its end.
pub async fn watch(base: &str) -> JoinHandle<Messages> {
    let url = format!("{}/live/bench-0", base.replacen("http", "ws", 1));
    let mut viewer = Viewer::connect(&url, None).await;
    tokio::spawn(async move {
        let mut messages = Vec::new();
        loop {
            match viewer.next().await {
                Seen::Binary(bytes) => messages.push((Instant::now(), bytes)),
                Seen::Text(_) => {}
                Seen::Closed(_) => return messages,
            }
        }
    })
}

/// When the viewer had what the publisher sent in a window.
pub fn of(sender: &Sender, window: &Range<Instant>, messages: &Messages) -> Latency {
    let sent = sender.publisher.sent().iter().zip(&sender.frames);
    let pictures = sent.filter(|(sent, frame)| sent.kind == MediaKind::Video && window.contains(&frame.due));
    // Where the next is looked for: in which message, and from which byte on.
    let (mut message, mut at) = (0, 0);
    let (mut took, mut newest, mut missing) = (Vec::new(), Vec::new(), 0);
    for (sent, frame) in pictures {
        let candidates = messages.iter().enumerate().skip(message);
        let found = candidates
            .skip_while(|(_, (came, _))| *came < frame.left)
            .take_while(|(_, (came, _))| *came < frame.left + PATIENCE)
            .find_map(|(n, (came, bytes))| {
                let from = if n == message { at } else { 0 };
                let place = bytes[from..].windows(sent.data.len()).position(|part| *part == *sent.data)?;
                Some((n, from + place + sent.data.len(), *came))
            });
        let Some((n, end, came)) = found else {
            missing += 1;
            continue;
        };
        let ms = (came - frame.left).as_secs_f64() * 1e3;
        if n == message {
            newest.pop();
        }
        newest.push(ms);
        took.push(ms);
        (message, at) = (n, end);
    }
    Latency {
        p50: percentile(&mut took, 0.5),
        p99: percentile(&mut took, 0.99),
        newest_p50: percentile(&mut newest, 0.5),
        newest_p99: percentile(&mut newest, 0.99),
        pictures: took.len() + missing,
        missing,
    }
}
