//! L6: builds and runs the server; start and stop order, with the reasons.

use crate::config::Config;
use std::io::Write;

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the server until it is told to stop.
pub async fn run(config: Config, _dev: bool) -> Result<(), Error> {
    std::io::stdout().write_all(config.banner(config.server.bind).as_bytes())?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// What would keep the server from working, and what to do about it.
pub fn check(_config: &Config) -> Vec<String> {
    Vec::new()
}
