//! An S3 server that isn't ours and checks signatures: one bucket, whose objects are files in a folder.

use axum::body::Body;
use axum::extract::{Path as Segments, Request, State};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use axum::{Router, serve};
use s3s::auth::SimpleAuth;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::{S3ServiceBuilder, SharedS3Service};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Its name.
pub const BUCKET: &str = "records";
pub const ACCESS_KEY: &str = "AKIDFORTESTS";
/// With what such a key may hold.
pub const SECRET_KEY: &str = "secret/of+the=tests";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub host: String,
    /// Still encoded.
    pub path: String,
    pub content_type: Option<String>,
    /// `x-amz-security-token`.
    pub token: Option<String>,
    /// Status of the answer.
    pub status: StatusCode,
}

impl Seen {
    fn of(request: &Request) -> Self {
        let text = |name: &str| {
            request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            method: request.method().to_string(),
            host: text("host").unwrap_or_default(),
            path: request.uri().path().to_owned(),
            content_type: text("content-type"),
            token: text("x-amz-security-token"),
            status: StatusCode::OK,
        }
    }
}

/// A running server; dropping it ends it.
pub struct Bucket {
    /// `http://127.0.0.1:PORT`; the same port answers for `localhost` with the bucket in the host's name.
    pub endpoint: String,
    pub port: u16,
    root: TempDir,
    seen: Log,
    task: JoinHandle<()>,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bucket {
    pub fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let address = listener.local_addr().unwrap();
        service.set_host(Hosts(address));
        let service = service.build().into_shared();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let router = Router::new()
            .route("/reply/{status}/{code}/{*rest}", any(refuse))
            .fallback(answer)
            .with_state((service, log));
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let task = tokio::spawn(async move { serve(listener, router).await.unwrap() });
        Self { endpoint: format!("http://{address}"), port: address.port(), root, seen, task }
    }

    /// An endpoint that answers everything with this error, for those our server doesn't know.
    pub fn refusing(&self, status: u16, code: &str) -> String {
        format!("{}/reply/{status}/{code}", self.endpoint)
    }

    /// An object's file.
    pub fn object(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    pub fn is_empty(&self) -> bool {
        super::user::files_in(&self.root.path().join(BUCKET)).is_empty()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What a shell script exports so that uploads go here.
    pub fn exports(&self) -> String {
        let variables = self.variables();
        variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect()
    }

    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("S3_ENDPOINT", self.endpoint.clone()),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

async fn answer(State((service, log)): State<(SharedS3Service, Log)>, request: Request) -> Response<Body> {
    let mut seen = Seen::of(&request);
    // By itself it would make a bucket of any name.
    let in_path = !seen.host.starts_with(&format!("{BUCKET}."));
    if in_path && seen.path.split('/').nth(1) != Some(BUCKET) {
        return refusal(404, "NoSuchBucket").into_response();
    }
    let response = service.as_ref().call(request.map(s3s::Body::http_body_unsync)).await.unwrap();
    seen.status = response.status();
    log.lock().unwrap().push(seen);
    response.map(Body::new)
}

async fn refuse(Segments((status, code, _)): Segments<(u16, String, String)>) -> impl IntoResponse {
    refusal(status, &code)
}

fn refusal(status: u16, code: &str) -> impl IntoResponse + use<> {
    let body = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>");
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/xml")], body)
}

/// The bucket in the path by address, in the host's name by `localhost`.
struct Hosts(SocketAddr);

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> s3s::S3Result<VirtualHost<'a>> {
        let domain = format!(".localhost:{}", self.0.port());
        Ok(match host.strip_suffix(&domain) {
            Some(bucket) => VirtualHost::with_bucket("localhost", bucket),
            None => VirtualHost::new(host),
        })
    }
}
