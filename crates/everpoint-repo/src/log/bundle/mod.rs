//! Bundles: an hour of whole segments in one object, compressed tighter, with an index beside it.
//!
//! The data object holds the segments joined and cut into frames; `<name>.index` holds where they lie, and their digests.
//! A bundle exists when its index does, which is written only after the data were read back: as with a segment and its
//! digest. What has no index was left by a crash, and nobody relied upon it.

mod cache;
mod read;
mod write;

use std::ops::ControlFlow;

use everpoint_core::{BundleHour, LogOffset, Span};
use everpoint_format::seal::ObjectKind;

pub(crate) use self::cache::BundleCache;
use self::read::{Index, Opened};
pub use self::write::BundleMade;
use super::LogStore;
use crate::object::missing;
use crate::{RepoError, names};

/// Ending of the name of an index.
const INDEX: &str = ".index";

/// A bundle that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle {
    /// The hour under which it is named.
    pub hour: BundleHour,
    /// The log that it holds: whole segments.
    pub span: Span,
    /// Bytes of the object and of its index.
    pub stored_bytes: u64,
}

impl Bundle {
    /// Whether it holds the segment that begins there.
    const fn holds(&self, start: LogOffset) -> bool {
        self.span.from.0 <= start.0 && start.0 < self.span.to.0
    }
}

/// An object below the bundles of a branch.
struct Part {
    hour: BundleHour,
    span: Span,
    is_index: bool,
}

/// Reads `2026/01/29/14/<from>-<to>`, with or without the ending of an index.
fn parse(relative: &str) -> Option<Part> {
    let (hour, name) = relative.rsplit_once('/')?;
    let (span, is_index) = name.strip_suffix(INDEX).map_or((name, false), |span| (span, true));
    Some(Part { hour: BundleHour::parse(hour)?, span: names::parse_span(span)?, is_index })
}

impl LogStore {
    fn bundle_name(&self, hour: BundleHour, span: Span) -> String {
        format!("{}/{hour}/{}", self.bundles, names::span(span))
    }

    fn index_name(&self, bundle: &Bundle) -> String {
        format!("{}{INDEX}", self.bundle_name(bundle.hour, bundle.span))
    }

    /// The bundles of the branch, by position.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn bundles(&self) -> Result<Vec<Bundle>, RepoError> {
        let (mut found, mut data): (Vec<Bundle>, Option<(Span, u64)>) = (Vec::new(), None);
        self.each_bundle_object(&mut |part, size| {
            // An index sorts right behind its data.
            if !part.is_index {
                data = Some((part.span, size));
            } else if let Some((span, bytes)) = data.take()
                && span == part.span
            {
                let stored_bytes = bytes.saturating_add(size);
                found.push(Bundle { hour: part.hour, span, stored_bytes });
            }
        })?;
        found.sort_by_key(|bundle| (bundle.span.from, bundle.span.to));
        self.shared.bundles.learn(&self.bundles, &found);
        Ok(found)
    }

    fn each_bundle_object(&self, visit: &mut dyn FnMut(Part, u64)) -> Result<(), RepoError> {
        let prefix = format!("{}/", self.bundles);
        self.shared.store.list(&prefix, None, &mut |info| {
            if let Some(part) = info.name.strip_prefix(&prefix).and_then(parse) {
                visit(part, info.size);
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Whether a bundle holds the segment at `start`, from a new listing.
    pub(super) fn is_bundled(&self, start: LogOffset) -> Result<bool, RepoError> {
        Ok(self.bundles()?.iter().any(|bundle| bundle.holds(start)))
    }

    /// Bundles that hold segments of `span`, as far as they are known without asking the store.
    pub(super) fn known_bundles(&self, span: Span) -> Vec<Bundle> {
        let mut known = self.shared.bundles.known(&self.bundles);
        known.retain(|bundle| bundle.span.meets(span));
        known
    }

    fn index_of(&self, bundle: &Bundle) -> Result<std::sync::Arc<Index>, RepoError> {
        let name = self.index_name(bundle);
        self.shared.bundles.index(&name, || Index::read(&self.shared, &name, bundle.span, self.names.size))
    }

    fn open_bundle(&self, bundle: &Bundle) -> Result<std::sync::Arc<Opened>, RepoError> {
        let name = self.bundle_name(bundle.hour, bundle.span);
        let index = self.index_of(bundle)?;
        self.shared.bundles.opened(&name, || Opened::open(&self.shared, &name, index))
    }

    /// What `single` finds in an object of its own, or `bundled` in a bundle; `None` if the segment is in neither. A bundle
    /// that is known already is asked first; the store is asked for others only where nothing else has it.
    pub(super) fn either<T>(
        &self,
        start: LogOffset,
        single: impl Fn() -> Result<T, RepoError>,
        bundled: impl Fn(&Bundle) -> Result<T, RepoError>,
    ) -> Result<Option<T>, RepoError> {
        let (at, mut damage) = (Span { from: start, to: start.plus(1) }, None);
        let mut of_bundles = |bundles: Vec<Bundle>| {
            for bundle in bundles {
                match bundled(&bundle) {
                    Err(error) if error.is_missing() => {}
                    // The segment that it was made of may still be there, or in another.
                    Err(error) if error.is_damaged() => damage = Some(error),
                    result => return result.map(Some),
                }
            }
            Ok(None)
        };
        if let Some(found) = of_bundles(self.known_bundles(at))? {
            return Ok(Some(found));
        }
        match single() {
            Err(error) if error.is_missing() => {}
            result => return result.map(Some),
        }
        self.bundles()?;
        match of_bundles(self.known_bundles(at))? {
            None => damage.map_or(Ok(None), Err),
            found => Ok(found),
        }
    }

    /// The digest of a segment, from a bundle.
    pub(super) fn bundled_digest(
        &self,
        bundle: &Bundle,
        start: LogOffset,
    ) -> Result<everpoint_core::Digest, RepoError> {
        self.index_of(bundle)?.digest(self.number_in(bundle, start))
    }

    /// The bytes of a segment, from a bundle, in parts.
    pub(super) fn read_bundled(
        &self,
        bundle: &Bundle,
        start: LogOffset,
        out: &mut dyn FnMut(&[u8]),
    ) -> Result<(), RepoError> {
        self.open_bundle(bundle)?.read(self.number_in(bundle, start), out)
    }

    /// The same as a whole, expanded with up to `workers` threads.
    pub(super) fn read_bundled_into(
        &self,
        bundle: &Bundle,
        start: LogOffset,
        workers: usize,
    ) -> Result<Vec<u8>, RepoError> {
        self.open_bundle(bundle)?.read_into(self.number_in(bundle, start), workers)
    }

    fn number_in(&self, bundle: &Bundle, start: LogOffset) -> usize {
        usize::try_from(start.since(bundle.span.from) / self.names.size.max(1)).unwrap_or(usize::MAX)
    }

    /// Removes a bundle, its index first. One that is not there is no error.
    pub(super) fn remove_bundle(&self, bundle: &Bundle) -> Result<(), RepoError> {
        self.shared.store.delete(&self.index_name(bundle))?;
        self.shared.store.delete(&self.bundle_name(bundle.hour, bundle.span))?;
        self.shared.bundles.forget(&self.bundles, bundle.span);
        Ok(())
    }
}

/// The kind of the data objects.
const DATA: ObjectKind = ObjectKind::Bundle;

fn gone(name: &str) -> RepoError {
    missing("read", name)
}
