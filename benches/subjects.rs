//! Those who are measured, each a process of its own: the server, and the bare loops.

use crate::bare;
use crate::bare_rtc::RtcSession;
use crate::bare_str0m::Str0mSession;
use crate::options::{Options, SETTINGS, Subject};
use crate::process::Process;
use crate::support::judge;
use crate::support::server::Server;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the server may take to seal everything and to run the hooks.
const SEALING: Duration = Duration::from_secs(30);

/// A subject that runs.
pub struct Running {
    pub process: Process,
    pub base: String,
    server: Option<Server>,
}

/// What became of what was sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Files {
    /// With as many frames as were sent; those that there are to be.
    pub whole: usize,
    pub files: usize,
    pub frames_found: usize,
    pub frames_sent: usize,
}

/// Is a bare loop, until it is killed.
pub fn serve(subject: Subject, options: &Options) {
    let rest = Duration::from_millis(options.rest);
    match subject {
        Subject::Rtc => bare::serve::<RtcSession>(rest),
        Subject::Str0m => bare::serve::<Str0mSession>(rest),
        Subject::Server | Subject::Other => unreachable!("the server has a program of its own"),
    }
}

impl Running {
    pub fn start(subject: Subject, options: &Options) -> Self {
        let server = match subject {
            Subject::Server => Some(Server::start(&settings(&options.set))),
            // Absolute, because it is started in a folder of its own.
            Subject::Other => {
                let program = options.other.as_deref().and_then(|program| program.canonicalize().ok());
                let program = program.expect("the program of --other");
                Some(Server::start_other(&program, &settings(&options.other_set)))
            }
            Subject::Rtc | Subject::Str0m => None,
        };
        if let Some(server) = server {
            let (process, base) = (Process::of(server.pid()), server.base.clone());
            return Self { process, base, server: Some(server) };
        }
        let mut process =
            Process::start(&["--serve", subject.name(), "--rest", &options.rest.to_string()], Path::new("."));
        let base = process.says("http://");
        Self { process, base, server: None }
    }

    /// Waits until all files are sealed and their hooks have run, which the manifests say without the server
    /// being asked.
    pub async fn finished(&self, streams: usize) {
        let Some(server) = &self.server else { return };
        let (deadline, mut done) = (Instant::now() + SEALING, HashSet::new());
        while done.len() < streams {
            if Instant::now() > deadline {
                return println!("    {} of {streams} hooks have run in {SEALING:?}", done.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let manifests = files(&server.records(), "json");
            let new: Vec<_> = manifests.into_iter().filter(|path| !done.contains(path)).collect();
            done.extend(new.into_iter().filter(|path| hook_has_run(path)));
        }
    }

    /// Ends it; compares the files with what was sent of pictures and of sound.
    pub fn stop(mut self, sent: &[(usize, usize)]) -> Files {
        let Some(server) = &mut self.server else { return Files::default() };
        let status = server.stop(Duration::from_secs(30));
        assert!(status.is_some_and(|status| status.success()), "the server did not end well: {status:?}");
        let paths = files(&server.records(), "webm");
        let check = |first: usize| {
            let own = sent.iter().enumerate().skip(first).step_by(2);
            own.map(|(n, sent)| check(&paths, n, *sent)).collect::<Vec<_>>()
        };
        let mut total = Files::default();
        // Two at a time, because each is read by a process of ffprobe's.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| check(1));
            check(0).into_iter().chain(other.join().unwrap()).for_each(|files| total.add(files));
        });
        total
    }
}

impl Files {
    pub fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.files += other.files;
        self.frames_found += other.frames_found;
        self.frames_sent += other.frames_sent;
    }
}

fn settings(more: &[String]) -> Vec<&str> {
    SETTINGS.into_iter().chain(more.iter().map(String::as_str)).collect()
}

/// Whether a recording's manifest says that its hook has run.
fn hook_has_run(manifest: &Path) -> bool {
    // One that is being replaced is looked at again.
    let text = std::fs::read(manifest).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
    assert_ne!(manifest["hook"]["state"], "failed", "{manifest}");
    manifest["hook"]["state"] == "done"
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

fn check(paths: &[PathBuf], n: usize, sent: (usize, usize)) -> Files {
    let prefix = format!("bench-{n}_");
    let is_its = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    let packets: Vec<_> =
        paths.iter().filter(is_its).flat_map(|path| judge::packets(path)).map(|packet| packet.kind).collect();
    let count = |kind: &str| packets.iter().filter(|found| **found == kind).count();
    let found = (count("video"), count("audio"));
    if found != sent {
        println!("    bench-{n}: {found:?} frames in the file, {sent:?} sent (video, audio)");
    }
    Files {
        whole: usize::from(found == sent),
        files: 1,
        frames_found: found.0 + found.1,
        frames_sent: sent.0 + sent.1,
    }
}
