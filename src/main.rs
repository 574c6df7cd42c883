//! Arguments → configuration → app → exit code. No logic.

use clap::{Args, Parser, Subcommand};
use onrecord::app;
use onrecord::config::{self, Config, Sources};
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A usage or configuration error; clap uses the same.
const MISUSE: u8 = 2;

/// Self-hosted WebRTC ingest: a browser publishes, a seekable file comes out, your hook runs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server; the default
    Serve(Serve),
    /// Says what is wrong with configuration, hook, disk, ports, addresses and servers, and what to mend
    Check(Settings),
    /// Makes broken or unseekable WebM and Matroska files whole, with the same frames
    Repair {
        /// The files; each is replaced only once its repaired copy is checked
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Leave FILE as it is and write the repaired one here
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Fill holes of sound with silence, so that players and converters keep it in step; Opus only
        #[arg(long)]
        fill_silence: bool,
    },
    /// Removes recordings by the rules of [retention], as a running server does by itself
    Retention {
        /// Only list what would be removed, and why; may run beside a server
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Prints the HTTP API's OpenAPI document, the one at /api/openapi.json
    Openapi,
    /// What concerns the hook, on_record_hook
    #[command(subcommand)]
    Hook(HookCommand),
    /// What callers show, if the server asks them who they are
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token and its entry for the configuration, which only keeps a hash of it
    New(app::NewArgs),
    /// Signs a short-lived token (JWT) with auth.jwt.secret
    Sign {
        #[command(flatten)]
        sign: app::SignArgs,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Subcommand)]
enum HookCommand {
    /// Runs recordings' hooks again: by the server that uses record.dir, or here if none does
    Replay {
        /// Recordings, as /api/recordings and the manifests name them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Args)]
struct Serve {
    /// Read the pages from ./www and reload open ones on change
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Settings {
    /// Read this file in place of ./config/default.toml and ./config/local.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change one setting, as in --set server.bind=127.0.0.1:9000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// Those before the command, then those after it.
    fn sources(self, after: Self) -> Sources {
        Sources::new(after.config.or(self.config), [self.set, after.set].concat())
    }
}

fn main() -> ExitCode {
    let Cli { command, serve: before } = Cli::parse();
    let nothing = Settings { config: None, set: Vec::new() };
    match command {
        None => serve(before.settings.sources(nothing), before.dev),
        Some(Command::Serve(after)) => {
            serve(before.settings.sources(after.settings), before.dev || after.dev)
        }
        Some(Command::Check(after)) => check(before.settings.sources(after)),
        Some(Command::Repair { files, output: Some(_), .. }) if files.len() > 1 => {
            fail(MISUSE, "--output is for one FILE at a time")
        }
        Some(Command::Repair { files, output, fill_silence }) => {
            if app::repair(&files, output.as_deref(), fill_silence) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Some(Command::Retention { dry_run, settings }) => {
            brief(before.settings.sources(settings), async |config| app::retention(config, dry_run).await)
        }
        Some(Command::Openapi) => match app::openapi() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, error),
        },
        Some(Command::Hook(HookCommand::Replay { ids, settings })) => {
            brief(before.settings.sources(settings), async |config| app::replay(config, &ids).await)
        }
        Some(Command::Token(TokenCommand::New(new))) => told(app::new_token(new)),
        Some(Command::Token(TokenCommand::Sign { sign, settings })) => {
            match Config::load(&before.settings.sources(settings)) {
                Ok(config) => told(app::sign_token(&config, sign)),
                Err(problems) => fail(MISUSE, problems),
            }
        }
    }
}

/// Runs something that ends by itself; false is failure.
fn brief(sources: Sources, run: impl AsyncFnOnce(&Config) -> Result<bool, app::Error>) -> ExitCode {
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(problems) => return fail(MISUSE, problems),
    };
    // What went wrong is worth a line beside the command's own output, what goes on is not.
    let log = config::Log { level: "warn".to_owned(), ..config.log.clone() };
    let logging = match log.start() {
        Ok(logging) => logging,
        Err(error) => return fail(1, error),
    };
    let run = || -> anyhow::Result<bool> { Ok(app::block_on(run(&config))?) };
    let done = run();
    drop(logging);
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(1, format_args!("{error:#}")),
    }
}

fn serve(sources: Sources, dev: bool) -> ExitCode {
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(problems) => return fail(MISUSE, problems),
    };
    let logging = match config.log.start() {
        Ok(logging) => logging,
        Err(error) => return fail(1, error),
    };
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let run = || -> anyhow::Result<()> { Ok(app::serve(config, dev)?) };
    let done = run();
    // The log first, then why it ended.
    drop(logging);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, format_args!("{error:#}")),
    }
}

fn check(sources: Sources) -> ExitCode {
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(problems) => return fail(MISUSE, problems),
    };
    let report = app::check(&config);
    let mut out = std::io::stdout();
    let verdict = report.problems.is_empty().then(|| "everything is in order".to_owned());
    for line in report.problems.iter().chain(&verdict).chain(&report.notes).chain(&config.warnings) {
        // A closed standard output changes nothing about the exit code.
        let _ = writeln!(out, "{line}");
    }
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(done: Result<(), String>) -> ExitCode {
    done.map_or_else(|reason| fail(MISUSE, reason), |()| ExitCode::SUCCESS)
}

fn fail(code: u8, reason: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "onrecord: {reason}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_are_taken_before_and_after_the_command_the_later_ones_stronger() {
        Cli::command().debug_assert();
        let line = "onrecord --set a.b=1 --config one serve --dev --set a.b=2 --set c.d=3 --config two";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Some(Command::Serve(after)) = cli.command else { panic!("not serve") };
        assert!(after.dev);
        let sources = cli.serve.settings.sources(after.settings);
        assert_eq!(sources.set, ["a.b=1", "a.b=2", "c.d=3"]);
        assert_eq!(sources.file, Some("two".into()));
        let cli = Cli::try_parse_from(["onrecord", "--dev", "--config", "one"]).unwrap();
        assert!(cli.command.is_none() && cli.serve.dev);
        assert_eq!(cli.serve.settings.config, Some("one".into()));
    }

    #[test]
    fn a_bad_configuration_is_exit_code_2() {
        let bad = || Sources::new(None, vec!["hooks.concurrency=0".to_owned()]);
        assert_eq!(check(bad()), ExitCode::from(MISUSE));
        assert_eq!(serve(bad(), false), ExitCode::from(MISUSE));
    }
}
