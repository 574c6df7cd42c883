//! Whole recordings: frames into a stream, files judged by ffmpeg, ffprobe and mkvinfo.

mod control;
mod disk_errors;
mod faults;
mod judge;
mod media;
mod others;
mod promises;
mod silence;

use crate::base::end_reason::EndReason;
use crate::base::tasks::Tasks;
use crate::catalog::Manifest;
use crate::live::Stream;
use crate::media::{Event as MediaEvent, Track};
use crate::record::{Config, Event, Progress, Recording, Recordings};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// No step of a test takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that records.
struct Bench {
    dir: PathBuf,
    recordings: Recordings,
    events: mpsc::Receiver<Event>,
}

impl Bench {
    fn new(dir: &Path, config: Config) -> Self {
        let config = Config { dir: dir.to_owned(), ..config };
        let (recordings, events) = Recordings::open(config, true, Tasks::new()).unwrap();
        Self { dir: dir.to_owned(), recordings, events }
    }

    fn start(&self, name: &str, tracks: &[Track]) -> (Stream, Recording) {
        let stream = Stream::new(name.parse().unwrap(), tracks.to_vec());
        let recording = self.recordings.start(&stream).unwrap();
        (stream, recording)
    }

    /// Records all of `events` at once.
    async fn record(&mut self, name: &str, tracks: &[Track], events: &[MediaEvent]) -> Manifest {
        let (stream, recording) = self.start(name, tracks);
        push(&stream, events);
        stream.end(EndReason::Stopped, Instant::now());
        sealed(recording).await
    }

    /// The names in the folder, but for hidden ones.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}

fn push(stream: &Stream, events: &[MediaEvent]) {
    for event in events {
        stream.push(event.clone(), Instant::now());
    }
}

/// Looks until there is something to see.
async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a recording's progress to be what `wanted` takes.
async fn until<T>(recording: &mut Recording, wanted: impl Fn(&Progress) -> Option<T>) -> T {
    let seen = recording.progress.clone();
    let wait = recording.progress.wait_for(|progress| wanted(progress).is_some());
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(progress)) => wanted(&progress).unwrap(),
        _ => panic!("waited in vain: {:?}", *seen.borrow()),
    }
}

async fn ended(mut recording: Recording) -> Progress {
    let end = |progress: &Progress| {
        let over = !matches!(progress, Progress::Waiting | Progress::Writing | Progress::Sealing(_));
        over.then(|| progress.clone())
    };
    until(&mut recording, end).await
}

async fn sealed(recording: Recording) -> Manifest {
    match ended(recording).await {
        Progress::Sealed(manifest) => *manifest,
        other => panic!("not sealed: {other:?}"),
    }
}
