//! All integration tests in one binary: it links once, and shares what it stands on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measure"
)]

mod support;

#[path = "it/browser/mod.rs"]
mod browser;
#[path = "it/chunks.rs"]
mod chunks;
#[path = "it/cli.rs"]
mod cli;
#[path = "it/doors.rs"]
mod doors;
#[path = "it/harness.rs"]
mod harness;
#[path = "it/hooks.rs"]
mod hooks;
#[path = "it/life.rs"]
mod life;
#[path = "it/network/mod.rs"]
mod network;
#[path = "it/repair.rs"]
mod repair;
#[path = "it/wire.rs"]
mod wire;
