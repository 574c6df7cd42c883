//! All integration tests in one binary: it links once, and shares what it stands on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measure"
)]

mod support;

#[path = "it/harness.rs"]
mod harness;

#[path = "it/repair.rs"]
mod repair;
