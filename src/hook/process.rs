//! One attempt: the script in a process group of its own, its input, its output, its end.

use super::jobs::Job;
use super::orphans::born;
use super::output::Output;
use super::{Script, Stdin};
use crate::catalog::{HookAttempt, HookRunning};
use futures_util::FutureExt;
use futures_util::future::{Either, FusedFuture, join, select};
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid};
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long output may trail the script's end. A pipe's last 64 KiB take far less; a daemon that
/// left the group and kept the pipe open must not hold the queue up.
const OUTPUT_TRAIL: Duration = Duration::from_millis(500);
/// How soon a group is asked again whether a member is left (nothing announces that); the pause
/// doubles up to [`GROUP_POLL_MAX`].
const GROUP_POLL: Duration = Duration::from_millis(10);
/// The longest such pause: asking may walk through `/proc`.
const GROUP_POLL_MAX: Duration = Duration::from_millis(200);
/// How long a group may take to vanish after KILL; longer only if the kernel is stuck in a call.
const KILL_TRAIL: Duration = Duration::from_secs(1);
/// As large as a pipe, so that a flood costs one read a pipeful.
const READ_BUFFER: usize = 64 * 1024;

/// What bounds an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// TERM after this long,
    pub(super) time: Duration,
    /// and KILL this long after TERM.
    pub(super) kill_after: Duration,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Exit 0.
    Success,
    /// Anything else of its own doing.
    Failure,
    /// It took longer than it may: a failure, too.
    TimedOut,
    /// The server ended it because it stops.
    Interrupted,
}

