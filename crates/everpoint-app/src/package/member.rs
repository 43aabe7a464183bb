//! Members of a package on their way: files in scratch, their sums taken while they are written.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use everpoint_format::hex;
use everpoint_format::package::PackageMember;

use super::scratch;
use crate::AppError;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;
/// zstd's level: packages are made once a day and carried far.
const LEVEL: i32 = 3;

/// SHA-256 and length of what flows by.
pub(crate) struct Sum {
    context: Context,
    size: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), size: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size = self.size.saturating_add(bytes.len() as u64);
    }

    /// Length and 64 hex digits.
    pub(crate) fn finish(self) -> (u64, String) {
        (self.size, hex::encode(self.context.finish().as_ref()))
    }
}

/// Passes on what is written, and sums it.
pub(crate) struct Summed<T> {
    inner: T,
    sum: Sum,
}

impl<T> Summed<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, sum: Sum::new() }
    }

    pub(crate) fn into_parts(self) -> (T, Sum) {
        (self.inner, self.sum)
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.add(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.add(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A member that lies in scratch.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) member: PackageMember,
    pub(super) file: PathBuf,
}

/// Where members are gathered.
pub(super) struct Workshop {
    directory: PathBuf,
    made: usize,
}

impl Workshop {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), made: 0 }
    }

    /// Makes a member of what `fill` writes.
    pub(super) fn plain(
        &mut self,
        path: &str,
        fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), AppError>,
    ) -> Result<Made, AppError> {
        self.made += 1;
        let file = self.directory.join(format!("member-{}", self.made));
        let io = |error| AppError::io("write", &file, error);
        let inner = BufWriter::with_capacity(BUFFER, scratch::create(&file).map_err(io)?);
        let mut out = Summed::new(inner);
        if let Err(error) = fill(&mut out) {
            // Another one takes its room.
            std::fs::remove_file(&file).map_err(io)?;
            return Err(error);
        }
        out.flush().map_err(io)?;
        let (size, sha256) = out.into_parts().1.finish();
        Ok(Made { member: PackageMember { path: path.to_owned(), size, sha256 }, file: file.clone() })
    }

    /// The same, compressed with zstd.
    pub(super) fn compressed(
        &mut self,
        path: &str,
        fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), AppError>,
    ) -> Result<Made, AppError> {
        let object = PathBuf::from(path);
        let io = |error| AppError::io("compress", &object, error);
        self.plain(path, &mut |out| {
            let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(io)?;
            encoder.include_checksum(true).map_err(io)?;
            fill(&mut encoder)?;
            encoder.finish().map_err(io)?;
            Ok(())
        })
    }
}
