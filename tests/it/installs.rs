//! The image and the unit, as far as that goes without an engine and without systemd: what they copy is
//! there, and what they set is understood.

use std::path::Path;
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// `ONRECORD__…=…` wherever it stands in a text.
fn variables(text: &str) -> Vec<(&str, &str)> {
    let words = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let words = words.map(|word| word.trim_start_matches("Environment="));
    words.filter(|word| word.starts_with("ONRECORD__")).filter_map(|word| word.split_once('=')).collect()
}

/// Exit code and words of `onrecord check` with these variables, in a folder that holds nothing.
fn check(variables: &[(&str, &str)], settings: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    command.arg("check").envs(variables.iter().copied()).current_dir(folder.path()).stdin(Stdio::null());
    let free = ["server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0", "record.dir=records"];
    for setting in free.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

#[test]
fn what_the_image_is_built_from_is_there_and_reaches_the_build() {
    let ignore = read(".dockerignore");
    let let_through: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let dockerfile = read("config/Dockerfile");
    let copies = dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
    let mut sources = 0;
    for line in copies {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(Path::new(ROOT).join(source).exists(), "{source} is not there: {line}");
            assert!(let_through.contains(source), "{source} is kept back by .dockerignore");
            sources += 1;
        }
    }
    assert!(sources >= 5, "{sources}");
    for script in ["hooks/on_record_hook.sh", "hooks/s3_upload.sh", "hooks/webhook.sh"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &Path::new(ROOT).join(script).metadata().unwrap().permissions(),
        );
        assert_eq!(mode & 0o111, 0o111, "{script} can't be run");
    }
}

#[test]
fn what_the_image_and_the_unit_set_is_understood() {
    for (file, count) in [("config/Dockerfile", 3), ("config/onrecord.service", 1)] {
        let text = read(file);
        let variables = variables(&text);
        assert_eq!(variables.len(), count, "{file}: {variables:?}");
        let (code, said) = check(&variables, &[]);
        assert_eq!(code, 0, "{file}: {said}");
    }
}

#[test]
fn an_image_without_a_word_about_who_is_served_says_what_to_do() {
    let dockerfile = read("config/Dockerfile");
    let output = Command::new(env!("CARGO_BIN_EXE_onrecord"))
        .envs(variables(&dockerfile))
        .args(["serve", "--set", "record.dir=records"])
        .current_dir(tempfile::tempdir().unwrap().path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("auth.mode"), "{said}");
}
