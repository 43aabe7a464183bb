//! From a request to an answer: who asks, may they, what do they want, is there room to do it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Response, header};
use axum::routing::{MethodFilter, MethodRouter, on};
use everpoint_app::AppError;
use everpoint_core::FailureClass;
use tokio::sync::Semaphore;

use super::answer::Refusal;
use super::call::{self, Call};
use super::fields::Fields;
use crate::config::api::Scope;
use crate::metrics::Measure;

use super::routes::{Guard, ROUTES, Route, Verb};
use super::{AT_ONCE, Api};

/// Largest body: the longest request is a few labels.
const LARGEST_BODY: usize = 64 << 10;
/// How long the body of a request may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Shared {
    api: Arc<Api>,
    room: Arc<Semaphore>,
}

/// The router of all endpoints.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let shared = Shared { api, room: Arc::new(Semaphore::new(AT_ONCE)) };
    let mut by_path: BTreeMap<&str, MethodRouter<Shared>> = BTreeMap::new();
    for route in ROUTES {
        let filter = match route.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
        };
        let handler = move |State(shared): State<Shared>, parts: RawPathParams, request: Request| {
            answer(shared, route, parts, request)
        };
        let methods = by_path.remove(route.path).unwrap_or_default();
        by_path.insert(route.path, methods.merge(on(filter, handler)));
    }
    let mut router = Router::new();
    for (path, methods) in by_path {
        let allowed: Vec<&str> =
            ROUTES.iter().filter(|route| route.path == path).map(|route| route.verb.word()).collect();
        let allowed = allowed.join(", ");
        router = router.route(path, methods.fallback(move |method: Method| wrong_method(method, allowed)));
    }
    router.fallback(unknown).with_state(shared)
}

async fn wrong_method(method: Method, allowed: String) -> Response<Body> {
    let message = format!("this address takes {allowed}, not {method}");
    let error = AppError::new("api.method", FailureClass::Usage, "answer", "the request", message);
    let mut response = Refusal::new(405, error).response();
    if let Ok(value) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

async fn unknown() -> Response<Body> {
    let error =
        AppError::new("api.not_found", FailureClass::Usage, "answer", "the request", "no such address");
    Refusal::new(404, error.hint("all addresses stand in /openapi.json")).response()
}

async fn answer(
    shared: Shared,
    route: &'static Route,
    parts: RawPathParams,
    request: Request,
) -> Response<Body> {
    let path: BTreeMap<String, String> =
        parts.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let metrics = Arc::clone(&shared.api.metrics);
    let response = admitted(shared, route, path, request).await.unwrap_or_else(Refusal::response);
    metrics.count(Measure::Requests, &[route.path, response.status().as_str()]);
    response
}

async fn admitted(
    shared: Shared,
    route: &'static Route,
    path: BTreeMap<String, String>,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    match route.guard {
        Guard::Open => {}
        Guard::Scope(scope) => {
            own_host(&shared.api, request.headers())?;
            let header = text(request.headers(), &header::AUTHORIZATION);
            let who = shared.api.access.check(header, scope)?;
            if scope == Scope::Operate {
                tracing::info!(who, "API: {} {}", route.verb.word(), request.uri().path());
            }
        }
    }
    let query = Fields::of_query(request.uri().query().unwrap_or_default());
    let kind = text(request.headers(), &header::CONTENT_TYPE).map(str::to_owned);
    let bytes = read(request.into_body()).await?;
    let body = call::body(kind.as_deref(), &bytes)?;
    let call = Call { path, query, body };
    let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
        let error =
            AppError::new("api.busy", FailureClass::Failed, "answer", "the request", "too many at once");
        return Err(Refusal::new(503, error.hint("come again in a few seconds")));
    };
    let work = tokio::task::spawn_blocking(move || {
        // The place is free when the work has ended, not when the caller has lost patience.
        let _permit = permit;
        catch_unwind(AssertUnwindSafe(|| (route.run)(&shared.api, call)))
    });
    match tokio::time::timeout(ANSWER_TIME, work).await {
        Ok(Ok(Ok(answered))) => answered.map(super::answer::Answer::response),
        Ok(_) => {
            let error =
                AppError::new("internal", FailureClass::Failed, "answer", "the request", "it broke off");
            Err(Refusal::new(500, error))
        }
        Err(_) => {
            let message = format!("it takes longer than {} s", ANSWER_TIME.as_secs());
            let error = AppError::new("api.timeout", FailureClass::Failed, "answer", "the request", message);
            Err(Refusal::new(504, error))
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Without tokens a page in a browser of this machine could read the answers under a name of its own that leads here;
/// so only names of this machine are answered then.
fn own_host(api: &Api, headers: &HeaderMap) -> Result<(), Refusal> {
    if api.access.is_guarded() {
        return Ok(());
    }
    let host = text(headers, &header::HOST).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    let message = "without tokens it answers only to localhost and addresses";
    let error = AppError::new("api.host", FailureClass::Usage, "answer", "the request", message);
    Err(Refusal::new(403, error.hint("configure [api] tokens to use names")))
}

async fn read(body: Body) -> Result<bytes::Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIME, to_bytes(body, LARGEST_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let message = format!("the body is larger than {} KiB, or broke off", LARGEST_BODY >> 10);
            let error =
                AppError::new("api.body", FailureClass::Usage, "read", "the body of the request", message);
            Err(Refusal::new(413, error))
        }
        Err(_) => {
            let error = AppError::new(
                "api.timeout",
                FailureClass::Usage,
                "read",
                "the body of the request",
                "it does not arrive",
            );
            Err(Refusal::new(408, error))
        }
    }
}
