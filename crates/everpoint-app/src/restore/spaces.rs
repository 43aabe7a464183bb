//! Where each tablespace of an image, and each that its log will create, is restored.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use everpoint_core::{CreatedTablespace, FailureClass};
use everpoint_format::manifest::TablespaceRecord;

use crate::AppError;

/// Where tablespaces lie in a copy for a server that takes only links.
pub const LINKED_INSIDE: &str = "everpoint-tablespaces";

/// Who says where a tablespace goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The operator, by `--map`.
    Map,
    /// The link of production's own data directory, which is restored in place.
    Link,
    /// The path that it had in production, which is to be replaced.
    Origin,
    /// Nobody: it lies inside of the data directory.
    Inside,
}

/// A tablespace and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The path that it had in production; empty for one inside the data directory.
    pub origin: String,
    /// Where it goes; `None`: a directory in `pg_tblspc`.
    pub place: Option<PathBuf>,
    /// Who says so.
    pub by: By,
    /// The image does not hold it; the log creates it.
    pub created: bool,
}

/// What decides.
#[derive(Debug)]
pub struct Wishes<'a> {
    /// The data directory, absolute.
    pub root: &'a Path,
    /// `OLD=NEW` by path or oid.
    pub map: &'a [(String, String)],
    /// Links that lead to tablespaces and may be followed: those of production's own directory.
    pub links: &'a BTreeMap<u32, PathBuf>,
    /// Tablespaces that are directories inside of production's own.
    pub inside: &'a BTreeSet<u32>,
    /// Production is to be replaced.
    pub replace_production: bool,
    /// The data directory that production had.
    pub origin: Option<&'a str>,
    /// A tablespace may be a directory instead of a link.
    pub directories: bool,
}

impl Wishes<'_> {
    /// Places the tablespaces of an image and those that the log creates.
    ///
    /// # Errors
    /// `Usage` if a mapping is no good, or two tablespaces would lie in one place.
    pub fn places(
        &self,
        image: &[TablespaceRecord],
        created: &[CreatedTablespace],
    ) -> Result<BTreeMap<u32, Space>, AppError> {
        let mut spaces = BTreeMap::new();
        for space in image {
            let origin = space.path.clone().unwrap_or_default();
            spaces.insert(space.oid, self.place(space.oid, origin, false)?);
        }
        for CreatedTablespace { oid, path, finished } in created {
            if !spaces.contains_key(oid) {
                // Unfinished it is none: what replay makes of it stays inside, and nobody's files are touched.
                let space = if *finished { self.place(*oid, path.clone(), true)? } else { self.inside(*oid) };
                spaces.insert(*oid, space);
            }
        }
        for (old, new) in self.map {
            if !spaces.iter().any(|(oid, space)| names(old, *oid, &space.origin)) {
                let known = spaces.iter().map(|(oid, space)| format!("{oid} ({})", space.origin));
                let known = known.collect::<Vec<_>>().join(", ");
                let hint = if known.is_empty() {
                    "leave --map out: the backup has no tablespaces, and the log creates none".to_owned()
                } else {
                    format!("its tablespaces are {known}")
                };
                return Err(mistake(old, new, "the backup has no such tablespace, and the log creates none")
                    .hint(hint));
            }
        }
        self.apart(&spaces)?;
        Ok(spaces)
    }

    fn place(&self, oid: u32, origin: String, created: bool) -> Result<Space, AppError> {
        let mut mapped = self.map.iter().filter(|(old, _)| names(old, oid, &origin));
        if let Some((old, new)) = mapped.next() {
            if mapped.next().is_some() {
                return Err(mistake(old, new, "the same tablespace is mapped twice"));
            }
            let place = PathBuf::from(new);
            if !place.is_absolute() || place.components().any(|part| part == Component::ParentDir) {
                return Err(mistake(old, new, "a tablespace needs an absolute path"));
            }
            if real(&place).starts_with(real(self.root)) {
                return Err(mistake(
                    old,
                    new,
                    "it lies inside of the data directory, where it would go by itself",
                ));
            }
            return Ok(Space { origin, place: Some(place), by: By::Map, created });
        }
        if let Some(link) = self.links.get(&oid) {
            return Ok(Space { origin, place: Some(link.clone()), by: By::Link, created });
        }
        if self.replace_production && origin.starts_with('/') && !self.inside.contains(&oid) {
            let place = self.moved(&origin);
            return Ok(Space { origin, place: Some(place), by: By::Origin, created });
        }
        Ok(Space { origin, created, ..self.inside(oid) })
    }

    /// A tablespace that the log creates, and that lies inside.
    fn inside(&self, oid: u32) -> Space {
        let place = (!self.directories).then(|| self.root.join(LINKED_INSIDE).join(oid.to_string()));
        Space { origin: String::new(), place, by: By::Inside, created: true }
    }

    /// A tablespace inside of production's data directory goes with it.
    fn moved(&self, origin: &str) -> PathBuf {
        let inside = self.origin.and_then(|old| Path::new(origin).strip_prefix(old).ok());
        inside.map_or_else(|| PathBuf::from(origin), |inside| self.root.join(inside))
    }

    /// Refuses places of which one lies in another, as far as they were named by hand.
    fn apart(&self, spaces: &BTreeMap<u32, Space>) -> Result<(), AppError> {
        let root = real(self.root);
        let places: Vec<(u32, &Space, PathBuf)> = spaces
            .iter()
            .filter_map(|(oid, space)| Some((*oid, space, real(space.place.as_deref()?))))
            .collect();
        for (oid, space, place) in &places {
            let shown = space.place.as_deref().unwrap_or(place).display().to_string();
            let by_hand = space.by == By::Map;
            if root == *place || (by_hand && root.starts_with(place)) {
                return Err(mistake(&space.origin, &shown, "the data directory lies there"));
            }
            let meets = |other: &Path| {
                place == other || (by_hand && (place.starts_with(other) || other.starts_with(place)))
            };
            if places.iter().any(|(other_oid, _, other)| other_oid != oid && meets(other)) {
                return Err(mistake(&space.origin, &shown, "another tablespace goes there"));
            }
        }
        Ok(())
    }
}

