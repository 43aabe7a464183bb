//! A tar reader that is fed as bytes come and never holds a file: ustar, with GNU and pax long names and sizes.

use std::collections::BTreeMap;

use everpoint_core::name::escape;

/// Size of a block, and of a header.
const BLOCK: usize = 512;

/// Longest extension header that is accepted; names have at most 4096 bytes on Linux.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Link(String),
    /// Something else.
    Other(u8),
}

/// The header of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path as it stands in the archive, bytes that are no UTF-8 escaped.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last modification, seconds since 1970.
    pub modified: i64,
}

/// What the reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// An entry begins.
    Begin(Entry),
    /// Bytes of its content.
    Data(&'a [u8]),
    /// It is complete.
    End,
}

/// An archive that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read tar archive at byte {at}: {message}")]
pub struct TarError {
    /// Bytes of the archive before the block in question.
    pub at: u64,
    /// What is wrong.
    pub message: &'static str,
}

#[derive(Debug)]
enum State {
    /// Collecting a header.
    Header,
    /// Collecting the content of an extension header of this type.
    Extension { kind: u8, left: u64 },
    /// Content of a file.
    Content { left: u64 },
    /// The entry's end has to be told.
    Ending,
    /// Filling up to a whole block.
    Padding { left: u64 },
}

/// Reads one archive.
#[derive(Debug)]
pub struct TarReader {
    state: State,
    collected: Vec<u8>,
    /// Bytes after the content up to a whole block.
    padding: u64,
    long_path: Option<String>,
    long_link: Option<String>,
    long_size: Option<u64>,
    position: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        Self {
            state: State::Header,
            collected: Vec::with_capacity(BLOCK),
            padding: 0,
            long_path: None,
            long_link: None,
            long_size: None,
            position: 0,
        }
    }
}

