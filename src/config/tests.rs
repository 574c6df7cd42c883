use super::*;
use crate::auth;
use std::fs;
use std::time::Duration;

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A folder of its own with `config/`, and a hook where the default expects it.
struct Spot {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Spot {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "hooks"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/on_record_hook.sh");
        fs::copy(shipped, folder.path().join("hooks/on_record_hook.sh")).unwrap();
        let sources = Sources {
            file: None,
            folder: folder.path().join("config"),
            set: Vec::new(),
            environment: Some(HashMap::new()),
        };
        Self { folder, sources }
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn set(mut self, arguments: &[&str]) -> Self {
        self.sources.set.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        Config::load(&self.sources)
    }

    fn loaded(&self) -> Config {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The problems, one a line, without the folder's path.
    fn problems(&self) -> String {
        let problems = self.load().map(|_| ()).expect_err("it was taken");
        problems.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn the_documented_defaults_are_the_built_in_ones_and_name_every_key() {
    let place = Spot::new().file("config/default.toml", DEFAULTS);
    let (from_file, built_in) = (place.loaded(), Spot::new().loaded());
    assert_eq!(Config { hook_script: None, ..from_file }, Config { hook_script: None, ..built_in });

    let mut section = String::new();
    let mut documented = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            documented.push(format!("{section}.{key}"));
        }
    }
    for key in schema::keys::<Config>() {
        assert!(documented.contains(&key), "config/default.toml lacks {key}");
    }
    let undocumented: Vec<_> =
        DEFAULTS.lines().scan("", |above, line| Some((std::mem::replace(above, line), line))).collect();
    for (above, line) in undocumented {
        assert!(!line.contains(" = ") || above.starts_with('#'), "no comment says what this is for: {line}");
    }
}

#[test]
fn without_any_file_the_built_in_defaults_hold() {
    let config = Spot::new().loaded();
    let resolved = Config {
        record: record::Config { dir: "records".into(), ..config.record.clone() },
        hook_script: None,
        ..config
    };
    assert_eq!(resolved, Config::default());
}

#[test]
fn each_layer_is_stronger_than_the_one_before() {
    let levels = |place: &Spot| place.loaded().limits.max_streams;
    let place = Spot::new().file("config/default.toml", "limits.max_streams = 1");
    assert_eq!(levels(&place), 1);
    let place = place.file("config/local.toml", "[limits]\nmax_streams = 2");
    assert_eq!(levels(&place), 2);
    let place = place.env("ONRECORD__LIMITS__MAX_STREAMS", "3").env("ONRECORD_HOOK_LOG", "/elsewhere");
    assert_eq!(levels(&place), 3);
    let place = place.set(&["limits.max_streams=4"]);
    assert_eq!(levels(&place), 4);
    assert_eq!(levels(&place.set(&["limits.max_streams=5"])), 5);
}

#[test]
fn a_file_named_on_the_command_line_is_read_in_place_of_the_folders_files() {
    let mut place = Spot::new()
        .file("config/local.toml", "limits.max_streams = 2")
        .file("mine.toml", "log.level = \"warn\"");
    place.sources.file = Some(place.folder.path().join("mine.toml"));
    let config = place.loaded();
    assert_eq!((config.limits.max_streams, config.log.level.as_str()), (500, "warn"));
    place.sources.file = Some(place.folder.path().join("absent.toml"));
    assert!(place.problems().contains("absent.toml: expected a file of settings: No such file"));
}

#[test]
fn text_from_the_environment_and_the_command_line_fits_every_type() {
    let place = Spot::new()
        .env("ONRECORD__SERVER__BIND", "[::1]:9000")
        .env("ONRECORD__SERVER__CORS_ORIGINS", "https://a.example.org, b.example.org")
        .env("ONRECORD__WEBRTC__ADVERTISE", "203.0.113.7")
        .env("ONRECORD__RECORD__MIN_FREE", "0")
        .env("ONRECORD__RECORD__DIR", "/srv/a, b")
        .env("ONRECORD__AUTH__MODE", "open")
        .env("ONRECORD__WEBRTC__ICE_SERVERS", r#"[{"urls": ["stun:stun.example.org"]}]"#)
        .set(&["hooks.on_record=", "hooks.max_attempts=3", "record.mode=0600", "record.flush_interval=250ms"])
        .set(&["webrtc.reorder_window = 500ms"]);
    let config = place.loaded();
    assert_eq!(config.server.bind.to_string(), "[::1]:9000");
    assert_eq!(config.server.cors_origins, ["https://a.example.org", "b.example.org"]);
    assert_eq!(config.webrtc.advertise, ["203.0.113.7"]);
    assert_eq!(config.webrtc.ice_servers[0].urls, ["stun:stun.example.org"]);
    assert_eq!((config.record.min_free, config.record.mode.as_str()), (0, "0600"));
    assert_eq!(config.record.dir, Path::new("/srv/a, b"));
    assert_eq!((config.auth.mode, config.hooks.max_attempts), (auth::Mode::Open, 3));
    assert_eq!(config.record.flush_interval, Duration::from_millis(250));
    assert_eq!(config.webrtc.reorder_window, Duration::from_millis(500));
    assert_eq!(config.hook_script, None);

    let place = Spot::new().set(&[
        "server.cors_origins=[\"https://a.example.org\"]",
        "webrtc.advertise=",
        "webrtc.ice_servers=[{ urls = [\"stun:stun.example.org\"] }]",
    ]);
    let config = place.loaded();
    assert_eq!(config.server.cors_origins, ["https://a.example.org"]);
    assert_eq!((config.webrtc.advertise.len(), config.webrtc.ice_servers.len()), (0, 1));
}

#[test]
fn every_bad_setting_says_what_is_expected() {
    let table = [
        ("server.bind=localhost:80", "expected an address and a port"),
        ("server.public_url=record.example.org", "server.public_url (--set): expected a URL"),
        ("server.public_url=ftp://example.org", "expected a URL such as \"https://record.example.org\""),
        ("server.cors_origins=*", "expected \"https://www.example.org\" as browsers send it"),
        ("server.cors_origins=https://a.example.org/path", "no path, no default port"),
        ("server.cors_origins=good.example.org,http://b ad", "found \"http://b ad\""),
        ("server.shutdown_grace=2h", "expected 0 to 1h, found 2h"),
        ("server.public_url=https://example.org/rec", "set server.base_path = \"/rec\""),
        ("server.base_path=onrecord", "expected nothing or a path of letters"),
        ("server.base_path=/a//b", "such as \"/onrecord\", found \"/a//b\""),
        ("server.base_path=/a/../b", "such as \"/onrecord\""),
        ("server.base_path=/a b", "such as \"/onrecord\""),
        ("server.trusted_proxies=10.0.0.0/8,nginx", "expected addresses and networks"),
        ("server.tls.cert=a.pem", "server.tls.key: expected a PEM file, because server.tls.cert is set"),
        ("server.tls.key=a.pem", "server.tls.cert: expected a PEM file"),
        ("server.tls.redirect_bind=127.0.0.1:80", "expected nothing, because there is no https"),
        ("server.tls.redirect_bind=80", "expected nothing or an address and a port"),
        ("server.tls.crt=a.pem", "did you mean server.tls.cert?"),
        ("server.bnid=127.0.0.1:1", "server.bnid (--set): there is no such key; did you mean server.bind?"),
        ("server.udp_bind=auto", "did you mean webrtc.udp_bind?"),
        ("sever.bind=127.0.0.1:1", "sever (--set): there is no such section; did you mean server?"),
        (
            "qqqq.bind=1",
            "there are server, auth, webrtc, chunks, record, mjpeg, hooks, retention, live, limits, log",
        ),
        ("server.cors_origins.x=1", "expected a list, found map"),
        ("server=x", "server (--set): expected a section with bind, public_url"),
        ("server", "server (--set): expected section.key=value"),
        ("retention.max_age=1s", "expected \"0\" or 60s to 36500d, found 1s"),
        ("retention.streams=[{name=\"\"}]", "a stream pattern has 1 to 128 bytes"),
        ("webrtc.udp_bind=8189", "expected \"auto\" or an address and a port"),
        ("webrtc.advertise=example.org", "expected IP addresses"),
        ("webrtc.advertise=10.0.0.5=nowhere", "private=public"),
        ("webrtc.ice_servers=[{urls=[\"http://example.org\"]}]", "expected URLs such as \"stun:"),
        ("webrtc.ice_servers=[{urls=[\"turn:example.org\"]}]", "expected username and credential"),
        ("webrtc.turn_secret=shared", "expected a TURN server without a credential"),
        ("webrtc.ice_servers=[{urls=[]}]", "expected at least one of urls"),
        (
            "webrtc.ice_servers=[{url=\"stun:example.org\"}]",
            "expected one of `urls`, `username`, `credential`",
        ),
        ("webrtc.reorder_window=20ms", "expected 50ms to 10s, found 20ms"),
        ("webrtc.start_bitrate=1kbit/s", "expected \"0\" or 30kbit/s to 100Mbit/s, found 1000bit/s"),
        ("webrtc.reorder_window=1 fortnight", "expected a duration such as"),
        ("webrtc.keyframe_interval=0", "expected 100ms to 60s, found 0"),
        ("record.flush_interval=1m", "expected 50ms to 30s, found 60s"),
        ("record.sync_interval=1ms", "expected \"0\" or 100ms to 1h, found 1ms"),
        ("record.min_free=lots", "expected a size such as"),
        ("record.max_bytes=1", "expected \"0\" or 64KiB and more, found 1"),
        ("record.mode=0999", "expected octal permissions"),
        ("record.mode=0400", "expected octal permissions the server can work with"),
        ("record.dir=", "expected a folder, found nothing"),
        ("hooks.max_attempts=0", "expected 1 to 1000000, found 0"),
        ("hooks.max_attempts=-1", "expected a whole number, 0 or more, found integer `-1`"),
        ("hooks.max_attempts=many", "expected a whole number, 0 or more, found string \"many\""),
        ("hooks.concurrency=0", "expected 1 to 1024, found 0"),
        ("hooks.timeout=8d", "expected 100ms to 7d"),
        ("hooks.on_record=absent.sh", "config/absent.sh does not exist"),
        ("limits.max_streams=0", "expected 1 to 1000000, found 0"),
        ("limits.max_connections=1", "expected 32 to 1000000, found 1"),
        ("limits.max_bitrate=8", "expected a bitrate such as"),
        ("limits.max_duration=5ms", "expected \"0\" or 1s to 365d, found 5ms"),
        ("log.level=loud", "expected error, warn, info, debug or trace"),
        ("log.level=onrecord=loud", "or EnvFilter directives"),
        ("log.format=xml", "expected `text` or `json`, found `xml`"),
    ];
    each_says(&table);
}

#[test]
fn every_bad_setting_of_auth_says_what_is_expected() {
    each_says(&[
        ("auth.mode=closed", "expected one of `off`, `tokens`, `open`, found `closed`"),
        (
            "auth.mode=tokens",
            "expected auth.tokens, auth.jwt or auth.url beside \"tokens\": run `onrecord token new",
        ),
        ("auth.tokens=onr_abc", "expected a list"),
        (
            "auth.jwt.secret=short",
            "expected at least 32 bytes, as `openssl rand -hex 32` makes them; it has 5",
        ),
        ("auth.jwt.secret_file=absent", "expected a file with the secret: No such file"),
        ("auth.jwt.jwks=absent.json", "expected a JWKS file, with public keys: No such file"),
        ("auth.jwt.max_lifetime=1ms", "expected \"0\" or 1s to 365d, found 1ms"),
        ("auth.jwt=x", "auth.jwt (--set): expected a section with secret, secret_file"),
        ("auth.url=example.org", "expected a URL such as \"https://example.org/may\""),
        ("auth.url=https://a:b@example.org", "without name and password"),
        ("auth.url_timeout=1m", "expected 100ms to 30s"),
        ("auth.url_cache=1d", "expected 0 to 1h, found 1d"),
        ("auth.max_failures=0", "expected 1 to 1000000, found 0"),
        ("auth.tokens=sha256:abc", "expected hash = \"sha256:\" and 64 hexadecimal digits"),
        (
            "auth.tokens=[{name=\"a\",permissions=[\"dance\"]}]",
            "expected one of `publish`, `view`, `recordings`",
        ),
        ("auth.tokens=[{name=\"a\",streams=[\"a/b\"]}]", "a stream pattern has 1 to 128 bytes"),
        ("auth.tokens=[{name=\"a\",until=\"tomorrow\"}]", "expected one of `name`, `hash`"),
    ]);
}

/// Each of these by `--set` says this and nothing else.
fn each_says(table: &[(&str, &str)]) {
    for (setting, expected) in table {
        let problems = Spot::new().set(&[setting]).problems();
        assert!(problems.contains(expected), "--set {setting} says\n{problems}\nand not\n  {expected}");
        assert_eq!(problems.lines().count(), 2, "--set {setting} says more than one thing:\n{problems}");
    }
}

#[test]
fn files_want_the_right_type_and_are_named() {
    let table = [
        (
            "hooks.max_attempts = \"3\"",
            "config/local.toml): expected a whole number, 0 or more, found string",
        ),
        ("record.mode = 640", "expected a string, found integer `640`"),
        ("record.min_free = true", "expected a duration such as \"10s\" or a size"),
        ("server.cors_origins = \"a\"", "expected a list, found string"),
        ("[server]\nbind = ", "config/local.toml: expected TOML: TOML parse error at line 2, column 8"),
    ];
    for (text, expected) in table {
        let problems = Spot::new().file("config/local.toml", text).problems();
        assert!(problems.contains(expected), "{text} says\n{problems}");
    }
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_origin() {
    let place = Spot::new()
        .file("config/default.toml", "[broken")
        .file(
            "config/local.toml",
            "[server]\nbind = \"0.0.0.0:80\"\ncors_origins = [\"*\", \"a b\"]\n[extra]\nx = 1\n",
        )
        .env("ONRECORD__HOOKS__CONCURENCY", "4")
        .env("ONRECORD__RECORD__MODE", "rw")
        .set(&["hooks.on_record=/absent", "webrtc.reorder_window=0"]);
    let problems = place.problems();
    println!("{problems}");
    let expected = [
        "config/default.toml: expected TOML",
        "auth.mode: expected who is served, because server.bind = \"0.0.0.0:80\"",
        "server.cors_origins (config/local.toml): expected",
        "found \"*\"",
        "found \"a b\"",
        "extra (config/local.toml): there is no such section",
        "hooks.concurency (environment variable ONRECORD__HOOKS__CONCURENCY): there is no such key; did you mean hooks.concurrency?",
        "record.mode (environment variable ONRECORD__RECORD__MODE): expected octal",
        "hooks.on_record (--set): expected a program, but /absent does not exist",
        "webrtc.reorder_window (--set): expected 50ms to 10s",
    ];
    for expected in expected {
        assert!(problems.contains(expected), "{expected}\nis not in\n{problems}");
    }
}

#[test]
fn a_secret_is_not_repeated_on_the_terminal() {
    let place = Spot::new().env("ONRECORD__WEBRTC__ICE_SERVERS", "hunter2");
    let problems = place.problems();
    assert!(problems.contains("expected a list") && !problems.contains("hunter2"), "{problems}");
}

#[test]
fn other_machines_are_served_only_by_the_operators_word() {
    let token = format!("auth.tokens=sha256:{}", "0".repeat(64));
    for (bind, word, taken) in [
        ("127.0.0.1:1", "auth.mode=off", true),
        ("[::1]:1", "auth.mode=off", true),
        ("0.0.0.0:1", "auth.mode=off", false),
        ("192.0.2.1:1", "auth.mode=off", false),
        ("0.0.0.0:1", "auth.mode=tokens", false),
        ("0.0.0.0:1", "auth.tokens=onr_abc", false),
        ("[::]:1", "auth.mode=open", true),
        ("[::]:1", &token, true),
    ] {
        let loaded = Spot::new().set(&[&format!("server.bind={bind}"), word]).load();
        assert_eq!(loaded.is_ok(), taken, "{bind} {word}: {loaded:?}");
        let lines = loaded.map_or_else(|problems| problems.0.len(), |_| 1);
        assert_eq!(lines, 1, "{bind} {word} is told more than once");
    }
    let problems = Spot::new().set(&["server.bind=0.0.0.0:80"]).problems();
    for way_out in ["bind \"127.0.0.1:80\"", "`onrecord token new --name me --admin`", "auth.mode = \"open\""]
    {
        assert!(problems.contains(way_out), "{way_out} is not in {problems}");
    }
    let config = Spot::new().set(&[&token, "auth.mode=open"]).loaded();
    assert!(
        config.warnings.iter().any(|warning| warning.contains("nobody is asked")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn tokens_are_read_from_files_and_never_shown() {
    let digits = "5e".repeat(32);
    let entry = |name| {
        format!(
            "[[auth.tokens]]\nname = \"{name}\"\nhash = \"sha256:{digits}\"\npermissions = [\"publish\"]\n\
             streams = [\"interview-*\"]\nexpires = \"2090-01-31T00:00:00Z\"\n"
        )
    };
    let place = Spot::new().file("config/local.toml", &[entry("studio"), entry("stage")].concat());
    let config = place.loaded();
    assert_eq!(config.auth.tokens.len(), 2);
    let token = &config.auth.tokens[0];
    assert_eq!(
        (token.name.as_str(), token.permissions.as_slice()),
        ("studio", &[auth::Permission::Publish][..])
    );
    assert!(token.streams[0].matches(&"interview-7".parse().unwrap()));
    assert_eq!(token.expires, Some("2090-01-31T00:00:00Z".parse().unwrap()));
    assert!(!format!("{config:?}").contains(&digits));

    for (key, value) in [
        ("AUTH__TOKENS", "onr_hunter2"),
        ("AUTH__TOKENS", "[{hash = \"hunter2\"}]"),
        ("AUTH__JWT__SECRET", "hunter2"),
        ("AUTH__JWT__SECRET", "[hunter2]"),
        ("AUTH__URL", "hunter2"),
        ("AUTH__URL", "https://example.org/#hunter2"),
    ] {
        let place = Spot::new().env(&format!("ONRECORD__{key}"), value).set(&["server.bind=0.0.0.0:1"]);
        let problems = place.problems();
        assert!(problems.contains("auth.") && !problems.contains("hunter2"), "{problems}");
    }
    let place = Spot::new()
        .env("ONRECORD__AUTH__JWT__SECRET", &"hunter2 ".repeat(5))
        .set(&["auth.url=http://192.0.2.1/?key=hunter2"]);
    let config = place.loaded();
    assert!(config.auth.asks() && !format!("{config:?}").contains("hunter2"), "{config:?}");
    assert!(config.warnings.iter().any(|warning| warning.contains("plain HTTP")), "{:?}", config.warnings);
    for broken in ["secret = \"hunter2", "secret = 'hunter2' 'x'"] {
        let place = Spot::new().file("config/local.toml", &format!("[auth.jwt]\n{broken}\n"));
        let problems = place.problems();
        assert!(problems.contains("line 2") && !problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn files_of_keys_begin_at_the_configurations_folder() {
    let keys = include_str!("../auth/fixtures/jwks.json");
    let place = Spot::new().file("config/keys.json", keys).file("config/secret", &"s".repeat(32));
    let place = place.set(&["auth.jwt.jwks=keys.json", "auth.jwt.secret_file=secret"]);
    assert!(place.loaded().auth.asks());
}

#[test]
fn a_relative_hook_begins_at_the_configurations_folder() {
    let root = |place: &Spot| fs::canonicalize(place.folder.path()).unwrap();
    let place = Spot::new();
    let shipped = root(&place).join("hooks/on_record_hook.sh");
    assert_eq!(place.loaded().hook_script, Some(shipped.clone()));

    let place = Spot::new().file("config/own.sh", "#!/bin/sh\n").set(&["hooks.on_record=own.sh"]);
    let config = place.loaded();
    assert_eq!(config.hook_script, Some(root(&place).join("config/own.sh")));
    assert!(config.warnings[0].contains("chmod +x"), "{:?}", config.warnings);

    let mut place = Spot::new().file("own.sh", "").file("own.toml", "hooks.on_record = \"own.sh\"");
    place.sources.file = Some(place.folder.path().join("own.toml"));
    assert_eq!(place.loaded().hook_script, Some(root(&place).join("own.sh")));
}

#[test]
fn the_shipped_hook_may_be_missing_but_one_that_was_asked_for_may_not() {
    let remove = |place: Spot| {
        fs::remove_file(place.folder.path().join("hooks/on_record_hook.sh")).unwrap();
        place
    };
    let config = remove(Spot::new().file("config/default.toml", DEFAULTS)).loaded();
    assert_eq!(config.hook_script, None);
    assert!(config.warnings[0].contains("no hook will run"), "{:?}", config.warnings);
    let asked = Spot::new().file("config/local.toml", "hooks.on_record = \"../hooks/on_record_hook.sh\"");
    let problems = remove(asked).problems();
    assert!(problems.contains("hooks.on_record (config/local.toml): expected a program"), "{problems}");
}

#[test]
fn certificates_begin_at_the_configurations_folder_and_one_source_is_enough() {
    let place =
        Spot::new().file("config/local.toml", "[server.tls]\ncert = \"../tls/a.pem\"\nkey = \"/b.pem\"");
    let root = fs::canonicalize(place.folder.path()).unwrap();
    let tls = place.loaded().server.tls;
    assert_eq!((tls.cert, tls.key), (root.join("tls/a.pem"), "/b.pem".into()));
    let both =
        place.set(&["server.tls.self_signed=true", "server.tls.redirect_bind=127.0.0.1:8080"]).problems();
    assert!(both.contains("server.tls.self_signed (--set): expected false"), "{both}");
    assert!(
        both.contains("server.tls.redirect_bind (--set): expected another port than server.bind"),
        "{both}"
    );
}

#[test]
fn the_banner_says_where_to_go() {
    let mut config = Spot::new().loaded();
    let bound = "127.0.0.1:4711".parse().unwrap();
    let banner = config.banner(bound);
    for part in
        ["http://localhost:4711/", &config.record.dir.display().to_string(), "hooks/on_record_hook.sh"]
    {
        assert!(banner.contains(part), "{part} is not in\n{banner}");
    }
    assert!(config.record.dir.is_absolute());
    config.server.public_url = "https://record.example.org".to_owned();
    config.hook_script = None;
    let banner = config.banner(bound);
    assert!(banner.contains("https://record.example.org/publish") && banner.contains("none"), "{banner}");
    config.server.base_path = "/onrecord/".to_owned();
    for public in ["https://record.example.org", "https://record.example.org/onrecord/"] {
        config.server.public_url = public.to_owned();
        let banner = config.banner(bound);
        assert!(banner.contains(" https://record.example.org/onrecord/publish\n"), "{banner}");
    }
    config.server.public_url.clear();
    config.server.tls.self_signed = true;
    assert!(config.banner(bound).contains(" https://localhost:4711/onrecord/publish\n"));
    assert!(Config::default().banner("0.0.0.0:80".parse().unwrap()).contains("http://localhost:80/"));
}
