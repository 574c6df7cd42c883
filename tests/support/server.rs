//! The real binary, on free ports, in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the server may take to come up.
const START: Duration = Duration::from_secs(60);

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`, or with TLS `https://localhost:PORT`; no slash at the end.
    pub base: String,
    folder: Arc<TempDir>,
    environment: Environment,
    output: Arc<Mutex<String>>,
}

/// Variables on top of the test's own.
pub type Environment = Vec<(String, String)>;

impl Server {
    /// Starts it with these `section.key=value` on top of free ports on loopback and a `records` folder
    /// in a new folder, which is its working directory.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), Environment::new(), settings)
    }

    /// Starts another build of it.
    pub fn start_other(program: &Path, settings: &[&str]) -> Self {
        let (folder, environment) = (Arc::new(tempfile::tempdir().unwrap()), Environment::new());
        Self::start_program(program, folder, environment, settings, Stdio::piped())
    }

    /// Kills it, as a crash does, and starts it again in the same folder.
    pub fn killed_and_started(mut self, settings: &[&str]) -> Self {
        self.end();
        Self::start_in(self.folder.clone(), self.environment.clone(), settings)
    }

    /// Starts it in a folder that others may have filled.
    pub fn start_in(folder: Arc<TempDir>, environment: Environment, settings: &[&str]) -> Self {
        Self::start_with(folder, environment, settings, Stdio::piped())
    }

    /// Starts it with a log that goes there.
    pub fn start_logging(log: impl Into<Stdio>, settings: &[&str]) -> Self {
        Self::start_with(Arc::new(tempfile::tempdir().unwrap()), Environment::new(), settings, log.into())
    }

    fn start_with(folder: Arc<TempDir>, environment: Environment, settings: &[&str], log: Stdio) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_onrecord"));
        Self::start_program(program, folder, environment, settings, log)
    }

    fn start_program(
        program: &Path,
        folder: Arc<TempDir>,
        environment: Environment,
        settings: &[&str],
        log: Stdio,
    ) -> Self {
        let records = format!("record.dir={}", folder.path().join("records").display());
        let own = ["server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0", records.as_str()];
        let mut command = Command::new(program);
        command.arg("serve").current_dir(folder.path());
        for setting in own.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        command.envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");

        let output = Arc::new(Mutex::new(String::new()));
        let (found, address) = channel();
        collect(child.stdout.take().unwrap(), output.clone(), Some(found));
        if let Some(log) = child.stderr.take() {
            collect(log, output.clone(), None);
        }
        let Ok(base) = address.recv_timeout(START) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no address within {START:?}; it said:\n{}", output.lock().unwrap());
        };
        Self { child, base, folder, environment, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The same for a WebSocket.
    pub fn ws_url(&self, path: &str) -> String {
        self.url(path).replacen("http", "ws", 1)
    }

    /// Its working directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn records(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// What it has written to both outputs.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// SIGTERM, and its exit status, if it ends before the deadline.
    pub fn stop(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.signal("TERM");
        let end = Instant::now() + deadline;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() > end {
                return status;
            }
            // A process can't be waited for with a deadline otherwise.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its exit status, if it ends by itself before the deadline.
    pub async fn ended(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() > end {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Files and sockets it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Its memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// The most it has had so far.
    pub fn peak_memory(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    fn memory_of(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    /// The CPU time it has used: all its threads, with what the kernel did for them.
    pub fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        let nanos = threads.filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Sends it a signal by name, without `SIG`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.output());
        }
    }
}

/// Keeps what the server writes, so that its pipes never fill; tells the first address it names.
fn collect(from: impl Read + Send + 'static, output: Arc<Mutex<String>>, mut found: Option<Sender<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Some(base) = address_in(&line)
                && let Some(found) = found.take()
            {
                let _ = found.send(base);
            }
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

/// `http://HOST:PORT` in a line of the banner, or `https://HOST:PORT`.
fn address_in(line: &str) -> Option<String> {
    let url = &line[line.find("http://").or_else(|| line.find("https://"))?..];
    let host = url.find("://")? + 3;
    let end = url[host..].find(|c: char| c == '/' || c.is_whitespace()).map(|at| at + host);
    Some(url[..end.unwrap_or(url.len())].to_owned())
}
