#![no_main]

#[path = "../../targets/mp4.rs"]
mod mp4;

libfuzzer_sys::fuzz_target!(|data: &[u8]| mp4::run(data));
