//! The mock of an offsite service: a real HTTP server that takes a few calls a day, counts every request that reaches it,
//! and keeps what it got.
//!
//! Fault model: a request counts as soon as its head has arrived, whatever becomes of it. A share of the uploads (drawn
//! from a seed) fails in one of three ways: refused before the body is read, body read and thrown away, or body kept and
//! the answer a failure all the same. What was counted is on disk before a body is read, so a restart forgets nothing.
//! Its clock can be set, so that days pass in a test.

mod keep;
mod service;
mod tally;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub use tally::{MockPeriod, MockStats, Upload};

/// How the mock behaves.
#[derive(Debug, Clone)]
pub struct MockOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory for what arrives and for the record of calls; made if it is not there.
    pub dir: PathBuf,
    /// Uploads that it takes in a period.
    pub calls: u32,
    /// What a period is.
    pub period: MockPeriod,
    /// How long each upload waits before it is answered.
    pub latency: Duration,
    /// Share of the uploads that fail, 0 to 1.
    pub failure_rate: f64,
    /// Bytes that may lie in the directory; `None`: as many as fit.
    pub storage_limit: Option<u64>,
    /// Where the draw of failures begins.
    pub seed: u64,
}

impl MockOptions {
    /// One call a day of UTC, on a free port of the loopback interface, without faults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: dir.into(),
            calls: 1,
            period: MockPeriod::Day(jiff::tz::TimeZone::UTC),
            latency: Duration::ZERO,
            failure_rate: 0.0,
            storage_limit: None,
            seed: 1,
        }
    }
}

/// A mock that runs until it is stopped or dropped.
pub struct MockServer {
    address: SocketAddr,
    shared: Arc<service::Service>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl std::fmt::Debug for MockServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl MockServer {
    /// Starts it; it listens when this returns.
    ///
    /// # Errors
    /// If the directory can't be made or read, or the address can't be listened on.
    pub fn start(options: &MockOptions) -> io::Result<Self> {
        // First, so that a mock that can't listen makes no directory.
        let listener = TcpListener::bind(options.listen)?;
        let shared = Arc::new(service::Service::open(options)?);
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let router = service::router(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("mock-offsite".to_owned()).spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served,
                    // A dropped sender stops it as well.
                    _ = stopped => Ok(()),
                }
            });
            runtime.shutdown_background();
            served
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where uploads go, with `{name}` for the name of the file.
    #[must_use]
    pub fn upload_url(&self) -> String {
        format!("http://{}/upload/{{name}}", self.address)
    }

    /// Sets its clock to a moment that does not move on, microseconds since 1970 UTC; `None`: the machine's clock again.
    pub fn set_now(&self, now: Option<i64>) {
        self.shared.set_now(now);
    }

    /// Sets the share of the uploads that fail from now on, 0 to 1.
    pub fn set_failure_rate(&self, rate: f64) {
        self.shared.set_failure_rate(rate);
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> MockStats {
        self.shared.stats()
    }

    /// Stops it. Requests on their way are cut off.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it failed of has no bearing on what it counted.
            let _ = thread.join();
        }
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
