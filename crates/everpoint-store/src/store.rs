//! The trait of a store.

use std::ops::ControlFlow;

use crate::StoreError;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Full name, `/`-separated, without a leading slash.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Last modification as the store's own clock says, microseconds since 1970 UTC.
    pub modified_micros: i64,
}

/// Room in the place where a store lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free for us.
    pub free: u64,
}

/// A place of named objects that are written once.
///
/// Names are `/`-separated, of `[A-Za-z0-9._=+-]` parts, never `.` or `..`. An object appears whole or not at all, and
/// once a call that makes it visible has returned it survives a power cut. Nothing is ever overwritten.
pub trait Store: Send + Sync {
    /// Where it is, for messages; never holds a secret.
    fn describe(&self) -> String;

    /// Begins a new object. Nothing is visible before [`ObjectWriter::commit`]; dropping the writer leaves nothing.
    ///
    /// # Errors
    /// `AlreadyExists` may be said here or at commit.
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Writes a whole new object.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken: nothing was changed.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.create(name)?;
        writer.write(bytes)?;
        writer.commit()
    }

    /// Opens an object for reading at positions.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError>;

    /// Reads a whole object. For small ones: manifests and packs are read through [`Store::open`].
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError>;

    /// Facts about an object; `None` if there is none.
    ///
    /// # Errors
    /// Only if the store could not tell.
    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError>;

    /// Visits the objects whose names begin with `prefix` (a string prefix that ends in `/`, or is empty), in byte
    /// order of their names, those after `start_after` only. Stops when the visitor breaks.
    ///
    /// # Errors
    /// If the listing failed part way: what was visited is then not known to be all.
    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Names of the "directories" directly under `prefix` (which ends in `/` or is empty), without prefix and slash,
    /// sorted.
    ///
    /// # Errors
    /// If the listing failed.
    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Removes an object. One that is not there is no error.
    ///
    /// # Errors
    /// If it may still be there.
    fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Room left, where the store can tell.
    ///
    /// # Errors
    /// If it should be able to tell but could not.
    fn space(&self) -> Result<Option<Space>, StoreError>;
}

/// A new object on its way. Dropped without commit it leaves nothing behind.
pub trait ObjectWriter: Send {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// `Full`, `Unavailable`, ...; the object can no longer be committed.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the object durable and visible under its name, if the name is free.
    ///
    /// # Errors
    /// `AlreadyExists` if it is taken; then nothing was changed.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// An open object.
pub trait ObjectReader: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// If the object ends before the buffer is full (kind `Other`, the message says so), or can't be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError>;
}
