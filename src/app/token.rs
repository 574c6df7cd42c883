//! `onrecord token`: makes tokens for `auth.tokens`, and signs short-lived ones.

use crate::auth::{self, Grant, NewToken, Pattern, Permission, Token};
use crate::base::units::parse_duration;
use crate::config::Config;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// What a token is good for.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Permissions {
    /// Push streams in
    #[arg(long)]
    publish: bool,
    /// Watch live streams
    #[arg(long)]
    view: bool,
    /// List, play and download recordings
    #[arg(long)]
    recordings: bool,
    /// Everything, deleting among it
    #[arg(long)]
    admin: bool,
}

impl Permissions {
    fn list(&self) -> Vec<Permission> {
        let all = [
            (self.publish, Permission::Publish),
            (self.view, Permission::View),
            (self.recordings, Permission::Recordings),
            (self.admin, Permission::Admin),
        ];
        all.into_iter().filter_map(|(wanted, permission)| wanted.then_some(permission)).collect()
    }
}

/// `onrecord token new`.
#[derive(Args)]
pub struct NewArgs {
    /// Whose it is, for the log
    #[arg(long)]
    name: String,
    #[command(flatten)]
    permissions: Permissions,
    /// Names of streams it is good for, * standing for any characters; may be repeated; all without
    #[arg(long, value_name = "PATTERN")]
    streams: Vec<Pattern>,
    /// How long it is good, such as 30d; for ever without
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

/// `onrecord token sign`.
#[derive(Args)]
pub struct SignArgs {
    #[command(flatten)]
    permissions: Permissions,
    /// Names of streams it is good for, * standing for any characters; may be repeated; all without
    #[arg(long, value_name = "PATTERN")]
    streams: Vec<Pattern>,
    /// How long it is good, such as 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    lifetime: Duration,
    /// Whose it is, for the log (sub)
    #[arg(long, value_name = "NAME", default_value = "onrecord token sign")]
    name: String,
}

/// Makes a token: shown now and never again, since only its hash is kept.
pub fn new_token(new: NewArgs) -> Result<(), String> {
    let NewArgs { name, permissions, streams, expires } = new;
    let made = NewToken::generate();
    let expires = match expires {
        Some(expires) => {
            let at = Timestamp::now().checked_add(expires);
            // To the second: more would only be harder to read.
            Some(at.and_then(|at| Timestamp::from_second(at.as_second())).map_err(
                |_| "--expires: expected a time that has a date; leave it out for a token without an end",
            )?)
        }
        None => None,
    };
    let token = Token { name, hash: made.hash(), permissions: permissions.list(), streams, expires };
    let entry = entry(&token);
    let config = auth::Config { tokens: vec![token], ..auth::Config::default() };
    if let Some((_, expected)) = config.problems().pop() {
        return Err(expected);
    }
    say(&format!(
        "The token, shown only now:\n\n    {}\n\nIts entry, to go to the end of config/local.toml:\n\n{entry}",
        made.reveal()
    ));
    Ok(())
}

/// An entry of `auth.tokens` as TOML, one table each: any number can follow each other in a file.
fn entry(token: &Token) -> String {
    // JSON's strings are TOML's, as far as names and patterns go: they hold no control characters.
    let (name, hash) = (json!(token.name), json!(token.hash));
    let mut entry = format!("[[auth.tokens]]\nname = {name}\nhash = {hash}\n");
    let _ = writeln!(entry, "permissions = {}", json!(token.permissions));
    if !token.streams.is_empty() {
        let _ = writeln!(entry, "streams = {}", json!(token.streams));
    }
    if let Some(expires) = token.expires {
        let _ = writeln!(entry, "expires = \"{expires}\"");
    }
    entry
}

/// Signs a token with the configured secret.
pub fn sign_token(config: &Config, sign: SignArgs) -> Result<(), String> {
    let SignArgs { permissions, streams, lifetime, name } = sign;
    let grant = Grant {
        who: name.into(),
        permissions: permissions.list(),
        streams: if streams.is_empty() { vec![Pattern::any()] } else { streams },
        expires: None,
    };
    say(&format!("{}\n", auth::sign(&config.auth.jwt, &grant, Timestamp::now(), lifetime)?));
    Ok(())
}

/// A closed standard output changes nothing about the exit code.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
