//! Tablespaces that the server does not list when it sends its files.

use std::collections::BTreeSet;

use everpoint_engine::{EngineError, TablespaceLink};

use crate::files::{Live, number};

/// Tablespaces of the server itself lie in `base` and `global` (`pg_tablespace_d.h`).
const OWN: [u32; 2] = [1663, 1664];

/// The list of tablespaces with those in it that lie in `pg_tblspc` themselves: a server up to version 14 lists only links.
pub(super) fn with_in_place(mut listed: Vec<TablespaceLink>, live: Option<&Live>) -> Vec<TablespaceLink> {
    let known: BTreeSet<u32> = listed.iter().map(|link| link.oid).chain(OWN).collect();
    let inside = live.iter().flat_map(|live| live.tablespaces.difference(&known));
    let inside: Vec<_> = inside.map(|oid| TablespaceLink { oid: *oid, path: None }).collect();
    listed.extend(inside);
    listed
}

/// The tablespace that an entry of the data directory's archive belongs to.
pub(super) fn of_entry(path: &str) -> Option<u32> {
    let (space, _) = path.strip_prefix("pg_tblspc/")?.split_once('/')?;
    number(space)
}

/// Proves that something came of every tablespace that the server had all the while; `came` has those that it listed, too.
///
/// # Errors
/// Names those of which nothing came: an image without them would be restored without their tables.
pub(super) fn all_came(
    object: &str,
    came: &BTreeSet<u32>,
    before: Option<&Live>,
    after: Option<&Live>,
) -> Result<(), EngineError> {
    let Some((before, after)) = before.zip(after) else { return Ok(()) };
    let there = before.tablespaces.intersection(&after.tablespaces);
    let lost: Vec<String> = there
        .filter(|oid| !came.contains(oid) && !OWN.contains(oid))
        .map(|oid| format!("pg_tblspc/{oid}"))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("the server sent nothing of tablespace {}", lost.join(", "));
    Err(EngineError::new("pg.files", "back up", object, message).hint(
        "see whether its link, or its directory, in pg_tblspc leads to the files; a tablespace whose files are gone for good is \
         taken out with DROP TABLESPACE",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(tablespaces: &[u32]) -> Live {
        Live { tablespaces: tablespaces.iter().copied().collect(), ..Live::default() }
    }

    #[test]
    fn what_is_not_listed_lies_inside() {
        let listed = vec![TablespaceLink { oid: 7, path: Some("/srv".to_owned()) }];
        let all = with_in_place(listed.clone(), Some(&live(&[7, 9, 1663, 1664])));
        assert_eq!(all, [listed[0].clone(), TablespaceLink { oid: 9, path: None }]);
        assert_eq!(with_in_place(listed.clone(), None), listed);
    }

    #[test]
    fn a_tablespace_that_was_there_all_the_while_must_have_come() {
        let (before, after) = (live(&[7, 8, 9, 1663]), live(&[7, 9, 10, 1663]));
        let judge = |came: &[u32]| {
            all_came("db", &came.iter().copied().collect(), Some(&before), Some(&after))
                .map_err(|e| e.to_string())
        };
        assert_eq!(judge(&[7, 9]), Ok(()));
        assert!(judge(&[7, 10]).unwrap_err().contains("pg_tblspc/9"));
        assert_eq!(of_entry("pg_tblspc/16400/PG_14_202107181"), Some(16400));
        assert_eq!(of_entry("pg_tblspc/16400"), None);
        assert_eq!(of_entry("base/5/1"), None);
    }
}
