//! `hooks/s3_upload.sh`, against an S3 server that checks signatures.

use crate::support::bucket::{ACCESS_KEY, BUCKET, Bucket, SECRET_KEY};
use crate::support::server::Server;
use crate::support::user::{Api, Script, eventually, record};
use reqwest::StatusCode;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A hook has started, uploaded and said so, on a machine that has other things to do.
const UPLOADED: Duration = Duration::from_secs(60);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/s3_upload.sh");
/// What the script calls but uploaders.
const TOOLS: [&str; 16] = [
    "awk",
    "cat",
    "cut",
    "date",
    "env",
    "grep",
    "head",
    "id",
    "od",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "tail",
    "tr",
    "wc",
];
/// More than one request may carry.
const OVER_AT_ONCE: u64 = (5 << 30) + 1;

/// A hook that uploads there, after these lines.
fn uploader(bucket: &Bucket, lines: &str) -> Script {
    Script::new(&format!("{}{lines}\nexec {SCRIPT} \"$@\"", bucket.exports()))
}

fn id(recording: &Value) -> &str {
    recording["id"].as_str().unwrap()
}

fn tail(attempt: &Value) -> &str {
    attempt["tail"].as_str().unwrap().trim()
}

/// Bound and not listening: nobody else can have its port, and connections to it are refused.
fn refusing() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket
}

fn endpoint(socket: &Socket) -> String {
    format!("http://{}", socket.local_addr().unwrap().as_socket().unwrap())
}

#[tokio::test]
async fn a_recording_is_in_the_bucket_byte_for_byte_whatever_it_is_called() {
    let bucket = Bucket::start();
    let script = uploader(&bucket, "export S3_PREFIX='записи 2026/a+b/' S3_MANIFEST=1");
    let server = Server::start(&[&script.setting()]);
    let odd = ["stream222", "интервью №7 + \"x\" & y", "100%25 ~!@#$^*()_=[]{1,2};:',.<>?|`é"];
    for name in odd {
        let recording = record(&server, name, 60).await;
        let manifest = Api::of(&server).hook(id(&recording), "done", UPLOADED).await;
        let file = manifest["file"].as_str().unwrap();
        let object = fs::read(bucket.object(&format!("записи 2026/a+b/{file}"))).unwrap();
        assert!(object == fs::read(server.records().join(file)).unwrap(), "{name}: other bytes");
        let json = Path::new(file).with_extension("json");
        let described = fs::read(bucket.object("записи 2026/a+b/").join(json)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&described).unwrap()["id"], recording["id"]);
        println!("{}", tail(&manifest["hook"]["attempts"][0]));
    }
    let seen = bucket.seen();
    assert!(seen.iter().all(|request| request.status == StatusCode::OK), "{seen:?}");
    let types: Vec<_> = seen.iter().filter(|request| request.method == "PUT").collect();
    let types: Vec<_> = types.iter().map(|request| request.content_type.as_deref().unwrap()).collect();
    assert_eq!(types, ["video/webm", "application/json"].repeat(odd.len()));
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_the_manifest_says_what_is_wrong() {
    let bucket = Bucket::start();
    let script = uploader(&bucket, "export AWS_SECRET_ACCESS_KEY=guessed/wrong");
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=1"]);
    let recording = record(&server, "secret", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "failed", UPLOADED).await;
    let attempt = &manifest["hook"]["attempts"][0];
    assert_eq!(attempt["exit"], 1);
    assert!(tail(attempt).contains("the secret key is wrong"), "{attempt}");
    assert!(tail(attempt).contains("(HTTP 403, SignatureDoesNotMatch)"), "{attempt}");
    assert!(bucket.is_empty(), "something was uploaded");
    assert!(!server.output().contains("guessed/wrong"), "the secret is in the log");
    assert_eq!(bucket.seen().len(), 1);
}

