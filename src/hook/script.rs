//! The operator's program: where it is, and what keeps it from running.

use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Linux reads no more than this of a `#!` line.
const SHEBANG_MAX: u64 = 256;

/// The program that runs for every recording: an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script(PathBuf);

impl Script {
    /// A program by its absolute path. It may be missing: attempts then fail and are retried, so
    /// that a script put back in time loses nothing.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What would keep the script from starting, and what to do about it.
    pub fn check(&self) -> Result<(), String> {
        let shown = self.0.display();
        let meta = match std::fs::metadata(&self.0) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!("the hook {shown} does not exist: put it there or set hooks.on_record"));
            }
            Err(error) => return Err(format!("the hook {shown} cannot be reached: {error}")),
        };
        if !meta.is_file() {
            return Err(format!("the hook {shown} is not a file: set hooks.on_record to a program"));
        }
        if access(&self.0, Access::EXEC_OK).is_err() {
            return Err(format!("the hook {shown} is not executable: run chmod +x on it"));
        }
        self.check_interpreter()
    }

    /// A text without a usable first line would only run through a shell, which would guess.
    fn check_interpreter(&self) -> Result<(), String> {
        let mut head = Vec::new();
        // A binary may be executable without being readable; then there is nothing to check.
        let Ok(file) = File::open(&self.0) else { return Ok(()) };
        if file.take(SHEBANG_MAX).read_to_end(&mut head).is_err() {
            return Ok(());
        }
        let shown = self.0.display();
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Some(line) = line.strip_prefix(b"#!") else {
            let binary = head.iter().any(|byte| *byte < b'\t');
            return if binary {
                Ok(())
            } else {
                Err(format!("the hook {shown} names no interpreter: begin it with a line such as #!/bin/sh"))
            };
        };
        if line.ends_with(b"\r") {
            return Err(format!("the hook {shown} has Windows line ends: save it with Unix ones"));
        }
        let line = String::from_utf8_lossy(line);
        match line.split_whitespace().next() {
            Some(interpreter) if Path::new(interpreter).exists() => Ok(()),
            Some(interpreter) => {
                Err(format!("the hook {shown} wants {interpreter}, which does not exist: install it"))
            }
            None => Err(format!("the hook {shown} names no interpreter after #!")),
        }
    }

    /// Why starting it failed, in words that say what to do.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let shown = self.0.display();
        if error.kind() == ErrorKind::ExecutableFileBusy {
            return format!(
                "the hook {shown} is open for writing: replace it by renaming a new file over it"
            );
        }
        if let Err(reason) = self.check() {
            return reason;
        }
        match Errno::from_io_error(error) {
            Some(Errno::NOEXEC) => format!("the hook {shown} is no program of this machine: {error}"),
            Some(Errno::ACCESS) => {
                format!("the hook {shown} may not be run (a file system mounted noexec?): {error}")
            }
            _ => format!("the hook {shown} cannot be started: {error}"),
        }
    }
}