impl TarReader {
    /// The next event in `input`, which is shortened by what was used; `None` if more input is needed.
    ///
    /// # Errors
    /// If the archive is broken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match self.state {
                State::Header => {
                    if !self.collect(input, BLOCK) {
                        return Ok(None);
                    }
                    if let Some(entry) = self.header()? {
                        return Ok(Some(TarEvent::Begin(entry)));
                    }
                }
                State::Extension { kind, left } => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX);
                    if !self.collect(input, length) {
                        return Ok(None);
                    }
                    self.extension(kind)?;
                    self.state = State::Padding { left: self.padding };
                }
                State::Content { left: 0 } | State::Ending => {
                    self.state = State::Padding { left: self.padding };
                    return Ok(Some(TarEvent::End));
                }
                State::Content { left } => {
                    let data = self.take(input, left);
                    if data.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Content { left: left - data.len() as u64 };
                    return Ok(Some(TarEvent::Data(data)));
                }
                State::Padding { left: 0 } => self.state = State::Header,
                State::Padding { left } => {
                    let used = self.take(input, left).len() as u64;
                    if used == 0 {
                        return Ok(None);
                    }
                    self.state = State::Padding { left: left - used };
                }
            }
        }
    }

    /// Whether the archive may end here: between entries.
    ///
    /// # Errors
    /// If it breaks off within an entry.
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            State::Header if self.collected.is_empty() => Ok(()),
            // The padding of the last entry may be left out.
            State::Padding { .. } => Ok(()),
            _ => Err(self.error("the archive breaks off")),
        }
    }

    fn error(&self, message: &'static str) -> TarError {
        TarError { at: self.position, message }
    }

    /// Up to `limit` bytes off the front of the input.
    fn take<'a>(&mut self, input: &mut &'a [u8], limit: u64) -> &'a [u8] {
        let length = input.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let (taken, rest) = input.split_at_checked(length).unwrap_or((&[], input));
        *input = rest;
        self.position += taken.len() as u64;
        taken
    }

    /// Collects up to `length` bytes; true when they are complete.
    fn collect(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.collected.len()) as u64;
        let taken = self.take(input, missing);
        self.collected.extend_from_slice(taken);
        self.collected.len() >= length
    }

    /// Reads the collected header. `None` if it is no entry but an extension or the archive's end.
    fn header(&mut self) -> Result<Option<Entry>, TarError> {
        let block = std::mem::replace(&mut self.collected, Vec::with_capacity(BLOCK));
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let field = |from: usize, to: usize| block.get(from..to).unwrap_or_default();
        // The checksum counts its own field as spaces.
        let own: u64 = field(148, 156).iter().map(|byte| u64::from(*byte)).sum();
        if number(field(148, 156)) != Some(sum - own + 8 * u64::from(b' ')) {
            return Err(self.error("a header's checksum is wrong"));
        }
        let kind = block.get(156).copied().unwrap_or_default();
        let size = number(field(124, 136)).ok_or_else(|| self.error("a size is no number"))?;
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            if size > MAX_EXTENSION {
                return Err(self.error("an extension header is too long"));
            }
            self.padding = padding(size);
            self.state = State::Extension { kind, left: size };
            return Ok(None);
        }
        let size = self.long_size.take().unwrap_or(size);
        let (kind, content) = match kind {
            0 | b'0' | b'7' => (EntryKind::File, size),
            b'5' => (EntryKind::Directory, 0),
            b'2' => (EntryKind::Link(self.long_link.take().unwrap_or_else(|| text(field(157, 257)))), 0),
            other => (EntryKind::Other(other), size),
        };
        let entry = Entry {
            path: self.long_path.take().unwrap_or_else(|| path(field(0, 100), field(345, 500))),
            kind,
            size: content,
            mode: u32::try_from(number(field(100, 108)).unwrap_or_default()).unwrap_or_default() & 0o7777,
            modified: i64::try_from(number(field(136, 148)).unwrap_or_default()).unwrap_or_default(),
        };
        self.long_link = None;
        self.padding = padding(content);
        self.state = if content == 0 { State::Ending } else { State::Content { left: content } };
        Ok(Some(entry))
    }

    fn extension(&mut self, kind: u8) -> Result<(), TarError> {
        let content = std::mem::take(&mut self.collected);
        match kind {
            b'L' => self.long_path = Some(text(&content)),
            b'K' => self.long_link = Some(text(&content)),
            b'x' => {
                let records = pax(&content).ok_or_else(|| self.error("a pax header is broken"))?;
                self.long_path = records.get("path").cloned().or(self.long_path.take());
                self.long_link = records.get("linkpath").cloned().or(self.long_link.take());
                if let Some(size) = records.get("size") {
                    let size = size.parse().map_err(|_| self.error("a pax size is no number"))?;
                    self.long_size = Some(size);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Octal digits, or big-endian binary where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let end = field.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    let digits = field.get(..end)?.trim_ascii_start();
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    escape(field.get(..end).unwrap_or_default())
}

fn path(name: &[u8], prefix: &[u8]) -> String {
    let (name, prefix) = (text(name), text(prefix));
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// Records `<length> <key>=<value>\n`.
fn pax(mut content: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut records = BTreeMap::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(content.get(..space)?).ok()?.parse().ok()?;
        let (record, rest) = content.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.insert(text(record.get(..equals)?), text(record.get(equals + 1..)?));
        content = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000600");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000144");
        block[148..156].fill(b' ');
        block[156] = kind;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        block[154] = 0;
        block
    }

    fn with_content(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = block(name, kind, content.len() as u64);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + padding(content.len() as u64) as usize, 0);
        bytes
    }

    fn archive() -> Vec<u8> {
        let long = "d/".repeat(80) + "file";
        let pax = format!("{} path={long}\n", long.len() + 10);
        [
            with_content("base", b'5', b""),
            with_content("base/1", b'0', &[7; 1300]),
            with_content("empty", b'0', b""),
            with_content("@", b'L', b"long name\0"),
            with_content("short", b'0', b"x"),
            with_content("@", b'x', pax.as_bytes()),
            with_content("short", b'0', &[1; 512]),
            vec![0; 1024],
        ]
        .concat()
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<(String, Vec<u8>)>, TarError> {
        let mut reader = TarReader::default();
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for chunk in bytes.chunks(step) {
            let mut input = chunk;
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    TarEvent::Begin(entry) => found.push((entry.path, Vec::new())),
                    TarEvent::Data(data) => found.last_mut().unwrap().1.extend_from_slice(data),
                    TarEvent::End => {}
                }
            }
            assert!(input.is_empty());
        }
        reader.finish()?;
        Ok(found)
    }

    #[test]
    fn any_cutting_of_the_stream_gives_the_same_entries() {
        let bytes = archive();
        let whole = read(&bytes, bytes.len()).unwrap();
        let names: Vec<_> = whole.iter().map(|(name, content)| (name.as_str(), content.len())).collect();
        let long = "d/".repeat(80) + "file";
        assert_eq!(
            names,
            [("base", 0), ("base/1", 1300), ("empty", 0), ("long name", 1), (long.as_str(), 512)]
        );
        for step in [1, 3, 511, 512, 513, 4096] {
            assert_eq!(read(&bytes, step).unwrap(), whole, "{step}");
        }
    }

    #[test]
    fn broken_archives_are_refused() {
        let bytes = archive();
        assert_eq!(
            read(&bytes[..bytes.len() - 1024], 512).unwrap().len(),
            5,
            "the final zeros may be missing"
        );
        assert!(read(&bytes[..900], 512).is_err());
        let mut wrong = bytes;
        wrong[3] ^= 1;
        assert!(read(&wrong, 512).is_err());
    }

    #[test]
    fn sizes_beyond_octal_are_read() {
        let mut field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&(3_u64 << 40).to_be_bytes());
        assert_eq!(number(&field), Some(3 << 40));
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"00009\0"), None);
    }
}