#[tokio::test]
async fn with_the_server_down_for_three_attempts_the_fourth_uploads() {
    let socket = refusing();
    let endpoint = endpoint(&socket);
    // The fourth attempt says that it is there and waits for the server.
    let script = Script::new(&format!(
        "[ $ONRECORD_ATTEMPT -lt 4 ] || {{ touch \"$here/fourth\"; until [ -e \"$here/up\" ]; do sleep 0.02; done; }}\n\
         export S3_ENDPOINT={endpoint} S3_BUCKET={BUCKET}\n\
         export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}\n\
         exec {SCRIPT} \"$@\""
    ));
    let server = Server::start(&[&script.setting(), "hooks.backoff=20ms"]);
    let recording = record(&server, "patience", 60).await;
    eventually("a fourth attempt", UPLOADED, async || script.file("fourth").exists().then_some(())).await;
    socket.listen(16).unwrap();
    let bucket = Bucket::on(socket.into());
    fs::write(script.file("up"), "").unwrap();
    let manifest = Api::of(&server).hook(id(&recording), "done", UPLOADED).await;
    let attempts = manifest["hook"]["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| (&attempt["n"], &attempt["exit"])).collect();
    assert_eq!(json!(ends), json!([[1, 1], [2, 1], [3, 1], [4, 0]]));
    for attempt in &attempts[..3] {
        assert!(tail(attempt).contains("no connection: is the server up"), "{attempt}");
    }
    let file = manifest["file"].as_str().unwrap();
    let object = fs::read(bucket.object(file)).unwrap();
    assert!(object == fs::read(server.records().join(file)).unwrap());
}

/// A folder with a file to upload and a `bin`, where the script is run as the server would.
struct Desk {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Desk {
    fn new(bucket: &Bucket) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a b.webm"), b"not quite a film").unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        let desk = Self { folder, variables: Vec::new() };
        TOOLS.iter().chain(&["curl"]).for_each(|tool| symlink(which(tool), desk.tool(tool)).unwrap());
        let path = ("PATH", desk.at("bin").into_os_string().into_string().unwrap());
        bucket.variables().into_iter().chain([path]).fold(desk, |desk, (name, value)| desk.with(name, &value))
    }

    /// An empty value unsets it.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.at("bin").join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("a b.webm")
    }

    /// Replaces a tool by this script.
    fn pretend(&self, tool: &str, body: &str) {
        let _ = fs::remove_file(self.tool(tool));
        fs::write(self.tool(tool), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.tool(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn upload(&self) -> Output {
        let mut command = tokio::process::Command::new(SCRIPT);
        command.env_clear().arg("a stream").arg(self.file()).stdin(Stdio::null());
        command.envs(self.variables.iter().filter(|(_, value)| !value.is_empty()).cloned());
        tokio::time::timeout(UPLOADED, command.output()).await.expect("an end").unwrap()
    }

    async fn uploads(&self) -> String {
        let output = self.upload().await;
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
        said
    }

    /// The one line that it failed with.
    async fn fails(&self, what: &str) -> String {
        let output = self.upload().await;
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), said.as_str()), (Some(1), ""), "{what}: {errors}");
        assert!(errors.starts_with("s3_upload: ") && errors.lines().count() == 1, "{what}: {errors}");
        assert!(!errors.contains(SECRET_KEY), "{what}: the secret is told: {errors}");
        errors
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a tool of this machine is.
fn which(tool: &str) -> PathBuf {
    let output = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output().unwrap();
    let path = PathBuf::from(text(&output.stdout).trim());
    assert!(path.is_absolute(), "{tool} is not installed");
    path
}

#[tokio::test]
async fn every_misconfiguration_has_a_line_that_says_what_to_do() {
    let bucket = Bucket::start();
    let refused = refusing();
    let refused = endpoint(&refused);
    let secure = bucket.endpoint.replace("http:", "https:");
    let no_such_file = ("AWS_SECRET_ACCESS_KEY", "");
    // What is set otherwise than it should be, and what the line has to say.
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("S3_BUCKET", "")], "S3_BUCKET is not set"),
        (&[("S3_ENDPOINT", "s3.example.org")], "doesn't begin with http:// or https://"),
        (&[("S3_PATH_STYLE", "maybe")], "S3_PATH_STYLE is neither 1 nor 0"),
        (&[("S3_TOOL", "scp")], "it can be curl, aws or rclone"),
        (&[("S3_TOOL", "rclone")], "S3_TOOL is rclone, which is not installed"),
        (&[("AWS_ACCESS_KEY_ID", "")], "no access key: set AWS_ACCESS_KEY_ID"),
        (&[("AWS_SECRET_ACCESS_KEY", "")], "no secret key: set AWS_SECRET_ACCESS_KEY"),
        (
            &[no_such_file, ("AWS_SECRET_ACCESS_KEY_FILE", "/nowhere/key")],
            "can't read /nowhere/key, which AWS_",
        ),
        (
            &[no_such_file, ("AWS_SECRET_ACCESS_KEY_FILE", "/dev/null")],
            "/dev/null, which AWS_SECRET_ACCESS_KEY_FILE names, is empty",
        ),
        (&[("S3_ENDPOINT", "http://nowhere.invalid")], "nowhere.invalid: no such host: check S3_ENDPOINT"),
        (&[("S3_ENDPOINT", &refused)], "no connection: is the server up"),
        (&[("S3_ENDPOINT", &secure)], "no secure connection"),
        (&[("AWS_ACCESS_KEY_ID", "AKIDUNKNOWN")], "does not know the access key"),
        (&[("AWS_SECRET_ACCESS_KEY", "wrong")], "the secret key is wrong"),
        (&[("S3_BUCKET", "another")], "there is no such bucket"),
        (&[("S3_ENDPOINT", &bucket.refusing(403, "AccessDenied"))], "these keys may not do that here"),
        (&[("S3_ENDPOINT", &bucket.refusing(403, "RequestTimeTooSkewed"))], "this machine's clock is wrong"),
        (&[("S3_ENDPOINT", &bucket.refusing(400, "ExpiredToken"))], "the session token has expired"),
        (&[("S3_ENDPOINT", &bucket.refusing(301, "PermanentRedirect"))], "in another region: mend S3_REGION"),
        (
            &[("S3_ENDPOINT", &bucket.refusing(400, "EntityTooLarge"))],
            "install aws or rclone, and set S3_TOOL",
        ),
        (&[("S3_ENDPOINT", &bucket.refusing(503, "SlowDown"))], "it may help to wait (HTTP 503, SlowDown)"),
        (&[("S3_ENDPOINT", &bucket.refusing(418, "Teapot"))], "no (HTTP 418, Teapot)"),
    ];
    for (changes, expected) in rows {
        let desk = Desk::new(&bucket);
        let desk = changes.iter().fold(desk, |desk, (name, value)| desk.with(name, value));
        let line = desk.fails(expected).await;
        print!("{line}");
        assert!(line.contains(expected), "{changes:?}: {line}");
    }
    assert!(bucket.is_empty());
}

