//! Sealed objects: every object of a repository but `config` and the key slots.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use everpoint_core::{FailureClass, Micros};
use everpoint_format::FormatError;
use everpoint_format::codec::Codec;
use everpoint_format::seal::{KeyRing, ObjectAddress, ObjectKind, RepositoryId};
use everpoint_format::stream::{FrameStreamReader, FrameStreamWriter};
use everpoint_store::{ObjectReader, ObjectWriter, Store, StoreError, StoreErrorKind};

use crate::RepoError;
use crate::error::code;
use crate::log::BundleCache;

/// Bytes that are read from the store at a time where an object is read from its beginning to its end.
const READ_AHEAD: usize = 1 << 20;
/// How small records are compressed.
pub(crate) const RECORD_CODEC: Codec = Codec::Zstd(3);

/// What all parts of an open repository share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) id: RepositoryId,
    pub(crate) ring: KeyRing,
    pub(crate) bundles: BundleCache,
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RepoError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        RepoError::new("repo.random", "draw", "random bytes", "the operating system gave none").retryable()
    })?;
    Ok(bytes)
}

/// The time of this machine's clock: for records, never for a decision.
pub(crate) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Shared {
    pub(crate) fn address<'a>(&self, name: &'a str, kind: ObjectKind) -> ObjectAddress<'a> {
        ObjectAddress { repository: self.id, name, kind }
    }

    /// Writes a whole new object; code `repo.exists` if the name is taken.
    pub(crate) fn put(&self, name: &str, kind: ObjectKind, bytes: &[u8]) -> Result<(), RepoError> {
        let sealed = self.seal(name, kind, bytes)?;
        Ok(self.store.put_new(name, &sealed)?)
    }

    fn seal(&self, name: &str, kind: ObjectKind, bytes: &[u8]) -> Result<Vec<u8>, RepoError> {
        let address = self.address(name, kind);
        let wrap = |error| format_error("seal", name, error);
        let sealed = Vec::with_capacity(bytes.len() / 2 + 256);
        let mut writer =
            FrameStreamWriter::new(sealed, &address, &self.ring, random()?, RECORD_CODEC).map_err(wrap)?;
        writer.write_all(bytes).map_err(|error| wrap(error.into()))?;
        writer.finish(&[]).map_err(wrap)
    }

    /// Reads a whole object; `None` if there is none.
    pub(crate) fn get(&self, name: &str, kind: ObjectKind) -> Result<Option<Vec<u8>>, RepoError> {
        let sealed = match self.store.get(name) {
            Ok(sealed) => sealed,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let wrap = |error| format_error("read", name, error);
        let mut reader =
            FrameStreamReader::new(&*sealed, &self.address(name, kind), &self.ring).map_err(wrap)?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| wrap(error.into()))?;
        Ok(Some(bytes))
    }

    /// As [`Shared::get`], where the object must be there.
    pub(crate) fn need(&self, name: &str, kind: ObjectKind) -> Result<Vec<u8>, RepoError> {
        self.get(name, kind)?.ok_or_else(|| missing("read", name))
    }

    /// Begins a new object that is written as a stream.
    pub(crate) fn stream(
        &self,
        name: &str,
        kind: ObjectKind,
        codec: Codec,
    ) -> Result<FrameStreamWriter<StoreWrite>, RepoError> {
        let inner = StoreWrite { inner: self.store.create(name)? };
        FrameStreamWriter::new(inner, &self.address(name, kind), &self.ring, random()?, codec)
            .map_err(|error| format_error("create", name, error))
    }

    /// Opens an object for reading from its beginning to its end.
    pub(crate) fn read_stream(
        &self,
        name: &str,
        kind: ObjectKind,
    ) -> Result<FrameStreamReader<StoreRead>, RepoError> {
        let inner = StoreRead::new(self.store.open(name)?);
        FrameStreamReader::new(inner, &self.address(name, kind), &self.ring)
            .map_err(|error| format_error("read", name, error))
    }
}

/// The error for an object that is not there.
pub(crate) fn missing(operation: &'static str, name: &str) -> RepoError {
    RepoError::new(code::MISSING, operation, name, "it is not there")
}

/// What an error of the format means for the object.
pub(crate) fn format_error(operation: &'static str, name: &str, error: FormatError) -> RepoError {
    let error = match error {
        FormatError::Io(io) => match store_error(io) {
            Ok(store) => return RepoError::from(store),
            Err(io) => match io.downcast::<FormatError>() {
                Ok(inner) => inner,
                Err(io) => FormatError::Io(io),
            },
        },
        other => other,
    };
    let (code, class, hint) = match &error {
        FormatError::NotOurs { .. }
        | FormatError::Damaged { .. }
        | FormatError::Truncated { .. }
        | FormatError::Invalid { .. } => (code::DAMAGED, FailureClass::Damaged, None),
        FormatError::UnknownVersion { .. } => (
            code::NEWER_FORMAT,
            FailureClass::Failed,
            Some("use the version of everpoint that wrote it, or a newer one"),
        ),
        FormatError::KeyUnknown { .. } | FormatError::WrongKey => (
            code::WRONG_KEY,
            FailureClass::Damaged,
            Some("give the newest key of this repository; after a rotation older keys don't open newer data"),
        ),
        FormatError::Io(_) | FormatError::Engine { .. } => (code::STORE, FailureClass::Failed, None),
    };
    let mut made = RepoError::new(code, operation, name, error.to_string()).class(class);
    made.hint = hint.map(str::to_owned);
    made.source = std::error::Error::source(&error).map(|source| source.to_string().into());
    made
}

/// The store's error that an IO error carries, if it carries one.
fn store_error(error: io::Error) -> Result<StoreError, io::Error> {
    error.downcast::<StoreError>()
}

/// The bytes of a new object on their way.
pub(crate) struct StoreWrite {
    inner: Box<dyn ObjectWriter>,
}

impl StoreWrite {
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        self.inner.commit()
    }
}

impl Write for StoreWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object read from its beginning to its end, a MiB at a time.
pub(crate) struct StoreRead {
    inner: Box<dyn ObjectReader>,
    position: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl StoreRead {
    pub(crate) fn new(inner: Box<dyn ObjectReader>) -> Self {
        Self { inner, position: 0, buffer: Vec::new(), used: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let left = self.inner.size().saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(READ_AHEAD).min(READ_AHEAD);
        self.buffer.resize(take, 0);
        self.used = 0;
        self.inner.read_at(self.position, &mut self.buffer).map_err(io::Error::other)?;
        self.position = self.position.saturating_add(take as u64);
        Ok(())
    }
}

impl Read for StoreRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            self.refill()?;
        }
        let ready = self.buffer.get(self.used..).unwrap_or_default();
        let take = ready.len().min(into.len());
        let (Some(from), Some(to)) = (ready.get(..take), into.get_mut(..take)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.used += take;
        Ok(take)
    }
}
