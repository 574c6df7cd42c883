//! Makes single calls of a running server on its files fail, as a disk does: a library that is loaded into it.

use super::server::Environment;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// `EIO`.
pub const EIO: i32 = 5;

/// The faults of one server.
pub struct Faults {
    folder: TempDir,
}

impl Faults {
    /// Builds the library.
    pub fn build() -> Self {
        let faults = Self { folder: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faults.c");
        let mut cc = Command::new("cc");
        let built =
            cc.args(["-shared", "-fPIC", "-o"]).arg(faults.library()).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success(), "the library can't be built");
        faults
    }

    /// For the server.
    pub fn environment(&self) -> Environment {
        let pair = |name: &str, path: PathBuf| (name.to_owned(), path.to_str().unwrap().to_owned());
        vec![pair("LD_PRELOAD", self.library()), pair("FAULTS", self.order_file())]
    }

    /// From now on calls of this name on paths that end so (`-`: on folders) fail with this error, so many
    /// times; with -1 until [`Faults::end`]. `write`, `sync`, `rename`, `open`, `create`, `read`, `unlink`.
    pub fn order(&self, call: &str, suffix: &str, error: i32, times: i32) {
        let aside = self.folder.path().join("new");
        std::fs::write(&aside, format!("{call} {suffix} {error} {times}\n")).unwrap();
        std::fs::rename(aside, self.order_file()).unwrap();
    }

    /// Whether all that were ordered have struck.
    pub fn are_over(&self) -> bool {
        !self.order_file().exists()
    }

    /// The disk works again.
    pub fn end(&self) {
        std::fs::remove_file(self.order_file()).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("faults.so")
    }

    fn order_file(&self) -> PathBuf {
        self.folder.path().join("order")
    }
}