/// Whether a name given by hand means this tablespace.
fn names(name: &str, oid: u32, origin: &str) -> bool {
    let plain = |path: &str| path.trim_end_matches('/').to_owned();
    name == oid.to_string() || (!origin.is_empty() && plain(name) == plain(origin))
}

fn mistake(old: &str, new: &str, message: &str) -> AppError {
    let object = format!("the tablespace {old} at {new}");
    AppError::new("restore.map", FailureClass::Usage, "place", object, message)
}

/// A path without links, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut missing: Vec<&OsStr> = Vec::new();
    for place in path.ancestors() {
        if let Ok(found) = std::fs::canonicalize(place) {
            return missing.iter().rev().fold(found, |path, part| path.join(part));
        }
        missing.extend(place.file_name());
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(oid: u32, path: &str) -> TablespaceRecord {
        TablespaceRecord { oid, path: Some(path.to_owned()) }
    }

    fn made(oid: u32, path: &str, finished: bool) -> CreatedTablespace {
        CreatedTablespace { oid, path: path.to_owned(), finished }
    }

    fn wishes<'a>(map: &'a [(String, String)], links: &'a BTreeMap<u32, PathBuf>) -> Wishes<'a> {
        let root = Path::new("/r/data");
        static NONE: BTreeSet<u32> = BTreeSet::new();
        let replace_production = false;
        Wishes { root, map, links, inside: &NONE, replace_production, origin: None, directories: true }
    }

    fn pairs(map: &[(&str, &str)]) -> Vec<(String, String)> {
        map.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect()
    }

    #[test]
    fn without_a_word_every_tablespace_lies_inside() {
        let links = BTreeMap::new();
        let image = [space(1, "/old/a"), TablespaceRecord { oid: 2, path: None }];
        let places = wishes(&[], &links).places(&image, &[made(3, "/old/c", true)]).unwrap();
        let link = BTreeMap::from([(3, PathBuf::from("/productions/own"))]);
        let none = wishes(&[], &link).places(&[], &[made(3, "/old/c", false)]).unwrap();
        assert_eq!(none.get(&3).unwrap().place, None, "it does not exist where the replay stops");
        assert!(places.values().all(|space| space.place.is_none() && space.by == By::Inside));
        assert_eq!(places.values().filter(|space| space.created).count(), 1);
        let old = Wishes { directories: false, ..wishes(&[], &links) }.places(&image, &[]).unwrap();
        assert_eq!(old[&1].place.as_deref(), Some(Path::new("/r/data/everpoint-tablespaces/1")));
    }

    #[test]
    fn a_map_then_a_link_then_the_origin() {
        let links = BTreeMap::from([(1, PathBuf::from("/l/a")), (2, PathBuf::from("/l/b"))]);
        let map = pairs(&[("1", "/new/a"), ("/old/d/", "/new/d")]);
        let image = [space(1, "/old/a"), space(2, "/old/b"), space(3, "/old/c"), space(5, "/prod/ts")];
        let created = [made(4, "/old/d", true)];
        let both = Wishes { replace_production: true, origin: Some("/prod"), ..wishes(&map, &links) };
        let places = both.places(&image, &created).unwrap();
        let place = |oid: u32| places[&oid].place.as_deref().unwrap().to_str().unwrap().to_owned();
        assert_eq!([1, 2, 3, 4, 5].map(place), ["/new/a", "/l/b", "/old/c", "/new/d", "/r/data/ts"]);
    }

    #[test]
    fn mappings_that_can_not_be_meant_are_mistakes() {
        let links = BTreeMap::new();
        let image = [space(1, "/old/a"), space(2, "/old/b")];
        for bad in [
            &[("/old/x", "/new")][..],
            &[("3", "/new")],
            &[("/old/a", "/new"), ("1", "/newer")],
            &[("/old/a", "new")],
            &[("/old/a", "/r/data/inside")],
            &[("/old/a", "/r/data")],
            &[("/old/a", "/r")],
            &[("/old/a", "/new"), ("/old/b", "/new")],
            &[("/old/a", "/new"), ("/old/b", "/new/below")],
            &[("/old/a", "/new/../r/data")],
        ] {
            let map = pairs(bad);
            let error = wishes(&map, &links).places(&image, &[]).unwrap_err();
            assert_eq!((error.code.as_str(), error.class), ("restore.map", FailureClass::Usage), "{bad:?}");
        }
        let map = pairs(&[("/old/a", "/new"), ("/old/b", "/newer")]);
        wishes(&map, &links).places(&image, &[]).unwrap();
    }
}
