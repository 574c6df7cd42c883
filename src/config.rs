//! Composes each module's own `Config`; reports every error at once.
//!
//! Layers, each stronger than the one before: the built-in defaults, `config/default.toml`,
//! `config/local.toml` (or in place of these two the file of `--config`), `ONRECORD__SECTION__KEY`,
//! `--set section.key=value`. `layers` reads and merges them, `schema` knows which keys there are
//! (from the modules' own types), `typed` gives each value its type, `validate` checks what a type
//! can't say.

mod coerce;
mod layers;
mod log;
mod log_writer;
mod schema;
mod validate;

pub use log::{Format, Log};
pub use log_writer::Logging;

use crate::hook::Script;
use crate::publish;
use crate::webrtc;
use crate::{auth, hook, http, ingest, live, record};
use jiff::Timestamp;
use layers::Layers;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP and WebSocket.
    pub server: http::Config,
    /// Which callers are served.
    pub auth: auth::Config,
    /// WebRTC ingest.
    pub webrtc: webrtc::Config,
    /// MediaRecorder's output.
    pub chunks: ingest::chunks::Config,
    /// Recordings. `dir` is absolute once loaded.
    pub record: record::Config,
    /// JPEG streams.
    pub mjpeg: ingest::mjpeg::Config,
    /// Hooks.
    pub hooks: hook::Config,
    /// Which recordings go again.
    pub retention: record::Retention,
    /// Live view.
    pub live: live::Config,
    /// What the server takes on.
    pub limits: publish::Limits,
    /// The log.
    pub log: Log,
    /// `hooks.on_record` as an absolute path; `None` if no hook runs.
    #[serde(skip)]
    pub hook_script: Option<PathBuf>,
    /// What the log should say at the start: usable, but perhaps not meant so.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Where configuration comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `--config`: read in place of `default.toml` and `local.toml`; has to exist.
    pub file: Option<PathBuf>,
    /// The folder of `default.toml` and `local.toml`, neither of which has to exist.
    pub folder: PathBuf,
    /// `--set`, each `section.key=value`.
    pub set: Vec<String>,
    /// Environment variables; `None` takes the process's own.
    pub environment: Option<HashMap<String, String>>,
}

impl Sources {
    /// What the command line gave, with `./config` and the process's environment.
    pub fn new(file: Option<PathBuf>, set: Vec<String>) -> Self {
        Self { file, folder: "config".into(), set, environment: None }
    }
}

/// One setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, or what stood in its place.
    pub key: String,
    /// Where it was set: in a file, a variable, by `--set`; `None` for the default.
    pub origin: Option<String>,
    /// What was expected, what was found, what to do.
    pub expected: String,
}

