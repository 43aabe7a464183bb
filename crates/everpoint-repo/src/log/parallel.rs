//! Reads an object's frames with several threads.

use std::sync::{Mutex, PoisonError};

use everpoint_format::FormatError;
use everpoint_format::seal::{
    FRAME_HEADER_LEN, FrameOpened, FrameOpener, HEADER_LEN, ObjectKind, frame_lengths,
};
use everpoint_store::ObjectReader;

use crate::RepoError;
use crate::object::{Shared, format_error};

/// Where a frame lies.
struct Place {
    number: u32,
    offset: u64,
    stored: usize,
    raw: usize,
}

struct Source<'a> {
    name: &'a str,
    reader: Box<dyn ObjectReader>,
    opener: FrameOpener,
}

/// The content of an object of at most `limit` bytes.
pub(super) fn read(
    shared: &Shared,
    name: &str,
    kind: ObjectKind,
    limit: u64,
    workers: usize,
) -> Result<Vec<u8>, RepoError> {
    let reader = shared.store.open(name)?;
    let mut header = vec![0; usize::try_from(reader.size()).unwrap_or(HEADER_LEN).min(HEADER_LEN)];
    reader.read_at(0, &mut header)?;
    let opener = FrameOpener::new(&shared.address(name, kind), &header, &shared.ring)
        .map_err(|error| format_error("open", name, error))?;
    let source = Source { name, reader, opener };
    let mut places = source.places()?;
    let Some(last) = places.pop() else {
        return Err(source.damaged("it has no frames"));
    };
    if source.open(&last, &mut Vec::new())? != FrameOpened::Last {
        return Err(source.damaged("it is cut off"));
    }
    // Lengths are not authenticated before the frames are opened: nothing is allocated for them beyond the limit.
    let total = places.iter().fold(0_u64, |sum, place| sum.saturating_add(place.raw as u64));
    if total > limit {
        return Err(source.damaged("it holds more bytes than it may"));
    }
    let mut content = vec![0; usize::try_from(total).unwrap_or_default()];
    source.fill(&places, &mut content, workers)?;
    Ok(content)
}

impl Source<'_> {
    fn places(&self) -> Result<Vec<Place>, RepoError> {
        let (mut places, mut offset, mut number) = (Vec::new(), HEADER_LEN as u64, 0_u32);
        while offset < self.reader.size() {
            let mut head = [0; FRAME_HEADER_LEN];
            if offset.saturating_add(head.len() as u64) > self.reader.size() {
                return Err(self.damaged("it is cut off"));
            }
            self.reader.read_at(offset, &mut head)?;
            let (stored, raw) = frame_lengths(&head).map_err(|error| self.wrap(error))?;
            places.push(Place { number, offset, stored, raw });
            offset = offset.saturating_add(stored as u64);
            number = number.saturating_add(1);
        }
        if offset != self.reader.size() {
            return Err(self.damaged("it is cut off"));
        }
        Ok(places)
    }

    fn open(&self, place: &Place, raw: &mut Vec<u8>) -> Result<FrameOpened, RepoError> {
        let mut stored = vec![0; place.stored];
        self.reader.read_at(place.offset, &mut stored)?;
        self.opener.open(place.number, &stored, raw).map_err(|error| self.wrap(error))
    }

    /// Opens the frames into their parts of `content`.
    fn fill(&self, places: &[Place], content: &mut [u8], workers: usize) -> Result<(), RepoError> {
        let mut rest = content;
        let mut parts = Vec::with_capacity(places.len());
        for place in places {
            let (part, after) =
                rest.split_at_mut_checked(place.raw).ok_or_else(|| self.damaged("it is cut off"))?;
            parts.push((place, part));
            rest = after;
        }
        let queue = Mutex::new(parts.into_iter());
        let work = || -> Result<(), RepoError> {
            let mut raw = Vec::new();
            while let Some((place, part)) = { queue.lock().unwrap_or_else(PoisonError::into_inner).next() } {
                if self.open(place, &mut raw)? != FrameOpened::Data || raw.len() != part.len() {
                    return Err(self.damaged("a frame is not what its place says"));
                }
                part.copy_from_slice(&raw);
            }
            Ok(())
        };
        if workers < 2 || places.len() < 2 {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers.min(places.len())).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(RepoError::new("internal", "read", self.name, "a thread that decompressed it died"))
                })
            })
        })
    }

    fn wrap(&self, error: FormatError) -> RepoError {
        format_error("read", self.name, error)
    }

    fn damaged(&self, message: &str) -> RepoError {
        RepoError::damaged("read", self.name, message)
    }
}
