//! A module imports only from layers below its own: the structure in `src/lib.rs`, held to.

use std::path::{Path, PathBuf};

/// Each module with all it may import, lowest first; `*` marks the two that may name WebRTC crates.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("media", &["base"]),
    ("rtp", &["base", "media"]),
    ("container", &["base", "media"]),
    ("disk", &["base"]),
    ("auth", &["base", "disk"]),
    ("catalog", &["base", "media", "disk"]),
    ("hook", &["base", "catalog"]),
    ("live", &["base", "media", "container"]),
    ("record", &["base", "media", "container", "disk", "catalog", "live"]),
    ("publish", &["base", "media", "container", "catalog", "live", "record"]),
    ("webrtc", &["base", "media", "rtp"]),
    ("ingest", &["base", "media", "container", "live", "record", "publish", "webrtc"]),
    (
        "http",
        &[
            "base", "disk", "auth", "media", "catalog", "live", "hook", "record", "publish", "webrtc",
            "ingest",
        ],
    ),
    ("config", &["base", "auth", "live", "hook", "record", "publish", "webrtc", "ingest", "http"]),
    ("fuzzing", &["base", "media", "container", "webrtc", "ingest", "http"]),
    (
        "app",
        &[
            "base", "disk", "auth", "media", "catalog", "live", "hook", "record", "publish", "webrtc",
            "ingest", "http", "config",
        ],
    ),
];

/// What a pure module must not name.
const IMPURE: &[&str] =
    &["tokio", "std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "rtc::", "webrtc::"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module_of(path: &Path, root: &Path) -> String {
    let relative = path.strip_prefix(root).expect("below src");
    let first = relative.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code without its tests and comments: what may be imported there is another matter.
fn code(path: &Path) -> String {
    if path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"))) {
        return String::new();
    }
    let text = std::fs::read_to_string(path).expect("a source file");
    // `mod tests;` may stand among the others, `mod tests {` is the end.
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_import_points_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let module = module_of(&path, &root);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module} has no layer: name it in src/lib.rs and here"));
            continue;
        };
        let code = code(&path);
        for piece in code.split("crate::").skip(1) {
            let target: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = LAYERS.iter().any(|(name, _)| *name == target);
            if known && target != module && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{}: {module} imports {target}", path.display()));
            }
        }
        let pure = matches!(module.as_str(), "media" | "rtp" | "container");
        for name in IMPURE.iter().filter(|name| pure && code.contains(**name)) {
            wrong.push(format!("{}: pure, but names {name}", path.display()));
        }
        let of_webrtc = path.starts_with(root.join("webrtc"));
        for name in ["use rtc::", "use webrtc::"].iter().filter(|name| !of_webrtc && code.contains(**name)) {
            wrong.push(format!("{}: only webrtc names the WebRTC crates, this says {name}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
}

/// Comments cite the invariants of `src/lib.rs` by their codes: each of those is there.
#[test]
fn every_code_that_a_comment_cites_is_defined() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs");
    let is_code = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().is_some_and(|letter| "STLD".contains(letter));
        first && word.len() == 2 && letters.all(|digit| digit.is_ascii_digit())
    };
    let defined: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("//! - ")?.split_once(':')).collect();
    let defined: Vec<_> = defined.into_iter().map(|(code, _)| code).filter(|code| is_code(code)).collect();
    assert_eq!(
        defined,
        ["S1", "S2", "S3", "S4", "S5", "S6", "T1", "T2", "T3", "T4", "L1", "L2", "D1", "D2", "D3", "D4"]
    );
    let (mut files, mut cited) = (Vec::new(), 0);
    sources(&root.join("src"), &mut files);
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let comments = text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment));
        for word in comments
            .flat_map(|comment| comment.split(|c: char| !c.is_alphanumeric()))
            .filter(|word| is_code(word))
        {
            assert!(defined.contains(&word), "{}: nothing says what {word} is", path.display());
            cited += 1;
        }
    }
    assert!(cited > defined.len(), "{cited}");
}

/// The crate's documentation sends its reader to files that are there.
#[test]
fn every_file_that_the_crate_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs");
    let comments: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let comments = comments.join("\n").replace("```", "");
    let is_path = |text: &&str| {
        text.contains('/')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('/')
            && !text.contains('\n')
    };
    let named: Vec<_> = comments.split('`').skip(1).step_by(2).filter(is_path).collect();
    for path in &named {
        let places = [format!("src/{path}.rs"), format!("src/{path}"), (*path).to_owned()];
        assert!(places.iter().any(|place| root.join(place).exists()), "nothing is at {path}");
    }
    assert!(named.len() > 40, "{named:?}");
}

/// The compiler forbids it; this holds who might want to change that, and what has a manifest of its own.
#[test]
fn no_code_of_ours_is_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("\nunsafe_code = \"forbid\"\n"), "Cargo.toml no longer forbids unsafe code");
    let mut files = Vec::new();
    for folder in ["src", "benches", "tests/it", "tests/support", "tests/fuzz/targets"] {
        sources(&root.join(folder), &mut files);
    }
    let forms = ["{", "fn ", "impl ", "extern ", "trait ", "_code)"].map(|rest| {
        let space = if rest.starts_with('_') { "" } else { " " };
        format!("unsafe{space}{rest}")
    });
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let found = forms.iter().find(|form| text.contains(*form));
        assert!(found.is_none(), "{}: {}", path.display(), found.expect("it is there"));
    }
}
