//! Listens, and serves each connection until it is told to stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use everpoint_app::AppError;
use everpoint_core::FailureClass;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::tls::Tls;
use super::{Api, router};

/// Connections that are open at once; more wait.
const CONNECTIONS: usize = 128;
/// How long the head of a request, or a TLS handshake, may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long requests that are being answered may go on after the stop.
const STOP_TIME: Duration = Duration::from_secs(3);
/// After an accept that failed, e.g. for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A running server. Stops when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address` and serves from a thread of its own.
    ///
    /// # Errors
    /// If the address can't be had.
    pub(super) fn start(address: SocketAddr, tls: Option<Tls>, api: Arc<Api>) -> Result<Self, AppError> {
        let failed = |error: std::io::Error| {
            let class = FailureClass::Usage;
            AppError::new("api.listen", class, "listen on", address.to_string(), error.to_string())
                .hint("choose another address with [api] listen = \"…\"")
                .cause(error)
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(2 * super::AT_ONCE)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let router = router::router(api);
        let serving = std::thread::Builder::new().name("api".to_owned()).spawn(move || {
            runtime.block_on(serve(listener, tls, router, stopped));
            // A use-case that does not come back must not hold the process.
            runtime.shutdown_background();
        });
        let thread = Some(serving.map_err(failed)?);
        Ok(Self { address, stop: Some(stop), thread })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router, mut stop: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the API can't listen: {error}"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = &mut stop => break,
        };
        let Some((stream, permit)) = accepted else {
            continue;
        };
        let (watcher, router) = (graceful.watcher(), router.clone());
        let acceptor = tls.as_ref().map(Tls::acceptor);
        tokio::spawn(async move {
            let _permit = permit;
            match acceptor {
                None => connection(stream, router, watcher).await,
                Some(acceptor) => match tokio::time::timeout(HEAD_TIME, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router, watcher).await,
                    Ok(Err(error)) => tracing::debug!("TLS: {error}"),
                    Err(_) => tracing::debug!("TLS: the handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    // What is being answered comes to its end, within bounds.
    let _ = tokio::time::timeout(STOP_TIME, graceful.shutdown()).await;
}

/// The next connection that there is room for; `None` if it broke off.
async fn accept(
    listener: &tokio::net::TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!("the API can't accept a connection: {error}");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn connection<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_headers(64);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("a connection of the API: {error}");
    }
}
