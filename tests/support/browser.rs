//! A real browser, headless and with a fake camera and microphone: Chromium, driven through chromedriver, or
//! Firefox, through geckodriver.

use axum::http::Method;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// A browser that encodes video fills a core: two at a time would starve each other's clocks.
static ONE: Mutex<()> = Mutex::const_new(());

const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    // Containers often have a /dev/shm of 64 MB, which a few decoded pictures fill.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--window-size=1280,900",
];
/// Answers the question for camera and microphone with yes.
pub const ALLOW: &str = "--use-fake-ui-for-media-stream";

/// How often a page is looked at while something is waited for.
const POLL: Duration = Duration::from_millis(50);
/// How long one command may take: a loaded machine starts a browser slowly.
const COMMAND: Duration = Duration::from_secs(60);

/// A running browser; dropping it ends it and its driver.
pub struct Browser {
    client: Client,
    driver: Child,
    folder: TempDir,
    /// Whether the driver hands out what pages write to the console.
    tells: bool,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    /// Chromium, with camera and microphone allowed.
    pub async fn start() -> Self {
        Self::with(&[ALLOW]).await
    }

    /// Chromium with these flags more.
    pub async fn with(flags: &[&str]) -> Self {
        Self::chromium(flags, &[]).await
    }

    /// Chromium with these flags and variables more, and a new profile. Waits until no other test has a browser.
    pub async fn chromium(flags: &[&str], environment: &[(&str, String)]) -> Self {
        let one = ONE.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let downloads = folder.path().join("downloads");
        std::fs::create_dir(&downloads).unwrap();
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let args: Vec<&str> = FLAGS.iter().chain(flags).copied().chain([profile.as_str()]).collect();
        let capabilities = json!({
            "goog:chromeOptions": {
                "args": args,
                "prefs": { "download.default_directory": downloads, "download.prompt_for_download": false },
            },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": COMMAND.as_millis() as u64, "pageLoad": COMMAND.as_millis() as u64 },
        });
        let (client, driver) = drive("chromedriver", &[], environment, capabilities).await;
        Self { client, driver, folder, tells: true, _one: one }
    }

    /// Firefox, with camera and microphone allowed.
    pub async fn firefox() -> Self {
        Self::firefox_with(&[]).await
    }

    /// The same with these variables in its environment, which it has from its driver.
    pub async fn firefox_with(environment: &[(&str, String)]) -> Self {
        let one = ONE.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let profiles = format!("--profile-root={}", folder.path().display());
        let capabilities = json!({
            "moz:firefoxOptions": {
                "args": ["-headless"],
                "prefs": {
                    "media.navigator.streams.fake": true,
                    "media.navigator.permission.disabled": true,
                    // By itself it leaves out loopback, which the server of a test listens on.
                    "media.peerconnection.ice.loopback": true,
                    "media.peerconnection.ice.obfuscate_host_addresses": false,
                    "media.autoplay.default": 0,
                    // A camera for this machine's pages, though they come without TLS.
                    "dom.securecontext.allowlist": super::namespaces::SERVER,
                    // The page that it makes of JSON is its own, and may not ask the server for anything.
                    "devtools.jsonview.enabled": false,
                },
            },
            "timeouts": { "script": COMMAND.as_millis() as u64, "pageLoad": COMMAND.as_millis() as u64 },
        });
        let (client, driver) = drive("geckodriver", &[&profiles], environment, capabilities).await;
        Self { client, driver, folder, tells: false, _one: one }
    }

    pub async fn goto(&self, url: &str) {
        in_time(url, self.client.goto(url)).await;
    }

    /// Presses what a selector names, as a mouse does.
    pub async fn click(&self, selector: &str) {
        let element = in_time(selector, self.client.find(Locator::Css(selector))).await;
        in_time(selector, element.click()).await;
    }

    /// What a selector's element shows.
    pub async fn text(&self, selector: &str) -> String {
        let element = in_time(selector, self.client.find(Locator::Css(selector))).await;
        in_time(selector, element.text()).await
    }

    /// Runs a script in the page; gives what it returns, a promise's value too.
    pub async fn run(&self, script: &str) -> Value {
        in_time(script, self.client.execute(script, Vec::new())).await
    }

