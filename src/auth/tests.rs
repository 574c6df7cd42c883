use super::*;
use std::net::Ipv4Addr;
use std::time::Duration;

fn token(name: &str, token: &NewToken, permissions: &[Permission], streams: &[&str]) -> Token {
    Token {
        name: name.to_owned(),
        hash: token.hash(),
        permissions: permissions.to_vec(),
        streams: streams.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        expires: None,
    }
}

async fn ask(
    auth: &Auth,
    credential: Option<&str>,
    permission: Permission,
    stream: Option<&str>,
) -> Result<Grant, AuthError> {
    let stream = stream.map(|name| name.parse().unwrap());
    let from = Ipv4Addr::new(192, 0, 2, 1).into();
    auth.authorise(AccessRequest { credential, permission, stream: stream.as_ref(), from }).await
}

#[tokio::test]
async fn a_token_is_good_for_what_it_says_and_nothing_else() {
    let [studio, old, root] = [(); 3].map(|()| NewToken::generate());
    let tokens = vec![
        token("studio", &studio, &[Permission::Publish], &["interview-*", "door"]),
        Token { expires: Some(Timestamp::UNIX_EPOCH), ..token("old", &old, &[Permission::Admin], &[]) },
        token("root", &root, &[Permission::Admin], &[]),
    ];
    let auth = Auth::new(Config { tokens, ..Config::default() }).unwrap();
    assert!(auth.asks());
    let (publish, view) = (Permission::Publish, Permission::View);
    let huge = "x".repeat(1 << 20);
    type Case<'a> = (Option<&'a str>, Permission, Option<&'a str>, Result<&'a str, AuthError>);
    let table: &[Case<'_>] = &[
        (None, publish, Some("door"), Err(AuthError::Missing)),
        (Some(""), publish, Some("door"), Err(AuthError::Unknown)),
        (Some("onr_"), publish, Some("door"), Err(AuthError::Unknown)),
        (Some(&huge), publish, Some("door"), Err(AuthError::Unknown)),
        (Some(studio.reveal()), publish, Some("door"), Ok("studio")),
        (Some(studio.reveal()), publish, Some("interview-7"), Ok("studio")),
        (Some(studio.reveal()), publish, None, Ok("studio")),
        (Some(studio.reveal()), publish, Some("other"), Err(AuthError::Forbidden)),
        (Some(studio.reveal()), view, Some("door"), Err(AuthError::Forbidden)),
        (Some(old.reveal()), publish, Some("door"), Err(AuthError::Expired)),
        (Some(root.reveal()), Permission::Recordings, None, Ok("root")),
        (Some(root.reveal()), view, Some("anything"), Ok("root")),
    ];
    for (credential, permission, stream, expected) in table {
        let got = ask(&auth, *credential, *permission, *stream).await;
        let expected = expected.as_ref().map(|who| (*who).to_owned()).map_err(Clone::clone);
        assert_eq!(got.map(|grant| grant.who.to_string()), expected, "{permission:?} {stream:?}");
    }
}

#[test]
fn whether_credentials_are_needed_follows_from_what_is_configured() {
    let some = vec![token("a", &NewToken::generate(), &[Permission::View], &[])];
    let table = [
        (Mode::Off, false),
        (Mode::Off, true),
        (Mode::Tokens, true),
        (Mode::Open, false),
        (Mode::Open, true),
    ];
    for (mode, configured) in table {
        let tokens = if configured { some.clone() } else { Vec::new() };
        let config = Config { mode, tokens, ..Config::default() };
        assert_eq!(config.asks(), configured && mode != Mode::Open, "{mode:?} {configured}");
        assert_eq!(config.warnings(Timestamp::now()).len(), usize::from(mode == Mode::Open && configured));
        assert_eq!(Auth::new(config.clone()).unwrap().asks(), config.asks());
    }
    let problems = Auth::new(Config { mode: Mode::Tokens, ..Config::default() }).unwrap_err();
    assert!(
        problems[0].starts_with("auth.mode: ") && problems[0].contains("onrecord token new"),
        "{problems:?}"
    );
}