#[tokio::test]
async fn a_missing_tool_or_file_has_a_line_too() {
    let bucket = Bucket::start();
    let desk = Desk::new(&bucket);
    desk.pretend("curl", "echo 'curl 7.74.0 (x86_64-pc-linux-gnu) libcurl/7.74.0'");
    assert!(desk.fails("an old curl").await.contains("install curl 7.88 or later, aws or rclone"));
    fs::remove_file(desk.tool("curl")).unwrap();
    assert!(desk.fails("no curl").await.contains("install curl 7.88 or later, aws or rclone"));
    let line = desk.with("S3_TOOL", "curl").fails("no curl, but asked for").await;
    assert!(line.contains("S3_TOOL is curl, but there is none of 7.88"), "{line}");

    let desk = Desk::new(&bucket);
    fs::remove_file(desk.file()).unwrap();
    assert!(desk.fails("no file").await.contains("a b.webm is gone"));
    fs::create_dir(desk.file()).unwrap();
    assert!(desk.fails("a folder").await.contains("can't be read by"));

    let desk = Desk::new(&bucket).with("S3_MANIFEST", "1");
    assert!(desk.fails("no manifest").await.contains("S3_MANIFEST asks for"));

    let desk = Desk::new(&bucket);
    fs::File::create(desk.file()).unwrap().set_len(OVER_AT_ONCE).unwrap();
    let line = desk.fails("five gibibytes and a byte").await;
    assert!(line.contains("curl can upload no more than 5 GiB: install aws or rclone"), "{line}");
}