impl Problem {
    fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { key: key.into(), origin: None, expected: expected.into() }
    }

    fn at(self, origin: Option<&str>) -> Self {
        Self { origin: origin.map(str::to_owned), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.expected),
            None => write!(f, "{}: {}", self.key, self.expected),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration can't be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads all layers; either everything is right, or every problem is named.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let (layers, mut problems) = Layers::read(sources);
        let typed = coerce::check(&layers);
        problems.extend(typed.problems);
        let mut config = typed.config;
        config.auth.begin_at(&layers.folder);
        // A key with a problem has its default here: a second complaint about that would mislead.
        let known: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
        // Nor can it be said which callers are served where those settings can't be read.
        let blurred = known.iter().any(|key| key.starts_with("auth."));
        for problem in validate::validate(&config).into_iter().chain(config.resolve_hook(&layers, sources)) {
            let misleading = known.contains(&problem.key) || blurred && problem.key == "auth.mode";
            if !misleading {
                let origin = layers.origin(&problem.key);
                problems.push(problem.at(origin.as_deref()));
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        for file in [&mut config.server.tls.cert, &mut config.server.tls.key] {
            if !file.as_os_str().is_empty() {
                *file = under(&layers.folder, file);
            }
        }
        let absolute = std::path::absolute(&config.record.dir).map_err(|error| {
            Problems(vec![Problem::new("record.dir", format!("expected a folder, but: {error}"))])
        });
        config.record.dir = absolute?;
        config.record.reorder_window = config.webrtc.reorder_window;
        config.warnings.extend(config.auth.warnings(Timestamp::now()));
        Ok(config)
    }

    /// Finds the hook. One that was asked for has to be there; the shipped one may be missing
    /// (a binary on its own), which is worth a warning.
    fn resolve_hook(&mut self, layers: &Layers, sources: &Sources) -> Option<Problem> {
        let wanted = &self.hooks.on_record;
        if wanted.is_empty() {
            return None;
        }
        let by_default = *wanted == hook::Config::default().on_record
            && layers.origin("hooks.on_record").is_none_or(|origin| layers.is_default(&origin));
        let folder = if by_default { sources.folder.clone() } else { layers.folder.clone() };
        let path = under(&folder, Path::new(wanted));
        let missing = !path.exists();
        if missing && !by_default {
            let shown = path.display();
            return Some(Problem::new(
                "hooks.on_record",
                format!("expected a program, but {shown} does not exist: put it there, or set it to \"\""),
            ));
        }
        match Script::new(path.clone()).check() {
            Err(reason) if missing => self.warnings.push(format!("no hook will run: {reason}")),
            checked => {
                self.warnings.extend(checked.err());
                self.hook_script = Some(path);
            }
        }
        None
    }

    /// Whether only this machine can reach the server, as far as the configuration tells.
    pub fn is_local(&self) -> bool {
        self.server.bind.ip().is_loopback()
            && self.server.public_url.is_empty()
            && self.webrtc.advertise.is_empty()
    }

    /// What the start says on standard output; `bound` is the address that was bound.
    pub fn banner(&self, bound: SocketAddr) -> String {
        let (port, base) = (bound.port(), self.server.base());
        let scheme = if self.server.tls.is_on() { "https" } else { "http" };
        let public = self.server.public_url.trim_end_matches('/');
        let open = match public.strip_suffix(base).unwrap_or(public) {
            // Browsers give the camera to localhost, but not to a plain-HTTP address.
            "" if bound.ip().is_loopback() || bound.ip().is_unspecified() => {
                format!("{scheme}://localhost:{port}{base}/publish")
            }
            "" => format!("{scheme}://{bound}{base}/publish"),
            public => format!("{public}{base}/publish"),
        };
        // By plain HTTP a browser elsewhere would not give the camera.
        let on_lan = scheme == "https" && public.is_empty() && bound.ip().is_unspecified();
        let lan = on_lan.then(lan_address).flatten().map(|ip| {
            let address = SocketAddr::new(ip, port);
            format!("  on the LAN  {scheme}://{address}{base}/publish\n")
        });
        let hook = self.hook_script.as_ref().map(|path| path.display().to_string());
        format!(
            "onrecord {}\n  open        {open}\n{}  recordings  {}\n  hook        {}\n",
            env!("CARGO_PKG_VERSION"),
            lan.unwrap_or_default(),
            self.record.dir.display(),
            hook.as_deref().unwrap_or("none (see hooks.on_record)"),
        )
    }
}

/// This machine's first address that others may reach.
fn lan_address() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses = interfaces.iter().map(if_addrs::Interface::ip);
    addresses.find(|ip| matches!(ip, IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local()))
}

/// `path`, beginning at `folder` if it is relative; absolute and without `..` where possible.
fn under(folder: &Path, path: &Path) -> PathBuf {
    use std::path::Component;
    // The system resolves a folder that exists (it may be a link); one that doesn't is only a name.
    let folder = std::fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
    let folder = folder.unwrap_or_default();
    let mut resolved = PathBuf::new();
    for component in folder.join(path).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

#[cfg(test)]
mod tests;