    /// Waits until an expression is true in the page, and gives its value.
    pub async fn until(&self, expression: &str, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let value = self.run(&format!("return ({expression});")).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() > deadline {
                let page = self.run("return document.body.innerText;").await;
                let console = self.console().await;
                panic!("not within {patience:?}: {expression}\nthe page: {page}\nits console: {console:#?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What pages have written to the console since the last call, errors of loading among it.
    pub async fn console(&self) -> Vec<String> {
        if !self.tells {
            return vec!["its driver doesn't tell".to_owned()];
        }
        let command = Driver { path: "se/log", body: json!({ "type": "browser" }) };
        let entries = in_time("the console", self.client.issue_cmd(command)).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, method: &str, params: Value) -> Value {
        let body = json!({ "cmd": method, "params": params });
        in_time(method, self.client.issue_cmd(Driver { path: "goog/cdp/execute", body })).await
    }

    /// Ends the page's process, as a crash does.
    pub async fn crash(&self) {
        // chromedriver reports the crash or waits for an answer that no one can give.
        let crash = Driver { path: "goog/cdp/execute", body: json!({ "cmd": "Page.crash", "params": {} }) };
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.issue_cmd(crash)).await;
    }

    /// Stops all processes of the browser (`STOP`), as a laptop that sleeps does, or lets them go on
    /// (`CONT`). Until then it takes no commands.
    pub fn signal(&self, name: &str) {
        signal(name, &family_of(&self.driver)[1..]);
    }

    /// Another window, which the next commands go to; gives the one they went to.
    pub async fn new_window(&self) -> fantoccini::wd::WindowHandle {
        let before = in_time("the window", self.client.window()).await;
        let new = in_time("a window", self.client.new_window(false)).await;
        self.switch(new.handle).await;
        before
    }

    pub async fn window(&self) -> fantoccini::wd::WindowHandle {
        in_time("the window", self.client.window()).await
    }

    pub async fn switch(&self, window: fantoccini::wd::WindowHandle) {
        in_time("another window", self.client.switch_to_window(window)).await;
    }

    /// Goes into the page's first frame: commands are for what is in it from now on.
    pub async fn enter_frame(&self) {
        in_time("a frame", self.client.enter_frame(0)).await;
    }

    /// Closes the window that commands go to.
    pub async fn close_window(&self) {
        in_time("closing", self.client.close_window()).await;
    }

    /// Shows pages as a screen of this width does, dark or light.
    pub async fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// What the window shows, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        in_time("a screenshot", self.client.screenshot()).await
    }

    /// Waits for a download of that name and size.
    pub async fn downloaded(&self, file: &str, bytes: u64, patience: Duration) -> PathBuf {
        let path = self.folder.path().join("downloads").join(file);
        let deadline = Instant::now() + patience;
        while std::fs::metadata(&path).map(|about| about.len()).ok() != Some(bytes) {
            let there: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
            assert!(Instant::now() < deadline, "no {file} of {bytes} bytes within {patience:?}: {there:?}");
            tokio::time::sleep(POLL).await;
        }
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.driver);
    }
}

/// Starts a driver, and by it a browser.
async fn drive(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, String)],
    capabilities: Value,
) -> (Client, Child) {
    let mut driver = Command::new(program)
        .arg("--port=0")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run.sh installs it"));
    let port = port_of(driver.stdout.take().unwrap());
    let mut builder = ClientBuilder::new(HttpConnector::new());
    builder.capabilities(capabilities.as_object().unwrap().clone());
    let address = format!("http://127.0.0.1:{port}");
    match tokio::time::timeout(COMMAND, builder.connect(&address)).await {
        Ok(Ok(client)) => (client, driver),
        failed => {
            end(&mut driver);
            panic!("{program} starts no browser: {failed:?}");
        }
    }
}

/// Ends a driver and all it has started.
fn end(driver: &mut Child) {
    signal("KILL", &family_of(driver));
    let _ = driver.wait();
}

/// A process and all it has started, the eldest first.
fn family_of(driver: &Child) -> Vec<String> {
    let mut pids = vec![driver.id().to_string()];
    let mut seen = 0;
    while seen < pids.len() {
        let children = children_of(&pids[seen]);
        pids.extend(children);
        seen += 1;
    }
    pids
}

fn signal(name: &str, pids: &[String]) {
    let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
}

fn children_of(pid: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(Path::new("/proc").join(pid).join("task"));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The port a driver says it listens on; what else it says is thrown away.
fn port_of(output: ChildStdout) -> u16 {
    let (found, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // chromedriver, geckodriver.
            let said = ["successfully on port ", "Listening on 127.0.0.1:"];
            if let Some((_, rest)) = said.into_iter().find_map(|words| line.split_once(words)) {
                let _ = found.send(rest.trim_end_matches('.').parse().unwrap());
            }
        }
    });
    port.recv_timeout(COMMAND).expect("a driver says its port")
}

async fn in_time<T, E: Debug>(what: &str, command: impl Future<Output = Result<T, E>>) -> T {
    match tokio::time::timeout(COMMAND, command).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{what}: {error:?}"),
        Err(_) => panic!("{what}: the browser says nothing for {COMMAND:?}"),
    }
}

/// A command of chromedriver beyond the standard.
#[derive(Debug)]
struct Driver {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Driver {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
