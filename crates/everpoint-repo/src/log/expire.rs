//! Letting go of log that is not needed any more.

use std::ops::ControlFlow;

use everpoint_core::{LogOffset, Span};

use super::LogStore;
use super::pieces::Part;
use crate::{RepoError, names};

/// So many names are collected before they are removed.
const BATCH: usize = 10_000;

/// What is, or would be, removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Objects.
    pub objects: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

impl Freed {
    /// Adds one object.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects = self.objects.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds others.
    pub fn join(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl LogStore {
    /// Removes what ends at `until` or before and holds no byte of `keep`, or with `dry_run` only counts it. A bundle of
    /// which any byte is kept stays as a whole.
    ///
    /// # Errors
    /// If the store fails; what was removed by then is gone, and nothing else.
    pub fn expire(&self, keep: &[Span], until: LogOffset, dry_run: bool) -> Result<Freed, RepoError> {
        let goes = |span: Span| {
            let kept = keep.iter().any(|kept| kept.meets(span));
            span.to <= until && !kept
        };
        let mut freed = Freed::default();
        for bundle in self.bundles()?.iter().filter(|bundle| goes(bundle.span)) {
            freed.add(bundle.stored_bytes);
            if !dry_run {
                self.remove_bundle(bundle)?;
            }
        }
        let mut after: Option<String> = None;
        loop {
            let (names, last) = self.batch(after.as_deref(), &goes, &mut freed)?;
            if !dry_run {
                names.iter().try_for_each(|name| self.shared.store.delete(name))?;
            }
            let Some(last) = last else { return Ok(freed) };
            after = Some(last);
        }
    }

    /// Removes everything of the branch, its history last, or with `dry_run` only counts it.
    ///
    /// # Errors
    /// If the store fails; what was removed by then is gone, and nothing else.
    pub fn remove_all(&self, dry_run: bool) -> Result<Freed, RepoError> {
        let (mut freed, mut found) = (Freed::default(), Vec::new());
        for base in [&self.bundles, &self.base] {
            self.shared.store.list(&format!("{base}/"), None, &mut |info| {
                freed.add(info.size);
                found.push(info.name);
                ControlFlow::Continue(())
            })?;
        }
        let history = format!("{}/history", self.base);
        found.sort_by_key(|name| *name == history);
        if !dry_run {
            found.iter().try_for_each(|name| self.shared.store.delete(name))?;
        }
        Ok(freed)
    }

    /// Names of objects that go, and the last name that was looked at if there may be more.
    fn batch(
        &self,
        after: Option<&str>,
        goes: &dyn Fn(Span) -> bool,
        freed: &mut Freed,
    ) -> Result<(Vec<String>, Option<String>), RepoError> {
        let prefix = format!("{}/", self.base);
        let (mut names, mut last) = (Vec::new(), None);
        self.shared.store.list(&prefix, after, &mut |info| {
            let relative = info.name.strip_prefix(&prefix).unwrap_or_default();
            if self.span_of(relative).is_some_and(goes) {
                freed.add(info.size);
                names.push(info.name);
                if names.len() >= BATCH {
                    last = names.last().cloned();
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok((names, last))
    }

    /// The part of the log that an object is about; `None` for those that stay in any case.
    fn span_of(&self, relative: &str) -> Option<Span> {
        let whole = |start: LogOffset| Span { from: start, to: start.plus(self.names.size) };
        if let Some(gap) = relative.strip_prefix("gap/") {
            return names::parse_span(gap);
        }
        if let Some(file) = relative.strip_prefix("other/") {
            return self.names.parse(file.get(..24)?).map(whole);
        }
        match super::pieces::classify(self.names, relative)? {
            (_, Part::Tail(span)) => Some(span),
            (start, Part::Segment | Part::Digest) => Some(whole(start)),
        }
    }
}
