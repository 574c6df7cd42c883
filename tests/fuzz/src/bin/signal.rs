#![no_main]

#[path = "../../targets/signal.rs"]
mod signal;

libfuzzer_sys::fuzz_target!(|data: &[u8]| signal::run(data));
