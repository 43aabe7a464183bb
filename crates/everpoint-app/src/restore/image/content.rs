//! What a file says, and ranges of it that say nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use everpoint_engine::PART_BYTES;
use rustix::fs::FallocateFlags;

use crate::AppError;

/// As [`content_hash`], of what is in memory.
pub(in crate::restore) fn hash_of(bytes: &[u8]) -> Option<[u8; 16]> {
    let mut hasher = blake3::Hasher::new();
    for part in bytes.chunks(PART_BYTES).chain(bytes.is_empty().then_some(bytes)) {
        hasher.update(blake3::hash(part).as_bytes());
    }
    hasher.finalize().as_bytes().first_chunk::<16>().copied()
}

/// The hash of a file as the map has it: BLAKE3 over the BLAKE3 of each part.
pub(super) fn content_hash(file: &File, size: u64, path: &Path) -> Result<Option<[u8; 16]>, AppError> {
    let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; PART_BYTES], 0);
    loop {
        let length = usize::try_from(size - offset).unwrap_or(PART_BYTES).min(PART_BYTES);
        let part = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(part, offset).map_err(|error| AppError::io("read", path, error))?;
        hasher.update(blake3::hash(part).as_bytes());
        offset += length as u64;
        if offset >= size {
            return Ok(hasher.finalize().as_bytes().first_chunk::<16>().copied());
        }
    }
}

/// Makes a range read as zeros.
pub(super) fn zero(file: &File, offset: u64, length: u64, path: &Path) -> Result<(), AppError> {
    if length == 0
        || rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
            .is_ok()
    {
        return Ok(());
    }
    let block = vec![0; PART_BYTES];
    let mut at = offset;
    while at < offset + length {
        let take = usize::try_from(offset + length - at).unwrap_or(PART_BYTES).min(PART_BYTES);
        file.write_all_at(block.get(..take).unwrap_or_default(), at)
            .map_err(|error| AppError::io("write", path, error))?;
        at += take as u64;
    }
    Ok(())
}
