//! One upload by HTTP.
//!
//! Not by the blocking client: that one loses why the other side stopped to take the body, and so cannot tell a
//! connection that never stood from one that broke off, nor read an answer that comes before the body's end.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, redirect};

use crate::http::{CONNECT, SHOWN, USER_AGENT, broken, date, kind, said};
use crate::{ProviderError, ProviderErrorKind, Receipt};

/// Bytes that are read from the file at a time.
const CHUNK: usize = 256 << 10;

/// What is sent, but for its body.
pub(crate) struct Upload {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    pub(crate) idle: Duration,
}

/// A file as the body of a request. Reading it blocks the thread, which does nothing else.
struct Sending {
    file: Mutex<Box<dyn Read + Send>>,
    left: u64,
    gone: Arc<Mutex<Gone>>,
}

/// How much of a body was taken, and when the last piece of it was.
struct Gone {
    bytes: u64,
    at: Instant,
}

/// Ends when nothing of the body was taken for so long.
async fn stalled(gone: &Mutex<Gone>, idle: Duration) {
    loop {
        let moved = gone.lock().unwrap_or_else(PoisonError::into_inner).at;
        let left = idle.saturating_sub(moved.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK));
        let mut chunk = vec![0; wanted];
        let read = self.file.lock().unwrap_or_else(PoisonError::into_inner).read(&mut chunk);
        Poll::Ready(Some(match read {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")),
            Ok(length) => {
                chunk.truncate(length);
                self.left = self.left.saturating_sub(length as u64);
                let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
                (gone.bytes, gone.at) = (gone.bytes + length as u64, Instant::now());
                drop(gone);
                Ok(Frame::data(Bytes::from(chunk)))
            }
            Err(error) => Err(error),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Sends it: one request on a connection of its own.
pub(crate) fn upload(
    object: &str,
    request: Upload,
    size: u64,
    body: Box<dyn Read + Send>,
) -> Result<Receipt, ProviderError> {
    let local = |cause: String| {
        ProviderError::new("upload to", object, ProviderErrorKind::Failed).unsent().cause(cause)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| local(error.to_string()))?;
    let client = Client::builder()
        // By itself the client gives up where nothing was acknowledged for 30 s.
        .tcp_user_timeout(request.idle)
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .http1_only()
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| broken("upload to", object, error))?;
    let gone = Arc::new(Mutex::new(Gone { bytes: 0, at: Instant::now() }));
    let body = reqwest::Body::wrap(Sending { file: Mutex::new(body), left: size, gone: Arc::clone(&gone) });
    let mut headers = request.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let made =
        client.request(request.method, request.url).headers(headers).timeout(request.timeout).body(body);
    runtime.block_on(async {
        let taken = || gone.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        let answered = tokio::select! {
            answered = made.send() => answered.map_err(|error| broken("upload to", object, error)),
            () = stalled(&gone, request.idle) => {
                let cause = format!("it stands still after {} of {size} bytes", taken());
                Err(ProviderError::new("upload to", object, ProviderErrorKind::Stalled).cause(cause))
            }
        };
        let mut response = answered?;
        let (status, provider_date) = (response.status(), date(response.headers()));
        if status.is_success() && taken() < size {
            // Whoever answers before it has the file did not look at it: nobody knows what became of the call.
            let cause = format!("it answered {status} after {} of {size} bytes", taken());
            return Err(ProviderError::new("upload to", object, ProviderErrorKind::Failed).cause(cause));
        }
        if status.is_success() {
            return Ok(Receipt { provider_date, url: Some(object.to_owned()) });
        }
        let mut answer = Vec::new();
        // What can't be read of an answer that is a failure anyway changes nothing.
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(request.idle, response.chunk()).await {
            answer.extend_from_slice(&chunk);
            if answer.len() >= SHOWN {
                answer.truncate(SHOWN);
                break;
            }
        }
        let mut error = ProviderError::new("upload to", object, kind(status));
        error.provider_date = provider_date;
        Err(error.cause(said(status, &answer)))
    })
}
