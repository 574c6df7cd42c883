//! The whole route table, and what stands around it: there is no way to add a route without what it needs.

use crate::http::api::{events, openapi, ops, recordings, streams};
use crate::http::error;
use crate::http::gate::{authorize, login, middleware};
use crate::http::listen::in_flight;
use crate::http::pages::assets;
use crate::http::publish::{chunks, signal, upload, whip};
use crate::http::route::Needs::{
    Admin, Any, Login, Nothing, Probe, Publish, PublishOrSecret, RecordingOrLink, Recordings, View,
};
use crate::http::route::{HEALTHZ, Needs, READYZ, Route, StreamIn};
use crate::http::state::State;
use crate::http::watch::{live, mjpeg, mjpeg_playback};
use crate::ingest::mjpeg::DEFAULT;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

/// The stream that is published and watched without a name.
const UNNAMED: StreamIn = StreamIn::Fixed(DEFAULT);

fn table() -> Table {
    Table::default()
        .route("/", get(Login, assets::index))
        .route("/publish", get(Login, assets::publish))
        .route("/record", get(Login, assets::publish))
        .route("/camera", get(Login, assets::publish))
        .route("/recordings", get(Login, assets::recordings))
        .route("/watch/{name}", get(Login, assets::watch))
        .route("/login", get(Nothing, login::page).post(Nothing, login::enter))
        .route("/logout", post(Nothing, login::leave))
        .route("/js/{*path}", get(Nothing, assets::file))
        .route("/css/{*path}", get(Nothing, assets::file))
        .route("/img/{*path}", get(Nothing, assets::file))
        .route("/dev/reload", get(Nothing, assets::reload))
        .route("/signal", get(Publish, signal::open))
        .route("/chunks", get(Publish, chunks::open))
        .stream("/whip/{name}", StreamIn::Path, {
            options(Nothing, whip::endpoint_options).post(Publish, whip::publish)
        })
        .stream("/whip/{name}/{session}", StreamIn::Path, {
            patch(Publish, whip::patch).delete(Publish, whip::stop).options(Nothing, whip::session_options)
        })
        .stream(
            "/upload",
            UNNAMED,
            post(PublishOrSecret, upload::upload).delete(PublishOrSecret, upload::end),
        )
        .stream("/upload/{name}", StreamIn::Path, {
            post(PublishOrSecret, upload::upload).delete(PublishOrSecret, upload::end)
        })
        .stream("/stream", UNNAMED, get(View, mjpeg::stream))
        .stream("/stream/{name}", StreamIn::Path, get(View, mjpeg::stream))
        .stream("/snapshot/{file}", mjpeg::SNAPSHOT, get(View, mjpeg::snapshot))
        .stream("/live/{name}", live::FILE_OR_SOCKET, get(View, live::watch))
        .route("/api/session", get(Nothing, login::session))
        .route("/api/streams", get(View, streams::list))
        .stream("/api/streams/{name}", StreamIn::Path, delete(Admin, streams::kick))
        .stream("/api/streams/{name}/recording", StreamIn::Path, {
            post(Admin, streams::begin_file).delete(Admin, streams::stop_recording)
        })
        .route("/api/events", get(Any, events::open))
        .route("/api/openapi.json", get(Nothing, openapi::answer))
        .route("/api/recordings", get(Recordings, recordings::list))
        .route("/api/recordings/{id}", get(Recordings, recordings::get).delete(Admin, recordings::delete))
        .route("/api/recordings/{id}/hook", post(Admin, recordings::replay_hook))
        .route("/recordings/{file}", get(RecordingOrLink, recordings::download))
        .route("/recordings/{file}/pictures", get(RecordingOrLink, mjpeg_playback::show))
        .route(HEALTHZ, get(Probe, ops::healthz))
        .route(READYZ, get(Probe, ops::readyz))
        .route("/metrics", get(Admin, ops::metrics))
}

/// Every route there is.
pub fn all_routes() -> Vec<Route> {
    table().0.into_iter().map(|(route, _)| route).collect()
}

/// All that is served: the routes, below `server.base_path`.
pub fn router(state: Arc<State>) -> Router {
    let enter = from_fn_with_state(state.clone(), middleware::enter);
    let routes = table()
        .into_router(&state)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        // Routes that take a body bound it themselves, with the contract's error.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), in_flight::hold))
        .layer(from_fn_with_state(state.clone(), middleware::check))
        // Outside the guard: what it refuses counts, too.
        .layer(from_fn(ops::count))
        .with_state(state);
    Router::new().fallback_service(routes).layer(enter)
}

/// The methods of a path, each with its needs and its handler.
#[derive(Default)]
struct Methods(Vec<(Method, Needs, MethodRouter<Arc<State>>)>);

macro_rules! methods {
    ($($name:ident $method:ident),*) => {$(
        fn $name<H: Handler<T, Arc<State>>, T: 'static>(needs: Needs, handler: H) -> Methods {
            Methods::default().$name(needs, handler)
        }
    )*
    impl Methods {$(
        fn $name<H: Handler<T, Arc<State>>, T: 'static>(mut self, needs: Needs, handler: H) -> Self {
            self.0.push((Method::$method, needs, on(MethodFilter::$method, handler)));
            self
        }
    )*}};
}
methods!(get GET, post POST, patch PATCH, delete DELETE, options OPTIONS);

/// All routes, on their way into a router.
#[derive(Default)]
struct Table(Vec<(Route, MethodRouter<Arc<State>>)>);

impl Table {
    fn route(self, path: &'static str, methods: Methods) -> Self {
        self.stream(path, StreamIn::Elsewhere, methods)
    }

    /// A route about one stream.
    fn stream(mut self, path: &'static str, stream: StreamIn, methods: Methods) -> Self {
        let routes = methods.0.into_iter();
        self.0
            .extend(routes.map(|(method, needs, handler)| (Route { method, path, needs, stream }, handler)));
        self
    }

    /// The router; before each handler stands [`authorize::admit`].
    fn into_router(self, state: &Arc<State>) -> Router<Arc<State>> {
        self.0.into_iter().fold(Router::new(), |router, (route, handler)| {
            let path = route.path;
            let admit = from_fn_with_state((state.clone(), Arc::new(route)), authorize::admit);
            router.route(path, handler.route_layer(admit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_names_a_stream_is_declared_to_and_probes_are_the_two() {
        for route in all_routes() {
            let names = route.path.contains("{name}") && route.needs.permission().is_some();
            assert!(!names || route.stream != StreamIn::Elsewhere, "{}", route.path);
            assert_eq!(route.needs == Probe, matches!(route.path, HEALTHZ | READYZ), "{}", route.path);
        }
    }
}