#[tokio::test]
async fn keys_may_be_in_files_and_the_bucket_in_the_hosts_name() {
    let bucket = Bucket::start();
    let desk = Desk::new(&bucket).with("AWS_ACCESS_KEY_ID", "").with("AWS_SECRET_ACCESS_KEY", "");
    let keys =
        [("ACCESS_KEY_ID", ACCESS_KEY), ("SECRET_ACCESS_KEY", SECRET_KEY), ("SESSION_TOKEN", "t/o+k==")];
    let desk = keys.iter().fold(desk, |desk, (name, value)| {
        let file = desk.at(name);
        fs::write(&file, format!("{value}\r\n")).unwrap();
        desk.with(&format!("AWS_{name}_FILE"), file.to_str().unwrap())
    });
    let desk = desk.with("S3_ENDPOINT", &format!("http://localhost:{}/", bucket.port));
    let desk = desk.with("S3_PATH_STYLE", "0").with("S3_REGION", "eu-central-1").with("S3_PREFIX", "/x/");
    println!("{}", desk.uploads().await);
    assert_eq!(fs::read(bucket.object("x/a b.webm")).unwrap(), fs::read(desk.file()).unwrap());
    for request in bucket.seen() {
        assert_eq!(request.host, format!("{BUCKET}.localhost:{}", bucket.port));
        assert_eq!((request.path.as_str(), request.token.as_deref()), ("/x/a%20b.webm", Some("t/o+k==")));
    }
}

#[tokio::test]
async fn the_file_is_deleted_only_once_the_object_is_there_and_an_attempt_after_that_knows() {
    let bucket = Bucket::start();
    let wrong = Desk::new(&bucket).with("S3_DELETE_AFTER", "1").with("S3_BUCKET", "another");
    wrong.fails("no bucket").await;
    assert!(wrong.file().exists(), "deleted without being uploaded");
    let desk = wrong.with("S3_BUCKET", BUCKET).with("ONRECORD_BYTES", "16");
    assert!(desk.uploads().await.contains("16 bytes, deleted here"));
    assert!(!desk.file().exists() && bucket.object("a b.webm").exists());
    assert!(desk.uploads().await.contains("since an earlier attempt"));
    let line = desk.with("ONRECORD_BYTES", "17").fails("another size").await;
    assert!(line.contains("is gone"), "{line}");
}

#[tokio::test]
async fn no_secret_is_in_an_argument() {
    let bucket = Bucket::start();
    let desk = Desk::new(&bucket).with("AWS_SESSION_TOKEN", "token/of+tests");
    let curl = which("curl");
    desk.pretend(
        "curl",
        &format!("echo \"$@\" >> {}/told\nexec {} \"$@\"", desk.at("").display(), curl.display()),
    );
    desk.uploads().await;
    let told = fs::read_to_string(desk.at("told")).unwrap();
    assert!(told.contains("--config -"), "{told}");
    assert!(!told.contains(SECRET_KEY) && !told.contains("token/of+tests"), "{told}");
}

#[tokio::test]
async fn a_file_too_large_for_curl_goes_to_aws_or_rclone_with_the_keys_in_the_environment() {
    let bucket = Bucket::start();
    for (tool, key, line) in [
        ("aws", "AWS_SECRET_ACCESS_KEY", "s3 cp --only-show-errors"),
        ("rclone", "RCLONE_S3_SECRET_ACCESS_KEY", "copyto"),
    ] {
        let desk = Desk::new(&bucket);
        fs::File::create(desk.file()).unwrap().set_len(OVER_AT_ONCE).unwrap();
        let told = desk.at("told");
        desk.pretend(tool, &format!("echo \"$@\" > {0}\nenv >> {0}", told.display()));
        let said = desk.uploads().await;
        assert!(said.contains(&format!("with {tool} ({OVER_AT_ONCE} bytes)")), "{said}");
        let told = fs::read_to_string(told).unwrap();
        let (arguments, environment) = told.split_once('\n').unwrap();
        assert!(arguments.starts_with(line) && arguments.contains("video/webm"), "{arguments}");
        assert!(arguments.ends_with(&format!("{BUCKET}/a b.webm")), "{arguments}");
        assert!(!arguments.contains(SECRET_KEY), "{arguments}");
        assert!(environment.contains(&format!("{key}={SECRET_KEY}\n")), "{environment}");

        desk.pretend(tool, "echo trying >&2\necho 'fatal error: it broke' >&2\nexit 1");
        let line = desk.fails(tool).await;
        assert!(line.contains(&format!("{tool} failed: trying fatal error: it broke")), "{line}");
    }
}
