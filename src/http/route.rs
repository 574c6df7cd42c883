//! Routes, each with what a caller needs: there is no way to add one without.

use crate::auth::Permission;
use crate::http::gate::authorize;
use crate::http::state::State;
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, from wherever it asks and with auth off too, since probes of containers come from other
    /// addresses: it is told that the server is there, and no more.
    Probe,
    /// Nothing: it is nobody's secret, or the handler asks by itself.
    Nothing,
    /// A credential of whatever kind. A browser without one is sent to log in.
    Login,
    /// A credential of whatever kind: the handler leaves out what it doesn't allow.
    Any,
    /// [`Permission::Publish`].
    Publish,
    /// [`Permission::View`].
    View,
    /// [`Permission::Recordings`].
    Recordings,
    /// [`Permission::Admin`].
    Admin,
}

impl Needs {
    /// The permission it is.
    pub fn permission(self) -> Option<Permission> {
        match self {
            Self::Probe | Self::Nothing | Self::Login | Self::Any => None,
            Self::Publish => Some(Permission::Publish),
            Self::View => Some(Permission::View),
            Self::Recordings => Some(Permission::Recordings),
            Self::Admin => Some(Permission::Admin),
        }
    }
}

/// One method of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; HEAD goes with GET.
    pub method: Method,
    /// The path, as the router has it: `/whip/{name}`.
    pub path: &'static str,
    /// What it needs.
    pub needs: Needs,
}

/// The methods of a path, each with its needs and its handler.
#[derive(Default)]
pub(super) struct Methods(Vec<(Method, Needs, MethodRouter<Arc<State>>)>);

macro_rules! methods {
    ($($name:ident $method:ident),*) => {$(
        pub(super) fn $name<H: Handler<T, Arc<State>>, T: 'static>(needs: Needs, handler: H) -> Methods {
            Methods::default().$name(needs, handler)
        }
    )*
    impl Methods {$(
        pub(super) fn $name<H: Handler<T, Arc<State>>, T: 'static>(mut self, needs: Needs, handler: H) -> Self {
            self.0.push((Method::$method, needs, on(MethodFilter::$method, handler)));
            self
        }
    )*}};
}
methods!(get GET, post POST, patch PATCH, delete DELETE, options OPTIONS);

/// All routes, on their way into a router.
#[derive(Default)]
pub(super) struct Table(Vec<(&'static str, Methods)>);

impl Table {
    pub fn route(mut self, path: &'static str, methods: Methods) -> Self {
        self.0.push((path, methods));
        self
    }

    pub fn list(&self) -> Vec<Route> {
        let methods = self.0.iter().flat_map(|(path, methods)| methods.0.iter().map(move |one| (*path, one)));
        methods
            .map(|(path, (method, needs, _))| Route { method: method.clone(), path, needs: *needs })
            .collect()
    }

    /// The router; before each handler stands [`authorize::admit`].
    pub fn into_router(self, state: &Arc<State>) -> Router<Arc<State>> {
        self.0.into_iter().fold(Router::new(), |router, (path, methods)| {
            methods.0.into_iter().fold(router, |router, (method, needs, handler)| {
                let one = Arc::new(Route { method, path, needs });
                let admit = from_fn_with_state((state.clone(), one), authorize::admit);
                router.route(path, handler.route_layer(admit))
            })
        })
    }
}
