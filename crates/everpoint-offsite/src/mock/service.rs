//! The mock's requests and answers.
//!
//! `PUT` or `POST` of any path is an upload of the path's last part. `GET /list`, `GET /health`, `GET /stats`, and
//! `GET` of any other path downloads its last part. `PUT /clock` with microseconds since 1970 in the body sets the clock,
//! `DELETE /clock` lets it go again; these and `/stats` are no requests of a user and are not counted.

use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body::{Body as _, Frame, SizeHint};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Serialize;
use tokio::sync::mpsc;

use super::MockOptions;
use super::keep::{Keep, is_name};
use super::tally::{MockStats, Tally, moment};

/// Bytes of a download that are read at a time.
const CHUNK: usize = 1 << 16;
/// Longest body of a request that sets the clock.
const CLOCK_BODY: usize = 64;

/// What the mock's requests share.
pub(super) struct Service {
    keep: Keep,
    latency: Duration,
    state: Mutex<Changing>,
}

struct Changing {
    tally: Tally,
    now: Option<i64>,
    failure_rate: f64,
    draw: u64,
}

/// How an upload is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    BeforeTheBody,
    ThrownAway,
    KeptButDenied,
}

#[derive(Serialize)]
struct Listing<T> {
    files: Vec<T>,
}

impl Service {
    pub(super) fn open(options: &MockOptions) -> io::Result<Self> {
        let keep = Keep::open(options.dir.clone(), options.storage_limit)?;
        let tally = Tally::open(keep.dir(), options.calls, options.period.clone())?;
        let (failure_rate, draw) = (options.failure_rate, options.seed);
        let state = Mutex::new(Changing { tally, now: None, failure_rate, draw });
        Ok(Self { keep, latency: options.latency, state })
    }

    fn state(&self) -> MutexGuard<'_, Changing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_now(&self, now: Option<i64>) {
        self.state().now = now;
    }

    pub(super) fn set_failure_rate(&self, rate: f64) {
        self.state().failure_rate = rate;
    }

    pub(super) fn stats(&self) -> MockStats {
        let kept = self.keep.bytes().unwrap_or_default();
        let state = self.state();
        state.tally.stats(state.now(), kept)
    }

    /// Counts an upload and draws its fate.
    fn admit(&self, path: &str) -> io::Result<(bool, Option<Fault>)> {
        let mut state = self.state();
        let now = state.now();
        let admitted = state.tally.upload(now, path)?;
        Ok((admitted, state.fault()))
    }
}

impl Changing {
    fn now(&self) -> i64 {
        let machine = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        };
        self.now.unwrap_or_else(machine)
    }

    fn fault(&mut self) -> Option<Fault> {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let which = self.next() % 3;
        (share < self.failure_rate).then_some(match which {
            0 => Fault::BeforeTheBody,
            1 => Fault::ThrownAway,
            _ => Fault::KeptButDenied,
        })
    }

    /// SplitMix64: small, and the same everywhere for the same seed.
    fn next(&mut self) -> u64 {
        self.draw = self.draw.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.draw;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response {
    let mut response = match route(&service, request).await {
        Ok(response) => response,
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, format!("the mock failed: {error}\n")),
    };
    let now = service.state().now();
    if let Some(date) = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&moment(now))
        .ok()
        .and_then(|text| text.parse().ok())
    {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn route(service: &Service, request: Request) -> io::Result<Response> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/stats") => return json(&service.stats()),
        (&Method::PUT, "/clock") => return set_clock(service, request.into_body()).await,
        (&Method::DELETE, "/clock") => {
            service.set_now(None);
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        _ => {}
    }
    {
        let mut state = service.state();
        state.tally.requests = state.tally.requests.saturating_add(1);
    }
    match (request.method(), path.as_str()) {
        (&Method::GET, "/health") => Ok(say(StatusCode::OK, "ok\n".to_owned())),
        (&Method::GET, "/list") => json(&Listing { files: service.keep.list()? }),
        (&Method::PUT | &Method::POST, _) => upload(service, &path, request).await,
        (&Method::GET, _) => download(service, last(&path)),
        _ => Ok(say(StatusCode::METHOD_NOT_ALLOWED, "PUT, POST or GET\n".to_owned())),
    }
}

/// The clock stands still at what it is set to: tests move it on.
async fn set_clock(service: &Service, body: Body) -> io::Result<Response> {
    let bytes = axum::body::to_bytes(body, CLOCK_BODY).await.map_err(io::Error::other)?;
    match std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()) {
        Some(now) => {
            service.set_now(Some(now));
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        None => Ok(say(StatusCode::BAD_REQUEST, "send microseconds since 1970\n".to_owned())),
    }
}

async fn upload(service: &Service, path: &str, request: Request) -> io::Result<Response> {
    let (admitted, fault) = service.admit(path)?;
    tokio::time::sleep(service.latency).await;
    if !admitted {
        return Ok(say(StatusCode::TOO_MANY_REQUESTS, "no call is left in this period\n".to_owned()));
    }
    let name = last(path);
    if !is_name(name) {
        return Ok(say(StatusCode::BAD_REQUEST, "a file can't be called so\n".to_owned()));
    }
    if fault == Some(Fault::BeforeTheBody) {
        return Ok(say(StatusCode::SERVICE_UNAVAILABLE, "failed before the body was read\n".to_owned()));
    }
    let mut incoming = service.keep.begin()?;
    let mut body = request.into_body();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(io::Error::other)?;
        if let Ok(bytes) = frame.into_data()
            && !incoming.add(&bytes)?
        {
            return Ok(say(StatusCode::INSUFFICIENT_STORAGE, "the storage limit is reached\n".to_owned()));
        }
    }
    if fault != Some(Fault::ThrownAway) {
        service.keep.finish(incoming, name)?;
    }
    Ok(match fault {
        None => say(StatusCode::CREATED, "kept\n".to_owned()),
        Some(_) => say(StatusCode::INTERNAL_SERVER_ERROR, "failed after the body was read\n".to_owned()),
    })
}

fn download(service: &Service, name: &str) -> io::Result<Response> {
    if !is_name(name) {
        return Ok(say(StatusCode::NOT_FOUND, "no such file\n".to_owned()));
    }
    let file = match service.keep.read(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(say(StatusCode::NOT_FOUND, "no such file\n".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    Ok(Body::new(Sending { chunks: chunks(file), left: size }).into_response())
}

/// Reads a file on a thread of its own, a few pieces ahead of whoever takes them.
fn chunks(mut file: std::fs::File) -> mpsc::Receiver<io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut bytes = Vec::with_capacity(CHUNK);
            let piece = match (&mut file).take(CHUNK as u64).read_to_end(&mut bytes) {
                Ok(0) => break,
                Ok(_) => Ok(Bytes::from(bytes)),
                Err(error) => Err(error),
            };
            if send.blocking_send(piece).is_err() {
                break;
            }
        }
    });
    receive
}

/// The body of a download.
struct Sending {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.chunks.poll_recv(context).map(|piece| {
            let piece = piece?;
            if let Ok(bytes) = &piece {
                self.left = self.left.saturating_sub(bytes.len() as u64);
            }
            Some(piece.map(Frame::data))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn say(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

fn json<T: Serialize>(value: &T) -> io::Result<Response> {
    let bytes = serde_json::to_vec_pretty(value)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}
