//! What a type can't say: ranges, and settings that have to fit each other.

use super::{Config, Problem};
use crate::auth::Mode;
use crate::http::gate::forwarded;
use crate::webrtc::IceServer;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use url::{Host, Url};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86400);

/// Everything that can't work, whatever its type.
pub(super) fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Problems::default();
    server(config, &mut problems);
    auth(config, &mut problems);
    webrtc(config, &mut problems);
    chunks(config, &mut problems);
    record(config, &mut problems);
    hooks(config, &mut problems);
    problems.off_or("retention.max_age", config.retention.max_age, MINUTE..=36500 * DAY);
    for rule in &config.retention.streams {
        problems.off_or("retention.streams", rule.max_age, MINUTE..=36500 * DAY);
    }
    problems.number("mjpeg.max_frame", config.mjpeg.max_frame, 1 << 10..=8 << 20);
    problems.duration("mjpeg.idle_timeout", config.mjpeg.idle_timeout, 100 * MS..=HOUR);
    limits(config, &mut problems);
    problems.number("live.cache", config.live.cache, 64 << 10..=1 << 30);
    problems.add("log.level", config.log.filter().map(drop));
    problems.0
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: &str, checked: Result<(), String>) {
        self.0.extend(checked.err().map(|expected| Problem::new(key, expected)));
    }

    fn duration(&mut self, key: &str, found: Duration, range: RangeInclusive<Duration>) {
        if !range.contains(&found) {
            let (from, to) = (range.start(), range.end());
            self.add(
                key,
                Err(format!("expected {} to {}, found {}", plain(*from), plain(*to), plain(found))),
            );
        }
    }

    /// Zero, which means off, or something in the range.
    fn off_or(&mut self, key: &str, found: Duration, range: RangeInclusive<Duration>) {
        if !found.is_zero() && !range.contains(&found) {
            let (from, to) = (range.start(), range.end());
            self.add(
                key,
                Err(format!("expected \"0\" or {} to {}, found {}", plain(*from), plain(*to), plain(found))),
            );
        }
    }

    fn number(&mut self, key: &str, found: u64, range: RangeInclusive<u64>) {
        if !range.contains(&found) {
            self.add(key, Err(format!("expected {} to {}, found {found}", range.start(), range.end())));
        }
    }
}

/// As people write it: `7d` rather than `604800s`.
fn plain(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_nanos()) {
        (0, 0) => "0".to_owned(),
        (_, 0) if seconds.is_multiple_of(86400) => format!("{}d", seconds / 86400),
        (_, 0) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ => format!("{duration:?}"),
    }
}

fn server(config: &Config, problems: &mut Problems) {
    let server = &config.server;
    if !server.bind.ip().is_loopback() && config.auth.mode == Mode::Off && !config.auth.asks() {
        problems.add(
            "auth.mode",
            Err(format!(
                "expected who is served, because server.bind = \"{}\" can be reached from other machines: \
                 bind \"127.0.0.1:{}\" to serve this machine only, or run `onrecord token new --name me \
                 --admin` and put what it prints into config/local.toml to serve who has that token, or \
                 write auth.mode = \"open\" to let everybody publish, watch and delete",
                server.bind,
                server.bind.port(),
            )),
        );
    }
    if !server.public_url.is_empty() {
        problems.add("server.public_url", public_url(&server.public_url, server.base()));
    }
    problems.add("server.base_path", base_path(&server.base_path));
    for entry in server.trusted_proxies.iter().filter(|entry| forwarded::network(entry).is_none()) {
        let expected = "expected addresses and networks, such as \"127.0.0.1\" and \"10.0.0.0/8\"";
        problems.add("server.trusted_proxies", Err(format!("{expected}, found {entry:?}")));
    }
    tls(config, problems);
    for entry in &server.cors_origins {
        problems.add("server.cors_origins", origin(entry));
    }
    for entry in &server.frame_ancestors {
        problems.add("server.frame_ancestors", origin(entry));
    }
    problems.duration("server.shutdown_grace", server.shutdown_grace, Duration::ZERO..=HOUR);
}

fn auth(config: &Config, problems: &mut Problems) {
    let auth = &config.auth;
    for (key, expected) in auth.problems() {
        problems.add(key, Err(expected));
    }
    problems.off_or("auth.jwt.max_lifetime", auth.jwt.max_lifetime, SECOND..=365 * DAY);
    // Callers wait so long for their answer.
    problems.duration("auth.url_timeout", auth.url_timeout, 100 * MS..=30 * SECOND);
    problems.duration("auth.url_cache", auth.url_cache, Duration::ZERO..=HOUR);
    problems.number("auth.max_failures", auth.max_failures.into(), 1..=1_000_000);
}

