use super::*;
use std::net::Ipv4Addr;

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
) -> Result<Grant, Denied> {
    let stream = stream.map(|name| name.parse().unwrap());
    let from = Ipv4Addr::new(192, 0, 2, 1).into();
    auth.authorise(Asked { credential, permission, stream: stream.as_ref(), from }).await
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
    let table: &[(Option<&str>, Permission, Option<&str>, Result<&str, Denied>)] = &[
        (None, publish, Some("door"), Err(Denied::Missing)),
        (Some(""), publish, Some("door"), Err(Denied::Unknown)),
        (Some("onr_"), publish, Some("door"), Err(Denied::Unknown)),
        (Some(&huge), publish, Some("door"), Err(Denied::Unknown)),
        (Some(studio.reveal()), publish, Some("door"), Ok("studio")),
        (Some(studio.reveal()), publish, Some("interview-7"), Ok("studio")),
        (Some(studio.reveal()), publish, None, Ok("studio")),
        (Some(studio.reveal()), publish, Some("other"), Err(Denied::Forbidden)),
        (Some(studio.reveal()), view, Some("door"), Err(Denied::Forbidden)),
        (Some(old.reveal()), publish, Some("door"), Err(Denied::Expired)),
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
fn who_is_asked_follows_from_what_is_configured() {
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
