//! Every input in `tests/fuzz/corpus` through its target: what the fuzzers start from, and once found.

/// A test for each target, named as it is.
macro_rules! replay {
    ($($path:literal $name:ident),* $(,)?) => {$(
        #[path = $path]
        mod $name;

        #[test]
        fn $name() {
            replay(stringify!($name), $name::run);
        }
    )*};
}

replay! {
    "../../tests/fuzz/targets/chunks.rs" chunks,
    "../../tests/fuzz/targets/config.rs" config,
    "../../tests/fuzz/targets/jpeg.rs" jpeg,
    "../../tests/fuzz/targets/mp4.rs" mp4,
    "../../tests/fuzz/targets/rtp.rs" rtp,
    "../../tests/fuzz/targets/sdp.rs" sdp,
    "../../tests/fuzz/targets/signal.rs" signal,
    "../../tests/fuzz/targets/srtp.rs" srtp,
    "../../tests/fuzz/targets/tcp.rs" tcp,
    "../../tests/fuzz/targets/webm.rs" webm,
}

fn replay(name: &str, run: fn(&[u8])) {
    let folder = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{folder} holds nothing");
}
