//! What a route declares beside its handler: what a caller needs, and where the stream's name stands.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::http::error::ApiError;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, from any address and with auth off too, since probes of containers come from other
    /// addresses: the answer is that the server is there, and no more.
    Probe,
    /// Nothing: it is no secret, or the handler asks by itself.
    Nothing,
    /// Any credential. A browser without one is sent to log in.
    Login,
    /// Any credential: the handler leaves out what it doesn't allow.
    Any,
    /// [`Permission::Publish`].
    Publish,
    /// [`Permission::Publish`], or the secret that the stream's publisher has: each image is a request, and a
    /// grant that ends must not end a recording.
    PublishOrSecret,
    /// [`Permission::View`].
    View,
    /// [`Permission::Recordings`].
    Recordings,
    /// [`Permission::Recordings`], or a link to the `{file}` in the path.
    RecordingOrLink,
    /// [`Permission::Admin`].
    Admin,
}

impl Needs {
    /// The permission it is.
    pub fn permission(self) -> Option<Permission> {
        match self {
            Self::Probe | Self::Nothing | Self::Login | Self::Any => None,
            Self::Publish | Self::PublishOrSecret => Some(Permission::Publish),
            Self::View => Some(Permission::View),
            Self::Recordings | Self::RecordingOrLink => Some(Permission::Recordings),
            Self::Admin => Some(Permission::Admin),
        }
    }
}

/// The route of `/healthz`.
pub const HEALTHZ: &str = "/healthz";
/// The route of `/readyz`.
pub const READYZ: &str = "/readyz";

/// Where a request names the stream it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamIn {
    /// Not in its head: it is about none or several, or the handler reads the name from messages, a query
    /// or a manifest, and asks for the permission then.
    Elsewhere,
    /// It is always this one.
    Fixed(&'static str),
    /// In the path as `{name}`.
    Path,
    /// In the path, as the name of a file.
    File(FileIn),
}

/// A parameter of a path that is a stream's name with an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIn {
    /// The parameter.
    pub parameter: &'static str,
    /// With its dot.
    pub extension: &'static str,
    /// Whether the path of a WebSocket has the name alone.
    pub bare_for_sockets: bool,
    /// What a path without the extension is answered with.
    pub otherwise: (StatusCode, &'static str),
}

impl StreamIn {
    /// Reads the name; `None` where there is none to read.
    pub fn read(
        self,
        params: Option<&RawPathParams>,
        headers: &HeaderMap,
    ) -> Option<Result<StreamName, ApiError>> {
        let param = |wanted| {
            param(params, wanted)
                .ok_or_else(|| ApiError::new(ErrorCode::BadName, "a stream name is UTF-8, percent-encoded"))
        };
        let name = match self {
            Self::Elsewhere => return None,
            Self::Fixed(name) => Ok(name),
            Self::Path => param("name"),
            Self::File(file) => param(file.parameter).and_then(|text| {
                if file.bare_for_sockets && wants_websocket(headers) {
                    return Ok(text);
                }
                let (status, message) = file.otherwise;
                let other = || ApiError::with_status(status, ErrorCode::BadRequest, message);
                text.strip_suffix(file.extension).ok_or_else(other)
            }),
        };
        Some(name.and_then(|name| Ok(name.parse()?)))
    }
}

/// A parameter of the path, percent-decoded.
pub fn param<'a>(params: Option<&'a RawPathParams>, wanted: &str) -> Option<&'a str> {
    params?.iter().find_map(|(key, value)| (key == wanted).then_some(value))
}

/// Whether a request means to become a WebSocket.
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What [`StreamIn::read`] found, as an extension of the request.
#[derive(Clone)]
pub struct FoundStream(pub Result<StreamName, ApiError>);

/// The stream that a request is about, where its route declares one.
pub struct NamedStream(pub StreamName);

impl<S: Sync> FromRequestParts<S> for NamedStream {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::internal("a route doesn't declare where its stream's name stands");
        let FoundStream(found) = parts.extensions.get().cloned().ok_or_else(missing)?;
        found.map(Self)
    }
}

/// One method of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; HEAD goes with GET.
    pub method: Method,
    /// The path, as the router has it: `/whip/{name}`.
    pub path: &'static str,
    /// What a caller needs.
    pub needs: Needs,
    /// Where the stream's name stands.
    pub stream: StreamIn,
}