#[test]
fn every_bad_entry_is_named_and_no_token_is_repeated() {
    let good = token("good", &NewToken::generate(), &[Permission::View], &[]);
    let raw = NewToken::generate();
    let tokens = vec![
        Token { hash: raw.reveal().to_owned(), ..good.clone() },
        Token { name: String::new(), permissions: Vec::new(), ..good.clone() },
        Token { name: "two\nlines".to_owned(), ..good.clone() },
        Token { streams: vec!["x".repeat(128).parse().unwrap(); 17], ..good.clone() },
        Token { hash: format!("sha256:{}", "é".repeat(32)), ..good.clone() },
        good,
    ];
    let config = Config { tokens, ..Config::default() };
    let problems = Auth::new(config.clone()).unwrap_err();
    println!("{}", problems.join("\n"));
    assert_eq!(problems.len(), 6);
    let shown = format!("{config:?} {problems:?}");
    assert!(!shown.contains(&raw.reveal()[4..]), "{shown}");
    let warned = Config {
        tokens: vec![Token { expires: Some(Timestamp::UNIX_EPOCH), ..config.tokens[0].clone() }],
        ..config
    };
    assert!(warned.warnings(Timestamp::now())[0].contains("has expired"));
}

#[test]
fn only_a_server_that_asks_keeps_a_key() {
    let dir = tempfile::tempdir().unwrap();
    Auth::open(Config::default(), dir.path()).unwrap();
    assert!(!dir.path().join(".key").exists());
    let tokens = vec![token("a", &NewToken::generate(), &[Permission::View], &[])];
    let config = Config { tokens, ..Config::default() };
    let signed = Auth::open(config.clone(), dir.path()).unwrap().sign_file("a.webm", Timestamp::now());
    assert!(Auth::open(config, dir.path()).unwrap().opens_file("a.webm", &signed, Timestamp::now()));
}

const SECRET: &str = "a secret for tests of 40 bytes and more!";

fn signed(lifetime: u64) -> String {
    let jwt = Jwt { secret: SECRET.to_owned(), ..Jwt::default() };
    let grant = Grant { permissions: vec![Permission::View], ..Grant::everything("pupil") };
    sign(&jwt, &grant, Timestamp::now() - Duration::from_secs(60), Duration::from_secs(lifetime)).unwrap()
}

