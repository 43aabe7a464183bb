//! A directory as store.
//!
//! An object is written to a file in `unfinished~/` (a name that no object can have), synced, moved to its name with a
//! rename that never replaces, and its directory is synced. What a crash leaves in `unfinished~/` is harmless and removed
//! when a day old. All paths are resolved from one open handle of the root, so that a filesystem that is unmounted
//! meanwhile is an error and never an empty repository. As what is written through a handle may go to a directory that has
//! been moved away, or mounted over, and that nobody will look into, the path must still lead to it whenever an object is made.

mod calls;
mod dirs;
mod list;
mod owner;
mod sweep;
mod writer;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use self::calls::{Calls, is_no_sync};
use self::dirs::Directories;
use self::owner::Owner;
use crate::name::{check_name, check_prefix, is_part};
use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

/// Holds unfinished objects.
const UNFINISHED: &str = "unfinished~";
/// Made by mkfs at the root of a filesystem, readable for root only; never an object of ours.
const LOST_FOUND: &str = "lost+found";

struct Shared {
    root: String,
    place: PathBuf,
    directories: Directories,
    swept: Once,
    /// Told once that names are given under a lock.
    weak: Once,
}

/// See the module. Clones share their handles.
#[derive(Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("root", &self.shared.root).finish()
    }
}

