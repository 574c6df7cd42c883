//! A sound card that nobody hears: without any, Firefox plays no sound that WebAudio could listen to, and Chromium's
//! is up to 40 ms late by a clock of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Until it is there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running sound server with a null sink; dropping it ends it.
pub struct SoundCard {
    server: Child,
    folder: TempDir,
}

impl SoundCard {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let mut command = Command::new("pulseaudio");
        command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]);
        command.args(["-L", "module-null-sink rate=48000", "-L"]);
        command.arg(format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display()));
        for variable in ["HOME", "XDG_RUNTIME_DIR"] {
            command.env(variable, folder.path());
        }
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let card = Self { server: server.expect("pulseaudio is installed"), folder };
        let began = Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < PATIENCE, "no sound server within {PATIENCE:?}");
            // Nothing tells that a socket is there but the look itself.
            std::thread::sleep(Duration::from_millis(20));
        }
        card
    }

    /// What a program's environment needs to play on it.
    pub fn environment(&self) -> [(&'static str, String); 1] {
        [("PULSE_SERVER", format!("unix:{}", self.folder.path().join("socket").display()))]
    }
}

impl Drop for SoundCard {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
