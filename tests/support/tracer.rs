//! Follows a running server call by call and ends it right before the one that a test chose, as a crash
//! at the worst moment does.
//!
//! All threads of the server are seized (`ptrace(2)`), and each stops where it enters and leaves the
//! kernel. At an entry the tracer looks whether the call changes something in the folder it watches, or
//! starts a process (the hook); those are the steps. What the server starts is not followed.

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Instant;

/// Where a call says what it is about: in the argument of this index.
#[derive(Clone, Copy)]
enum About {
    Fd(usize),
    Path(usize),
    /// As `Path`, if the flags after it say that a file may be created.
    Created(usize),
    /// Flags that tell a process from a thread.
    Flags(usize),
    /// Such flags are the first field of what it points at.
    FlagsAt(usize),
}

/// The calls that are steps.
const CALLS: &[(libc::c_long, &str, About)] = &[
    (libc::SYS_write, "write", About::Fd(0)),
    (libc::SYS_writev, "write", About::Fd(0)),
    (libc::SYS_pwrite64, "write", About::Fd(0)),
    (libc::SYS_pwritev, "write", About::Fd(0)),
    (libc::SYS_fsync, "sync", About::Fd(0)),
    (libc::SYS_fdatasync, "sync", About::Fd(0)),
    (libc::SYS_ftruncate, "truncate", About::Fd(0)),
    (libc::SYS_fallocate, "allocate", About::Fd(0)),
    (libc::SYS_openat, "create", About::Created(1)),
    (libc::SYS_renameat, "rename", About::Path(1)),
    (libc::SYS_renameat2, "rename", About::Path(1)),
    (libc::SYS_unlinkat, "unlink", About::Path(1)),
    (libc::SYS_mkdirat, "create", About::Path(1)),
    (libc::SYS_clone, "start", About::Flags(0)),
    (libc::SYS_clone3, "start", About::FlagsAt(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "create", About::Created(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", About::Path(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", About::Path(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "create", About::Path(0)),
];

/// One step of the server, as it was about to be made.
#[derive(Clone, Debug)]
pub struct Step {
    /// `write`, `sync`, `truncate`, `allocate`, `create`, `rename`, `unlink`, or `start` for a process.
    pub call: &'static str,
    /// What it is about; none for a process.
    pub path: Option<PathBuf>,
}

impl Step {
    /// Whether the disk still shows that it was not made; of a call that leaves no trace there, yes.
    pub fn is_undone(&self) -> bool {
        match (self.call, &self.path) {
            ("create", Some(path)) => !path.exists(),
            ("rename" | "unlink", Some(path)) => path.exists(),
            _ => true,
        }
    }
}

/// What a server did until it died.
#[derive(Debug, Default)]
pub struct Trace {
    /// Its steps; the last one was not made if the tracer ended it.
    pub steps: Vec<Step>,
    /// When the tracer ended it.
    pub killed_at: Option<Instant>,
}

/// A server being followed until its death.
pub struct Tracer {
    process: Pid,
    thread: JoinHandle<Trace>,
}

impl Tracer {
    /// Follows a process and what it does in `folder`; ends it right before the first step of which this
    /// is true. It is asked about every step, in their order.
    pub fn attach(
        process: u32,
        folder: &Path,
        kill_before: impl FnMut(&Step) -> bool + Send + 'static,
    ) -> Self {
        let process = Pid::from_raw(process.cast_signed());
        let folder = folder.to_owned();
        let (told, attached) = channel();
        // Whoever seizes a thread is the only one who may command it: all of this is one thread's work.
        let thread = std::thread::spawn(move || {
            let seized = seize_all(process);
            let failed = seized.is_err();
            told.send(seized).unwrap();
            if failed { Trace::default() } else { follow(process, &folder, kill_before) }
        });
        let attached = attached.recv().unwrap();
        attached.unwrap_or_else(|error| panic!("this test must be allowed to trace the server: {error}"));
        Self { process, thread }
    }

    /// Whether the server has died.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the server if it has not died, and waits for that: it may be waited for as a child only
    /// when nobody follows it any more.
    pub fn end(self) -> Trace {
        let _ = kill(self.process, Signal::SIGKILL);
        self.thread.join().unwrap()
    }
}

/// Seizes every thread there is; those to come are seized by the kernel as they begin.
fn seize_all(process: Pid) -> nix::Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(process, options)?;
    ptrace::interrupt(process)?;
    let mut seen = HashSet::from([process]);
    loop {
        let mut news = threads(process).filter(|thread| seen.insert(*thread)).peekable();
        if news.peek().is_none() {
            return Ok(());
        }
        for thread in news {
            // One that has ended meanwhile, or that the kernel has seized already.
            let Ok(()) = ptrace::seize(thread, options) else { continue };
            let _ = ptrace::interrupt(thread);
        }
    }
}

fn threads(process: Pid) -> impl Iterator<Item = Pid> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Lets all threads run from stop to stop, until none is left.
fn follow(process: Pid, folder: &Path, mut kill_before: impl FnMut(&Step) -> bool) -> Trace {
    let mut trace = Trace::default();
    loop {
        // Only this thread's: others of the test run processes of their own.
        let (thread, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::PtraceSyscall(thread)) if trace.killed_at.is_some() => (thread, None),
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                if let Some(step) = step(process, thread, folder) {
                    if kill_before(&step) {
                        trace.killed_at = Some(Instant::now());
                        // The kernel doesn't begin a call whose thread has been killed at its entry.
                        let _ = kill(process, Signal::SIGKILL);
                    }
                    trace.steps.push(step);
                }
                (thread, None)
            }
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return trace,
        };
        // One that was killed meanwhile takes no command.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// The step that a thread is about to make, if it stands at the entry of a call that is one.
fn step(process: Pid, thread: Pid, folder: &Path) -> Option<Step> {
    if ptrace::syscall_info(thread).ok()?.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    let (number, arguments) = call(thread)?;
    let (_, call, about) = CALLS.iter().find(|(step, ..)| *step == number)?;
    let path = match *about {
        About::Fd(at) => fs::read_link(format!("/proc/{process}/fd/{}", arguments[at])).ok()?,
        About::Path(at) => text(process, arguments[at])?,
        About::Created(at) => {
            (arguments[at + 1] as i32 & libc::O_CREAT != 0).then(|| text(process, arguments[at]))??
        }
        About::Flags(at) => return starts(arguments[at]).then_some(Step { call, path: None }),
        About::FlagsAt(at) => {
            let mut flags = [0; 8];
            memory(process)?.read_exact_at(&mut flags, arguments[at]).ok()?;
            return starts(u64::from_ne_bytes(flags)).then_some(Step { call, path: None });
        }
    };
    path.starts_with(folder).then_some(Step { call, path: Some(path) })
}

fn starts(flags: u64) -> bool {
    flags & libc::CLONE_THREAD as u64 == 0
}

/// Number and arguments of the call that a thread enters.
#[cfg(target_arch = "x86_64")]
fn call(thread: Pid) -> Option<(libc::c_long, [u64; 4])> {
    let registers = ptrace::getregs(thread).ok()?;
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    Some((registers.orig_rax.cast_signed(), arguments))
}

/// Number and arguments of the call that a thread enters.
#[cfg(target_arch = "aarch64")]
fn call(thread: Pid) -> Option<(libc::c_long, [u64; 4])> {
    let registers = ptrace::getregs(thread).ok()?.regs;
    Some((registers[8].cast_signed(), [registers[0], registers[1], registers[2], registers[3]]))
}

fn memory(process: Pid) -> Option<File> {
    File::open(format!("/proc/{process}/mem")).ok()
}

/// The path that a call points at.
fn text(process: Pid, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    // Fewer where the memory behind it ends.
    let read = memory(process)?.read_at(&mut bytes, address).ok()?;
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    Some(PathBuf::from(OsStr::from_bytes(&bytes[..end])))
}
