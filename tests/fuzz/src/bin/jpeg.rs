#![no_main]

#[path = "../../targets/jpeg.rs"]
mod jpeg;

libfuzzer_sys::fuzz_target!(|data: &[u8]| jpeg::run(data));
