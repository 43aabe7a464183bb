//! Reading a package: every member is compared with its sum as it flows by.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::path::Path;

use everpoint_core::FailureClass;
use everpoint_engine::StopFlag;
use everpoint_format::package::{MANIFEST, PackageManifest, PackageMember, SUMS};

use super::envelope;
use super::member::Summed;
use crate::AppError;

/// Longest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = 256 << 20;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Which package, and what opens it.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// The file.
    pub file: &'a Path,
    /// Identities of which one is a recipient.
    pub identities: &'a [age::x25519::Identity],
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

/// Remembers why the package could not be read.
struct Noted<T> {
    inner: T,
    failure: Option<io::Error>,
}

impl<T: Read> Read for Noted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failure = Some(io::Error::new(error.kind(), error.to_string()));
        }
        read
    }
}

/// Takes a member. What it does not read is read and summed afterwards.
pub(super) type Take<'a> = &'a mut dyn FnMut(&PackageManifest, &str, &mut dyn Read) -> Result<(), AppError>;

impl Opening<'_> {
    pub(super) fn damaged(&self, message: impl Into<String>) -> AppError {
        let object = self.file.display().to_string();
        AppError::new("package.damaged", FailureClass::Damaged, "read the package", object, message)
            .hint("fetch it again; if it stays so, use the package before it")
    }

    fn broken(&self, error: &io::Error) -> AppError {
        self.damaged(format!("the file is damaged or cut: {error}"))
    }

    /// The manifest alone: it stands in front.
    ///
    /// # Errors
    /// `Damaged` if the file is no package, or can't be opened with these identities.
    pub fn manifest(&self) -> Result<PackageManifest, AppError> {
        let stream = BufReader::with_capacity(BUFFER, envelope::open(self.file, self.identities)?);
        let mut archive = tar::Archive::new(stream);
        let mut entries = archive.entries().map_err(|error| self.broken(&error))?;
        let first = entries.next().ok_or_else(|| self.damaged("it is empty"))?;
        let mut first = first.map_err(|error| self.broken(&error))?;
        Ok(self.read_manifest(&mut first)?.0)
    }

    fn read_manifest<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(PackageManifest, Vec<u8>), AppError> {
        if entry.path_bytes().as_ref() != MANIFEST.as_bytes() {
            return Err(self.damaged("it does not begin with its manifest"));
        }
        let mut bytes = Vec::new();
        entry.take(MANIFEST_LIMIT).read_to_end(&mut bytes).map_err(|error| self.broken(&error))?;
        let manifest =
            PackageManifest::decode(&bytes).map_err(|error| self.damaged(error.to_string()).cause(error))?;
        Ok((manifest, bytes))
    }

    /// Reads all of it and gives each member to `take`; an error if any is missing, in excess, or other than its sum says.
    ///
    /// # Errors
    /// `Damaged`, or what `take` returns.
    pub fn each(&self, take: Take<'_>) -> Result<PackageManifest, AppError> {
        let io = |error: io::Error| self.broken(&error);
        let stream = BufReader::with_capacity(BUFFER, envelope::open(self.file, self.identities)?);
        let mut archive = tar::Archive::new(stream);
        let mut known: Option<(PackageManifest, HashMap<String, PackageMember>)> = None;
        for entry in archive.entries().map_err(io)? {
            super::stopped(self.stop)?;
            let mut entry = entry.map_err(io)?;
            let Some((manifest, left)) = &mut known else {
                let (manifest, bytes) = self.read_manifest(&mut entry)?;
                let members = manifest.members.iter().map(|member| (member.path.clone(), member.clone()));
                let members = members.collect();
                take(&manifest, MANIFEST, &mut bytes.as_slice())?;
                known = Some((manifest, members));
                continue;
            };
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if path == SUMS {
                take(manifest, SUMS, &mut entry)?;
                continue;
            }
            let wanted = left.remove(&path);
            let wanted = wanted.ok_or_else(|| self.damaged(format!("its manifest does not name {path}")))?;
            let mut contents = Noted { inner: Summed::new(&mut entry), failure: None };
            let taken = take(manifest, &path, &mut contents);
            // Whoever takes it can't tell that it was the package which could not be read.
            if let Some(failure) = contents.failure.take() {
                return Err(io(failure));
            }
            taken?;
            io::copy(&mut contents, &mut io::sink()).map_err(io)?;
            let (size, sha256) = contents.inner.into_parts().1.finish();
            if size != wanted.size || sha256 != wanted.sha256 {
                return Err(self.damaged(format!("{path} is not what its sum says")));
            }
        }
        // A file that was cut off between two members would look whole else.
        match known {
            Some((manifest, left)) if left.is_empty() => Ok(manifest),
            Some((_, left)) => Err(self.damaged(format!("it ends before {} of its members", left.len()))),
            None => Err(self.damaged("it is empty")),
        }
    }

    /// Compares all of it with its sums.
    ///
    /// # Errors
    /// `Damaged` if anything differs.
    pub fn verify(&self) -> Result<PackageManifest, AppError> {
        self.each(&mut |_, _, _| Ok(()))
    }
}
