#![no_main]

#[path = "../../targets/webm.rs"]
mod webm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| webm::run(data));