/// Where output goes besides the manifest: what was read, and the lines that are due to be logged.
pub(super) type Sink = fn(Printed<'_>);

/// What a script printed.
pub(super) enum Printed<'a> {
    /// All of it, as it comes.
    Bytes(&'a [u8]),
    /// Of a flood only some.
    Line(&'a str),
}

/// To the log, line by line.
pub(super) fn to_log(printed: Printed<'_>) {
    if let Printed::Line(line) = printed {
        tracing::info!("{line}");
    }
}

/// To the terminal that the command was started from.
pub(super) fn to_terminal(printed: Printed<'_>) {
    if let Printed::Bytes(bytes) = printed {
        // A closed standard output is no reason to stop.
        let _ = io::stdout().write_all(bytes).and_then(|()| io::stdout().flush());
    }
}

/// One attempt.
pub(super) struct Run<'a> {
    pub(super) script: &'a Script,
    pub(super) stdin: Stdin,
    pub(super) limits: Limits,
    pub(super) job: &'a Job,
    pub(super) n: u32,
    pub(super) at: Timestamp,
}

/// Runs an attempt to its end; `started` is called with the script's process.
pub(super) async fn run<F: Future<Output = ()>>(
    run: Run<'_>,
    sink: Sink,
    stop: &CancellationToken,
    started: impl FnOnce(HookRunning) -> F,
) -> (HookAttempt, Verdict) {
    let began = Instant::now();
    let (limits, n, at) = (run.limits, run.n, run.at);
    let mut output = Output::new(began.into_std());
    let ended = match run.start() {
        Ok((mut child, group, pipe)) => {
            let mut io = pin!(capture(pipe, &mut output, sink).fuse());
            let id = group.0.as_raw_pid();
            // Writing that down may be slow; the limits hold from the first moment.
            let news = started(HookRunning { n, at, process_group: Some(id), process_born: born(id) });
            let end = attend(&mut child, &group, began, limits, stop);
            let ((), ended) = beside(&mut io, join(news, end)).await;
            group.release();
            if !io.is_terminated() && timeout(OUTPUT_TRAIL, io).await.is_err() {
                tracing::debug!("a process outside the script's group keeps its output open");
            }
            ended
        }
        Err(why) => Ended::NotStarted(why),
    };
    let tail = output.finish(Instant::now().into_std(), &mut |line| sink(Printed::Line(line)));
    let (exit, error, verdict) = ended.judge(limits);
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let interrupted = verdict == Verdict::Interrupted;
    (HookAttempt { n, at, exit, error, interrupted, ms, tail }, verdict)
}

enum Ended {
    NotStarted(String),
    Exit(ExitStatus),
    TimeLimit(Option<ExitStatus>),
    Stopped(Option<ExitStatus>),
    Lost(io::Error),
}

impl Ended {
    /// Exit code, error text, verdict.
    fn judge(self, limits: Limits) -> (Option<i32>, Option<String>, Verdict) {
        match self {
            Self::NotStarted(why) => (None, Some(why), Verdict::Failure),
            Self::Exit(status) if status.success() => (Some(0), None, Verdict::Success),
            Self::Exit(status) => {
                let signal = status.signal().map(|signal| format!("killed by signal {signal}"));
                (status.code(), signal, Verdict::Failure)
            }
            Self::TimeLimit(status) => {
                let why = format!("ended after {:?}, the time limit (hooks.timeout)", limits.time);
                (status.and_then(|status| status.code()), Some(why), Verdict::TimedOut)
            }
            // Finished in the grace it had: no reason to run it again.
            Self::Stopped(Some(status)) if status.success() => (Some(0), None, Verdict::Success),
            Self::Stopped(status) => {
                let why = "ended because the server stops; it runs again after the next start".to_owned();
                (status.and_then(|status| status.code()), Some(why), Verdict::Interrupted)
            }
            Self::Lost(error) => {
                (None, Some(format!("its end could not be awaited: {error}")), Verdict::Failure)
            }
        }
    }
}

impl Run<'_> {
    /// Starts the script; the error says what to do.
    fn start(&self) -> Result<(Child, Group, pipe::Receiver), String> {
        let path = &self.job.manifest;
        let stdin = match self.stdin {
            Stdin::None => Stdio::null(),
            // The file as it is now: what replaces it meanwhile is another one.
            Stdin::Manifest => File::open(path)
                .map_err(|error| format!("the manifest {} can't be read: {error}", path.display()))?
                .into(),
        };
        self.spawn(stdin).map_err(|error| self.script.explain(&error))
    }

    /// No shell, own process group, output and errors in one pipe (so that they keep their order), the
    /// server's environment and working directory.
    fn spawn(&self, stdin: Stdio) -> io::Result<(Child, Group, pipe::Receiver)> {
        let (reader, writer) = io::pipe()?;
        let job = self.job;
        let mut command = Command::new(self.script.path());
        command.arg(job.stream.as_str()).arg(&job.file);
        command.env("ONRECORD_FILE", &job.file).env("ONRECORD_MANIFEST", &job.manifest);
        command.envs(self.variables());
        command.stdin(stdin).stdout(Stdio::from(OwnedFd::from(writer.try_clone()?)));
        command.stderr(Stdio::from(OwnedFd::from(writer))).process_group(0).kill_on_drop(true);
        let child = command.spawn()?;
        // `command` holds the pipe's writing ends: without this, output would never end.
        drop(command);
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok((child, Group(pid), pipe::Receiver::from_owned_fd(reader.into())?))
    }

    /// All of them are always there, so that a script may insist on that (`set -u`).
    fn variables(&self) -> [(&'static str, String); 11] {
        let job = self.job;
        let (width, height) =
            job.size.map_or_else(Default::default, |(width, height)| (width.to_string(), height.to_string()));
        [
            ("ONRECORD_ID", job.id.to_string()),
            ("ONRECORD_STREAM", job.stream.to_string()),
            ("ONRECORD_MIME", job.mime.clone()),
            ("ONRECORD_WIDTH", width),
            ("ONRECORD_HEIGHT", height),
            ("ONRECORD_BYTES", job.bytes.to_string()),
            ("ONRECORD_DURATION_MS", job.duration_ms.to_string()),
            ("ONRECORD_STARTED_AT", format!("{:.3}", job.started_at)),
            ("ONRECORD_ENDED_AT", format!("{:.3}", job.ended_at)),
            ("ONRECORD_END_REASON", job.end_reason.clone()),
            ("ONRECORD_ATTEMPT", self.n.to_string()),
        ]
    }
}

/// Waits for the script's end or brings it about, and leaves no process of its group behind.
async fn attend(
    child: &mut Child,
    group: &Group,
    began: Instant,
    limits: Limits,
    stop: &CancellationToken,
) -> Ended {
    tokio::select! {
        status = child.wait() => {
            group.clear(limits.kill_after).await;
            match status {
                Ok(status) => Ended::Exit(status),
                Err(error) => Ended::Lost(error),
            }
        }
        () = tokio::time::sleep_until(began + limits.time) => {
            Ended::TimeLimit(group.end(child, limits.kill_after).await)
        }
        () = stop.cancelled() => Ended::Stopped(group.end(child, limits.kill_after).await),
    }
}

/// A process group that is ours: its id is the script's process id. Dropped before its end (a second
/// signal ends the server at once) it is killed, so that nothing works on beside the next attempt.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Group {
    /// It has come to its end: the id may be given out again.
    fn release(self) {
        let _ = ManuallyDrop::new(self);
    }

    /// TERM, then KILL after `kill_after`; returns once the script and its group are gone.
    async fn end(&self, child: &mut Child, kill_after: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + kill_after;
        self.signal(Signal::TERM);
        let status = match timeout_at(deadline, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                child.wait().await
            }
        };
        // The script itself may have gone at once while its children still clean up.
        self.clear(deadline.saturating_duration_since(Instant::now())).await;
        status.ok()
    }

    /// Ends what outlived the script. Only after the script was waited for. The group's id can't
    /// have been given out again: process ids are given out in turn and wrap around late.
    async fn clear(&self, kill_after: Duration) {
        if self.is_empty() {
            return;
        }
        self.signal(Signal::TERM);
        if self.empty_within(kill_after).await {
            return;
        }
        self.signal(Signal::KILL);
        if !self.empty_within(KILL_TRAIL).await {
            tracing::warn!(group = %self.0, "processes of the hook can't be ended");
        }
    }

    async fn empty_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut pause = GROUP_POLL;
        while !self.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(GROUP_POLL_MAX);
        }
        true
    }

    fn is_empty(&self) -> bool {
        // As process 1 of a container the server inherits what the script leaves behind.
        while let Ok(Some(_)) = waitpgid(self.0, WaitOptions::NOHANG) {}
        test_kill_process_group(self.0) == Err(Errno::SRCH) || !self.has_running()
    }

    /// Whether a member is more than a zombie: a container's process 1 that is not us may never
    /// wait for what it inherits, and its zombies stay in their group. Without `/proc`, yes.
    fn has_running(&self) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else { return true };
        let group = self.0.to_string();
        processes.flatten().any(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // `pid (name) state parent group …`; the name may hold anything, `)` too.
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let dead = matches!(fields.next(), Some("Z" | "X"));
            !dead && fields.nth(1) == Some(&group)
        })
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(group = %self.0, %error, "the hook's group can't be signalled"),
        }
    }
}

async fn capture(mut pipe: pipe::Receiver, output: &mut Output, sink: Sink) {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(read) => {
                sink(Printed::Bytes(&buffer[..read]));
                output
                    .take(&buffer[..read], Instant::now().into_std(), &mut |line| sink(Printed::Line(line)));
            }
            Err(error) => {
                tracing::warn!(%error, "the hook's output can't be read");
                return;
            }
        }
    }
}

/// Runs `work` to its end with `io` going on beside it.
async fn beside<T>(io: &mut (impl FusedFuture<Output = ()> + Unpin), work: impl Future<Output = T>) -> T {
    match select(pin!(work), io).await {
        Either::Left((done, _)) => done,
        Either::Right(((), work)) => work.await,
    }
}