fn public_url(text: &str, base: &str) -> Result<(), String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let plain = |url: &Url| url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let Some(url) = url.filter(plain) else {
        return Err(format!("expected a URL such as \"https://record.example.org\", found {text:?}"));
    };
    match url.path().trim_end_matches('/') {
        path if path.is_empty() || path == base => Ok(()),
        path => Err(format!(
            "expected a URL with server.base_path or without a path: set server.base_path = {path:?} if that is where the server stands"
        )),
    }
}

/// What a URL keeps as it is, so that one comparison tells whether a path is below.
fn base_path(text: &str) -> Result<(), String> {
    let path = text.trim_end_matches('/');
    let segment = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~".contains(&c))
    };
    let good = path
        .strip_prefix('/')
        .is_some_and(|path| path.split('/').all(|part| segment(part) && !part.starts_with('.')));
    if good || path.is_empty() {
        return Ok(());
    }
    Err(format!(
        "expected nothing or a path of letters, digits, -, . and _ such as \"/onrecord\", found {text:?}"
    ))
}

fn tls(config: &Config, problems: &mut Problems) {
    let tls = &config.server.tls;
    let (cert, key) = (!tls.cert.as_os_str().is_empty(), !tls.key.as_os_str().is_empty());
    if cert != key {
        let (missing, other) = if cert { ("key", "cert") } else { ("cert", "key") };
        let expected = format!("expected a PEM file, because server.tls.{other} is set: both, or neither");
        problems.add(&format!("server.tls.{missing}"), Err(expected));
    }
    if tls.self_signed && (cert || key) {
        let expected = "expected false, because server.tls.cert and server.tls.key are set: it is for where there is no certificate";
        problems.add("server.tls.self_signed", Err(expected.to_owned()));
    }
    let redirect = tls.redirect_bind.parse::<SocketAddr>();
    if !tls.redirect_bind.is_empty()
        && (redirect.is_err() || !tls.is_on() || redirect == Ok(config.server.bind))
    {
        let expected = match redirect {
            Err(_) => format!("expected nothing or an address and a port, such as \"0.0.0.0:80\", found {:?}", tls.redirect_bind),
            Ok(_) if tls.is_on() => "expected another port than server.bind, which serves https".to_owned(),
            Ok(_) => "expected nothing, because there is no https to send anybody on to: set server.tls.cert and server.tls.key, or server.tls.self_signed".to_owned(),
        };
        problems.add("server.tls.redirect_bind", Err(expected));
    }
}

/// `https://host`, `https://*.host`, or a bare host.
fn origin(text: &str) -> Result<(), String> {
    let exact = text.replacen("://*.", "://any.", 1);
    let is_origin = Url::parse(&exact).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == exact
    });
    let is_host = Host::parse(text).is_ok_and(|host| host.to_string() == text) && !text.contains('*');
    if is_origin || is_host {
        return Ok(());
    }
    Err(format!(
        "expected \"https://www.example.org\" as browsers send it (no path, no default port), \
         \"https://*.example.org\" or \"example.org\", found {text:?}"
    ))
}

fn webrtc(config: &Config, problems: &mut Problems) {
    let webrtc = &config.webrtc;
    if webrtc.udp_bind != "auto" && webrtc.udp_bind.parse::<SocketAddr>().is_err() {
        let found = &webrtc.udp_bind;
        let expected =
            format!("expected \"auto\" or an address and a port, such as \"0.0.0.0:8189\", found {found:?}");
        problems.add("webrtc.udp_bind", Err(expected));
    }
    for entry in &webrtc.advertise {
        let (private, public) = entry.split_once('=').unwrap_or((entry, entry));
        if [private, public].iter().any(|part| part.trim().parse::<IpAddr>().is_err()) {
            let expected = format!(
                "expected IP addresses, each \"203.0.113.7\" or \"10.0.0.5=203.0.113.7\" (private=public), found {entry:?}"
            );
            problems.add("webrtc.advertise", Err(expected));
        }
    }
    let secret = !webrtc.turn_secret.is_empty();
    for server in &webrtc.ice_servers {
        problems.add("webrtc.ice_servers", ice_server(server, secret));
    }
    if secret && !webrtc.ice_servers.iter().any(|server| server.is_turn() && server.username.is_none()) {
        let expected = "expected a TURN server without a credential in webrtc.ice_servers, which this is for";
        problems.add("webrtc.turn_secret", Err(expected.to_owned()));
    }
    problems.duration("webrtc.keyframe_interval", webrtc.keyframe_interval, 100 * MS..=MINUTE);
    problems.duration("webrtc.reorder_window", webrtc.reorder_window, 50 * MS..=10 * SECOND);
    problems.duration("webrtc.idle_timeout", webrtc.idle_timeout, 100 * MS..=DAY);
    let start = webrtc.start_bitrate;
    if start != 0 && !(30_000..=100_000_000).contains(&start) {
        let expected = format!("expected \"0\" or 30kbit/s to 100Mbit/s, found {start}bit/s");
        problems.add("webrtc.start_bitrate", Err(expected));
    }
}

