//! The table of recordings and the tools that people read them with, which takes a machine of its own:
//! `cargo test --release --test table -- --nocapture` prints it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measure"
)]

mod support;

#[path = "it/tools/mod.rs"]
mod tools;
