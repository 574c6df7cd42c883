//! `onrecord check`: what would keep the server from working, and what to do about it.

use crate::config::Config;
use crate::hook::Script;
use crate::http::listen::tls::Tls;
use crate::record;
use crate::webrtc::check::{self, Answer, Reached};
use jiff::Timestamp;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::SystemTime;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// One line for each thing to mend, beginning with its key.
    pub problems: Vec<String>,
    /// What is good to know: what publishers are told, which servers answer.
    pub notes: Vec<String>,
}

/// Looks at what the configuration alone can't tell, and tries what can be tried from here.
pub fn check(config: &Config) -> Report {
    let mut report = Report::default();
    if let Some(Err(problem)) = config.hook_script.clone().map(|script| Script::new(script).check()) {
        report.problems.push(problem);
    }
    report.problems.extend(records(&config.record.dir, config.record.min_free));
    report.problems.extend(record::holder(&config.record.dir).map(|held| held.to_string()));
    tls(config, &mut report);
    let redirect = Some(config.server.tls.redirect_bind.clone()).filter(|address| !address.is_empty());
    let listeners =
        [("server.bind", Some(config.server.bind.to_string())), ("server.tls.redirect_bind", redirect)];
    for (key, address) in listeners.into_iter().filter_map(|(key, address)| Some((key, address?))) {
        if let Err(error) = TcpListener::bind(&address) {
            report.problems.push(format!(
                "{key}: can't listen on {address}: {error}; stop what uses it, or choose another port"
            ));
        }
    }
    let advertised = media(config, &mut report);
    ice_servers(config, &advertised, &mut report);
    report
}

/// The certificate's files. One of our own is made at the start, and needs no operator.
fn tls(config: &Config, report: &mut Report) {
    if config.server.tls.self_signed {
        return;
    }
    match Tls::open(&config.server, &config.record.dir) {
        Err(problem) => report.problems.push(problem),
        Ok(Some(tls)) if tls.ends() < Timestamp::now() => report.problems.push(format!(
            "server.tls.cert: it has expired on {}: put a new one there, the server takes it up by itself",
            tls.ends()
        )),
        Ok(Some(tls)) => report.notes.push(format!("tls: the certificate is good until {}", tls.ends())),
        Ok(None) => {}
    }
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

/// The media port, and whether the addresses publishers would be told lead to it.
fn media(config: &Config, report: &mut Report) -> Vec<SocketAddr> {
    let reached = match check::reach(&config.webrtc, config.is_local()) {
        Ok(reached) => reached,
        Err(error) => {
            report.problems.push(format!(
                "webrtc.udp_bind: can't open {}: {error}; stop what uses it, or choose another port",
                config.webrtc.udp_bind
            ));
            return Vec::new();
        }
    };
    let advertised: Vec<_> = reached.iter().map(|reached| reached.address).collect();
    if advertised.iter().all(|address| address.ip().is_loopback()) && !config.is_local() {
        report.problems.push(
            "webrtc.advertise: publishers would only be told loopback addresses; name the server's address"
                .to_owned(),
        );
    }
    for Reached { address, udp, tcp } in reached {
        for (protocol, arrives) in [("UDP", Some(udp)), ("TCP", tcp)] {
            report.notes.extend(arrives.map(|arrives| match arrives {
                true => format!("media: publishers are told {address} ({protocol}); it leads here"),
                false => format!(
                    "media: publishers are told {address} ({protocol}), which can't be tried from here: see that \
                     {protocol} port {} is let through to this machine",
                    address.port()
                ),
            }));
        }
    }
    advertised
}

/// Whether the STUN and TURN servers answer, and whether the world sees this machine where we say it is.
fn ice_servers(config: &Config, advertised: &[SocketAddr], report: &mut Report) {
    for (url, answer) in check::ask_all(&config.webrtc.ice_servers_at(SystemTime::now())) {
        let note = match answer {
            Err(problem) => {
                report.problems.push(format!("webrtc.ice_servers: {url}: {problem}"));
                continue;
            }
            Ok(Answer::Reflexive(seen)) if is_advertised(advertised, seen.ip()) => {
                format!("{url} answers and sees this machine at {}", seen.ip())
            }
            Ok(Answer::Reflexive(seen)) => format!(
                "{url} answers and sees this machine at {ip}, which publishers are not told: if they come from \
                 outside, set webrtc.advertise = [\"{ip}\"] and let UDP port {port} through",
                ip = seen.ip(),
                port = advertised.first().map_or(0, SocketAddr::port),
            ),
            Ok(Answer::Relayed(relay)) => format!("{url} takes the credential and relays at {relay}"),
            Ok(Answer::Connected) => format!("{url} takes connections; TLS and credential are not tried"),
        };
        report.notes.push(note);
    }
}

fn is_advertised(advertised: &[SocketAddr], ip: IpAddr) -> bool {
    advertised.iter().any(|address| address.ip() == ip)
}
