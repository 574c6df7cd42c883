//! `onrecord check`: what would keep the server from working, and what to do about it.

use crate::config::Config;
use crate::hook::Script;
use crate::http::tls::Tls;
use crate::ingest::webrtc;
use crate::record;
use std::io;
use std::net::TcpListener;
use std::path::Path;

/// Looks at what the configuration alone can't tell: one line for each problem.
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(Err(problem)) = config.hook_script.clone().map(|script| Script::new(script).check()) {
        problems.push(problem);
    }
    problems.extend(records(&config.record.dir, config.record.min_free));
    problems.extend(record::holder(&config.record.dir).map(|held| held.to_string()));
    if !config.server.tls.self_signed {
        problems.extend(Tls::open(&config.server, &config.record.dir).err());
    }
    if let Err(error) = TcpListener::bind(config.server.bind) {
        problems.push(format!(
            "server.bind: can't listen on {}: {error}; stop what uses it, or choose another port",
            config.server.bind
        ));
    }
    match webrtc::candidates(&config.webrtc, config.is_local()) {
        Err(error) => problems.push(format!(
            "webrtc.udp_bind: can't open UDP {}: {error}; stop what uses it, or choose another port",
            config.webrtc.udp_bind
        )),
        Ok(told) if told.iter().all(|address| address.ip().is_loopback()) && !config.is_local() => problems
            .push(
            "webrtc.advertise: publishers would only be told loopback addresses; name the server's address"
                .to_owned(),
        ),
        Ok(_) => {}
    }
    problems
}

fn records(dir: &Path, min_free: u64) -> Option<String> {
    let shown = dir.display();
    let try_it = || -> io::Result<u64> {
        std::fs::create_dir_all(dir)?;
        let probe = dir.join(".onrecord-check");
        std::fs::write(&probe, b"x")?;
        std::fs::remove_file(&probe)?;
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    };
    match try_it() {
        Err(error) => {
            Some(format!("record.dir: can't write to {shown}: {error}; give the server's user the folder"))
        }
        Ok(free) if free < min_free => Some(format!(
            "record.dir: {} MiB are free in {shown}, record.min_free wants {} MiB: free some space",
            free >> 20,
            min_free >> 20
        )),
        Ok(_) => None,
    }
}