#[tokio::test]
async fn a_good_credential_is_served_however_often_others_fail_behind_the_address() {
    let good = NewToken::generate();
    let config = Config {
        tokens: vec![token("studio", &good, &[Permission::View], &[])],
        jwt: Jwt { secret: SECRET.to_owned(), ..Jwt::default() },
        max_failures: 3,
        ..Config::default()
    };
    let auth = Auth::new(config).unwrap();
    let view = Permission::View;
    let expired = signed(10);
    for _ in 0..5 {
        assert_eq!(ask(&auth, None, view, None).await, Err(AuthError::Missing));
        assert_eq!(ask(&auth, Some(&expired), view, None).await, Err(AuthError::Expired));
        assert_eq!(
            ask(&auth, Some(good.reveal()), Permission::Publish, None).await,
            Err(AuthError::Forbidden)
        );
    }
    for _ in 0..3 {
        assert_eq!(ask(&auth, Some("wrong"), view, None).await, Err(AuthError::Unknown));
    }
    for wrong in ["wrong", "a.b.c", &"x".repeat(1 << 20)] {
        let denied = ask(&auth, Some(wrong), view, None).await.unwrap_err();
        let AuthError::TooMany(seconds) = denied else { panic!("{denied:?}") };
        assert!((1..=60).contains(&seconds), "{seconds} s");
    }
    assert_eq!(&*ask(&auth, Some(good.reveal()), view, None).await.unwrap().who, "studio");
    assert_eq!(&*ask(&auth, Some(&signed(120)), view, None).await.unwrap().who, "pupil");
    let elsewhere = AccessRequest {
        credential: Some("wrong"),
        permission: view,
        stream: None,
        from: Ipv4Addr::LOCALHOST.into(),
    };
    assert_eq!(auth.authorise(elsewhere).await, Err(AuthError::Unknown));
    let shown = format!("{auth:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(&good.hash()[7..]), "{shown}");
}

#[tokio::test]
async fn an_address_that_has_to_wait_does_not_reach_the_service_and_huge_credentials_never_do() {
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", service.local_addr().unwrap());
    let (count, counted) = tokio::sync::watch::channel(0);
    let answer = move |body: String| {
        count.send_modify(|count| *count += 1);
        async move {
            let known = body.contains("\"good\"");
            if known { axum::http::StatusCode::OK } else { axum::http::StatusCode::UNAUTHORIZED }
        }
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(axum::serve(service, router).into_future());
    // A service may take its time on a loaded machine.
    let url_timeout = Duration::from_secs(20);
    let auth = Auth::new(Config { url, url_timeout, max_failures: 3, ..Config::default() }).unwrap();
    let view = Permission::View;
    assert!(ask(&auth, Some("good"), view, None).await.is_ok());
    assert_eq!(ask(&auth, Some(&"x".repeat(CREDENTIAL_MAX + 1)), view, None).await, Err(AuthError::Unknown));
    for n in 0..20 {
        assert!(ask(&auth, Some(&format!("wrong {n}")), view, None).await.is_err());
    }
    assert_eq!(*counted.borrow(), 3, "1 good, 2 wrong, since the huge one was the first of 3");
    assert!(ask(&auth, Some("good"), view, None).await.is_ok(), "it is known");
    assert!(matches!(ask(&auth, Some("good"), view, Some("a")).await, Err(AuthError::TooMany(_))));
}

#[tokio::test]
async fn sessions_end_with_what_they_were_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let made = NewToken::generate();
    let config = Config { tokens: vec![token("a", &made, &[Permission::View], &[])], ..Config::default() };
    let open = |config: &Config| Auth::open(config.clone(), dir.path()).unwrap();
    let now = Timestamp::now();
    let grant = ask(&open(&config), Some(made.reveal()), Permission::View, None).await.unwrap();
    let session = open(&config).seal_session(&grant, now + Duration::from_secs(60));
    let link = open(&config).sign_file("a.webm", now);
    assert_eq!(open(&config).open_session(&session, now).unwrap().who, grant.who);
    let jwt = Jwt { secret: SECRET.to_owned(), ..Jwt::default() };
    for changed in [
        Config { tokens: vec![token("a", &made, &[Permission::View], &["b"])], ..config.clone() },
        Config { jwt: jwt.clone(), ..config.clone() },
        Config { jwt: Jwt { secret: SECRET.to_uppercase(), ..jwt }, ..config.clone() },
        Config { url: "https://example.org".to_owned(), ..config.clone() },
    ] {
        let auth = open(&changed);
        assert_eq!(auth.open_session(&session, now), Err(AuthError::Unknown), "{changed:?}");
        assert!(auth.opens_file("a.webm", &link, now), "a link is to a file, whoever made it");
    }
    // Nothing made for one purpose is anything for another.
    let auth = open(&config);
    for value in [&session, &link] {
        assert_eq!(ask(&auth, Some(value), Permission::View, None).await, Err(AuthError::Unknown), "{value}");
    }
}

/// What is logged, in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_secret_is_in_the_log_or_in_an_error() {
    let log = Log::default();
    let subscriber = || {
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        tracing::dispatcher::Dispatch::new(subscriber.with_writer(move || writer.clone()).finish())
    };
    // Of one subscriber alone, another test's thread, which has none, may say that nobody listens.
    let (all, _second) = (subscriber(), subscriber());
    let _guard = tracing::dispatcher::set_default(&all);
    let (dir, made) = (tempfile::tempdir().unwrap(), NewToken::generate());
    // Nobody listens there.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = Config {
        tokens: vec![token("studio", &made, &[Permission::View], &[])],
        jwt: Jwt { secret: SECRET.to_owned(), ..Jwt::default() },
        url: format!("http://{gone}/path-hunter2?key=query-hunter2"),
        url_timeout: Duration::from_secs(20),
        ..Config::default()
    };
    std::fs::write(dir.path().join(".key"), "damaged-hunter2").unwrap();
    let auth = Auth::open(config, dir.path()).unwrap();
    let (good, forged) = (signed(120), format!("{}A", signed(120)));
    let session = auth.seal_session(&Grant::everything("me"), Timestamp::now() + Duration::from_secs(60));
    let mut told = String::new();
    for credential in [made.reveal(), &good, &forged, "credential-hunter2", &session] {
        let got = ask(&auth, Some(credential), Permission::View, None).await;
        told.push_str(
            &got.map_or_else(|denied| format!("{denied} {denied:?}"), |grant| format!("{grant:?}")),
        );
    }
    told.push_str(&String::from_utf8(log.0.lock().clone()).unwrap());
    assert!(
        told.contains("auth.url can't be asked") && told.contains("the server's key is damaged"),
        "{told}"
    );
    assert!(told.contains("a signed token is refused"), "{told}");
    for secret in ["hunter2", SECRET, &made.reveal()[4..], &made.hash()[7..], &good[40..], &session[40..]] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}