impl LocalStore {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// `NotFound` if it is missing, `Usage` if it is no directory.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Calls::SYSTEM)
    }

    fn open_with(root: &Path, calls: Calls) -> Result<Self, StoreError> {
        let shown = root.display().to_string();
        let fail = |errno| fail("open", &shown, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(root, flags, Mode::empty()).map_err(fail)?;
        let directories = Directories::new(handle, calls);
        // Wherever this process goes later.
        let place = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let shared = Shared { root: shown, place, directories, swept: Once::new(), weak: Once::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes the directory and its parents where missing, durably, and opens it.
    ///
    /// # Errors
    /// If it can't be made, or is no directory.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        make_durable(root).map_err(|error| fail_io("create", &root.display().to_string(), error))?;
        Self::open(root)
    }

    fn object(&self, name: &str) -> String {
        format!("{name} in {}", self.shared.root)
    }

    fn fail(&self, operation: &'static str, name: &str, errno: Errno) -> StoreError {
        fail(operation, &self.object(name), errno)
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.shared.directories.root()
    }

    /// That the path leads to what is open.
    fn in_place(&self, name: &str) -> Result<(), StoreError> {
        let open = rustix::fs::fstat(self.root()).map_err(|errno| self.fail("create", name, errno))?;
        let cause = match rustix::fs::stat(&self.shared.place) {
            Ok(there) if (there.st_dev, there.st_ino) == (open.st_dev, open.st_ino) => return Ok(()),
            Ok(_) => {
                "another directory is there now than when it was opened: it was moved away, or something is mounted over it"
            }
            Err(Errno::NOENT | Errno::NOTDIR) => "the directory was moved away, or removed",
            Err(errno) => return Err(self.fail("create", name, errno)),
        };
        Err(StoreError::new("create", self.object(name), StoreErrorKind::Unavailable).cause(cause))
    }

    fn check(&self, operation: &'static str, name: &str) -> Result<(), StoreError> {
        check_name(operation, name)?;
        if name.split('/').next() == Some(LOST_FOUND) {
            return Err(StoreError::new(operation, self.object(name), StoreErrorKind::BadName)
                .cause("lost+found belongs to the filesystem"));
        }
        Ok(())
    }

    /// Opens an object's file; `None` if there is none.
    fn file(&self, operation: &'static str, name: &str) -> Result<Option<(File, u64)>, StoreError> {
        self.check(operation, name)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(self.root(), name, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(self.fail(operation, name, errno)),
        };
        let stat = rustix::fs::fstat(&handle).map_err(|errno| self.fail(operation, name, errno))?;
        Ok(is_file(&stat).then(|| (File::from(handle), size(&stat))))
    }
}

impl Store for LocalStore {
    fn describe(&self) -> String {
        self.shared.root.clone()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.check("create", name)?;
        self.in_place(name)?;
        self.shared.swept.call_once(|| sweep::sweep(self));
        if self.head(name)?.is_some() {
            return Err(writer::taken(self, name));
        }
        Ok(Box::new(writer::Writer::begin(self.clone(), name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        let (file, size) = self.file("open", name)?.ok_or_else(|| self.fail("open", name, Errno::NOENT))?;
        Ok(Box::new(Reader { file, size, object: self.object(name) }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.file("read", name)?.ok_or_else(|| self.fail("read", name, Errno::NOENT))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0).map_err(|error| fail_io("read", &self.object(name), error))?;
        Ok(bytes)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.check("look up", name)?;
        match rustix::fs::statat(self.root(), name, AtFlags::empty()) {
            Ok(stat) => Ok(is_file(&stat).then(|| info(name.to_owned(), &stat))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.fail("look up", name, errno)),
        }
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        check_prefix("list", prefix)?;
        list::walk(self, prefix, start_after, visit).map(|_| ())
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        check_prefix("list", prefix)?;
        list::children(self, prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.check("delete", name)?;
        let (parent, _) = split(name);
        match rustix::fs::unlinkat(self.root(), name, AtFlags::empty()) {
            // One that is not there may have been removed by another process that has not synced it yet.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(self.fail("delete", name, errno)),
        }
        self.shared.directories.sync(parent).map_err(|errno| self.fail("delete", name, errno))?;
        self.shared.directories.remove_empty(parent);
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        let found = rustix::fs::fstatvfs(self.root())
            .map_err(|errno| fail("ask for the free space of", &self.shared.root, errno))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // As df reckons: what is set aside for root belongs to neither.
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        Ok(Some(Space { total: bytes(used.saturating_add(found.f_bavail)), free: bytes(found.f_bavail) }))
    }
}

struct Reader {
    file: File,
    size: u64,
    object: String,
}

impl ObjectReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| fail_io("read", &self.object, error))
    }
}

/// `a/b/c` becomes `a/b` and `c`; the parent of a single part is empty.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

fn modified(stat: &Stat) -> i64 {
    let fraction = i64::try_from(stat.st_mtime_nsec / 1000).unwrap_or_default();
    i64::saturating_mul(stat.st_mtime, 1_000_000).saturating_add(fraction)
}

fn info(name: String, stat: &Stat) -> ObjectInfo {
    ObjectInfo { name, size: size(stat), modified_micros: modified(stat) }
}

fn fail(operation: &'static str, object: &str, errno: Errno) -> StoreError {
    fail_io(operation, object, errno.into())
}

fn fail_io(operation: &'static str, object: &str, error: io::Error) -> StoreError {
    let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => StoreErrorKind::NotFound,
        Some(Errno::EXIST) => StoreErrorKind::AlreadyExists,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StoreErrorKind::Denied,
        Some(Errno::NOSPC | Errno::DQUOT) => StoreErrorKind::Full,
        Some(Errno::NAMETOOLONG) => StoreErrorKind::BadName,
        Some(Errno::NOTDIR) => StoreErrorKind::Usage,
        Some(
            Errno::INTR
            | Errno::AGAIN
            | Errno::STALE
            | Errno::TIMEDOUT
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH,
        ) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Other,
    };
    let made = StoreError::new(operation, object, kind);
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return made.cause("it ends before the bytes that were asked for");
    }
    made.cause(error)
}

/// Makes a directory and its missing parents, each synced into the one above, and belonging to whom that belongs.
fn make_durable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    make_durable(parent)?;
    match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), DIRECTORY_MODE).create(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
        Ok(()) => {
            if let Some(owner) = Owner::of_directory(parent)? {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                owner.give(rustix::fs::open(path, flags, Mode::empty())?.as_fd())?;
            }
        }
    }
    match File::open(parent)?.sync_all() {
        Err(error) if error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(is_no_sync) => Ok(()),
        result => result,
    }
}

/// Permissions of directories and files: the group may read, others nothing. Backups hold everything.
const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

fn open_directory(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, if name.is_empty() { "." } else { name }, flags, Mode::empty())
}

/// Whether an entry of a directory can be (part of) an object name.
fn is_ours(parent: &str, entry: &str) -> bool {
    is_part(entry) && !(parent.is_empty() && entry == LOST_FOUND)
}

#[cfg(test)]
mod tests;