/// `secret`: credentials are made for TURN servers that have none.
fn ice_server(server: &IceServer, secret: bool) -> Result<(), String> {
    if server.urls.is_empty() {
        return Err("expected at least one of urls, such as \"stun:stun.example.org\"".to_owned());
    }
    for url in &server.urls {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        if !matches!(scheme, "stun" | "stuns" | "turn" | "turns") || rest.is_empty() || rest.starts_with('/')
        {
            return Err(format!(
                "expected URLs such as \"stun:stun.example.org\" or \"turns:turn.example.org:443\", found {url:?}"
            ));
        }
        let made = secret && server.username.is_none() && server.credential.is_none();
        if scheme.starts_with("turn") && !made && (server.username.is_none() || server.credential.is_none()) {
            return Err(format!(
                "expected username and credential beside {url:?}, or webrtc.turn_secret: browsers refuse it without"
            ));
        }
    }
    Ok(())
}

fn chunks(config: &Config, problems: &mut Problems) {
    let chunks = &config.chunks;
    problems.duration("chunks.resume_grace", chunks.resume_grace, Duration::ZERO..=HOUR);
    problems.duration("chunks.idle_timeout", chunks.idle_timeout, 100 * MS..=DAY);
    if !((64 << 10)..=(64 << 20)).contains(&chunks.max_message) {
        let expected = format!("expected 64KiB to 64MiB, found {}", chunks.max_message);
        problems.add("chunks.max_message", Err(expected));
    }
}

fn record(config: &Config, problems: &mut Problems) {
    let record = &config.record;
    if record.dir.as_os_str().is_empty() {
        problems.add("record.dir", Err("expected a folder, found nothing".to_owned()));
    }
    // A cluster holds 32.7 s at most: its frames' times are 16-bit milliseconds.
    problems.duration("record.flush_interval", record.flush_interval, 50 * MS..=30 * SECOND);
    problems.off_or("record.sync_interval", record.sync_interval, 100 * MS..=HOUR);
    problems.duration("record.reconnect_grace", record.reconnect_grace, Duration::ZERO..=HOUR);
    problems.off_or("record.max_duration", record.max_duration, SECOND..=365 * DAY);
    if record.max_bytes != 0 && record.max_bytes < 64 << 10 {
        let found = record.max_bytes;
        problems.add("record.max_bytes", Err(format!("expected \"0\" or 64KiB and more, found {found}")));
    }
    let mode = u32::from_str_radix(&record.mode, 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none_or(|mode| mode & 0o600 != 0o600) {
        let expected = format!(
            "expected octal permissions the server can work with, such as \"0640\", found {:?}",
            record.mode
        );
        problems.add("record.mode", Err(expected));
    }
}

fn limits(config: &Config, problems: &mut Problems) {
    let limits = &config.limits;
    for (key, least, found) in [
        ("limits.max_streams", 1, limits.max_streams),
        ("limits.max_streams_per_address", 0, limits.max_streams_per_address),
        ("limits.max_handshakes", 1, limits.max_handshakes),
        ("limits.max_viewers", 0, limits.max_viewers),
        ("limits.max_viewers_per_address", 0, limits.max_viewers_per_address),
        ("limits.max_viewers_per_stream", 0, limits.max_viewers_per_stream),
        ("limits.max_connections", 32, limits.max_connections),
        ("limits.max_connections_per_address", 0, limits.max_connections_per_address),
        ("limits.max_sockets", 1, limits.max_sockets),
        ("limits.max_sockets_per_address", 0, limits.max_sockets_per_address),
    ] {
        problems.number(key, found as u64, least..=1_000_000);
    }
    problems.off_or("limits.max_duration", limits.max_duration, SECOND..=365 * DAY);
}

fn hooks(config: &Config, problems: &mut Problems) {
    let hooks = &config.hooks;
    problems.duration("hooks.timeout", hooks.timeout, 100 * MS..=7 * DAY);
    problems.duration("hooks.kill_after", hooks.kill_after, Duration::ZERO..=10 * MINUTE);
    problems.number("hooks.max_attempts", hooks.max_attempts.into(), 1..=1_000_000);
    problems.duration("hooks.backoff", hooks.backoff, 10 * MS..=DAY);
    problems.number("hooks.concurrency", hooks.concurrency as u64, 1..=1024);
}
