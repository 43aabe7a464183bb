//! The serving side, in the process that restores.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use everpoint_app::archive_get::{self, ArchiveGetRequest, Got};
use everpoint_app::{AppError, ClusterContext, Quiet, prefetch};
use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::{StopFlag, user_name};
use tempfile::TempDir;

use super::{Answer, Question, Refusal};

/// A question is a line of at most this many bytes.
const LONGEST_QUESTION: u64 = 64 << 10;
/// An asker that says nothing is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens as long as it lives.
pub(crate) struct FetchService {
    directory: TempDir,
    stop: StopFlag,
}

impl FetchService {
    /// Begins to serve the log of a cluster to the owner of `data_dir`. That many bytes are fetched ahead.
    ///
    /// # Errors
    /// If no socket can be made.
    pub(crate) fn begin(context: ClusterContext, data_dir: PathBuf, ahead: u64) -> Result<Self, AppError> {
        let wrap = |error| AppError::io("make a socket in", &std::env::temp_dir(), error);
        let directory = tempfile::Builder::new().prefix("everpoint-fetch-").tempdir().map_err(wrap)?;
        // Others may reach the socket by its name, and see nothing else.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).map_err(wrap)?;
        let service = Self { directory, stop: StopFlag::default() };
        let listener = UnixListener::bind(service.socket()).map_err(wrap)?;
        std::fs::set_permissions(service.socket(), Permissions::from_mode(0o666)).map_err(wrap)?;
        let spool = tempfile::Builder::new()
            .prefix("spool-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(service.directory.path())
            .map_err(wrap)?;
        let server = Server { context, data_dir, spool, ahead, stop: service.stop.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // The recovering server asks for one file after the other.
                if let Err(error) = stream.and_then(|stream| server.serve(&stream)) {
                    tracing::debug!(%error, "a question for log was not answered");
                }
            }
        });
        Ok(service)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

impl Drop for FetchService {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

struct Server {
    context: ClusterContext,
    data_dir: PathBuf,
    spool: TempDir,
    ahead: u64,
    stop: StopFlag,
}

impl Server {
    fn serve(&self, stream: &UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let peer = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
        let owner = std::fs::metadata(&self.data_dir)?.uid();
        if peer != 0 && peer != owner {
            let message = "only the owner of the directory is served";
            let user = format!("user {}", user_name(peer));
            let denied = AppError::new("fetch.denied", FailureClass::Failed, "serve", user, message);
            return refuse(stream, &denied);
        }
        let mut line = String::new();
        BufReader::new(stream.take(LONGEST_QUESTION)).read_line(&mut line)?;
        let question: Question = serde_json::from_str(&line)?;
        let destination = self.spool.path().join("asked-for");
        let request = ArchiveGetRequest {
            name: question.name,
            destination: destination.clone(),
            branch: question.branch,
            in_place_tablespaces: question.in_place_tablespaces,
            look_ahead_bytes: self.ahead,
            until: question.until.map(LogOffset),
            recovery: Some(self.data_dir.clone()),
        };
        match archive_get::run(&self.context, &request, &Quiet) {
            Ok(Got::NotThere) => answer(stream, &Answer { length: None, error: None }),
            Ok(Got::Found) => {
                self.fetch_ahead(&request);
                let mut file = std::fs::File::open(&destination)?;
                std::fs::remove_file(&destination)?;
                answer(stream, &Answer { length: Some(file.metadata()?.len()), error: None })?;
                std::io::copy(&mut file, &mut &*stream).map(|_| ())
            }
            Err(error) => refuse(stream, &error),
        }
    }

    /// Keeps the next segments ready in a thread, unless one does already.
    fn fetch_ahead(&self, request: &ArchiveGetRequest) {
        let Some(wanted) = prefetch::wanted(&self.context.name, request) else {
            return;
        };
        let (context, stop) = (self.context.clone(), self.stop.clone());
        std::thread::spawn(move || {
            if let Err(error) = prefetch::run(&context, &wanted, &stop) {
                tracing::debug!(%error, "segments are not fetched ahead");
            }
        });
    }
}

fn refuse(stream: &UnixStream, error: &AppError) -> std::io::Result<()> {
    let refusal = Refusal {
        code: error.code.clone(),
        object: error.object.clone(),
        message: error.message.clone(),
        damaged: error.class == FailureClass::Damaged,
    };
    answer(stream, &Answer { length: None, error: Some(refusal) })
}

fn answer(mut stream: &UnixStream, answer: &Answer) -> std::io::Result<()> {
    let text = serde_json::to_string(answer)?;
    writeln!(stream, "{text}")
}
