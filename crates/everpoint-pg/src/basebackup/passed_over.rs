//! What a server says while it sends a base backup: it passes over links and special files with a warning and no more.

use std::collections::BTreeSet;
use std::path::Path;

use everpoint_core::name::{of_path, to_path};
use everpoint_engine::{EngineError, TablespaceLink};

use crate::client::ServerError;
use crate::files::{Class, Live, Notes, SOCKET, classify, is_needed};

/// Facts that begin so hold a warning of the server, with its number.
pub(crate) const WARNED: &str = "server warning ";
/// The function of the server that lists directories: a warning of it means that it passes over what it names.
const LISTS: &str = "sendDir";
/// Functions that check pages. We check them ourselves, and know which belong to no database.
const CHECK_PAGES: [&str; 3] = ["sendFile", "verify_page_checksum", "verify_page"];
/// Why something is not in the image.
const PASSED_OVER: &str =
    "it is a link or no regular file, and the server passes over it when it sends its files";
/// So many paths are named in an error.
const NAMED: usize = 10;
/// Where the links to tablespaces are, and those that lie in the data directory.
const IN_PLACE: &str = "pg_tblspc/";
/// Marks around a name, in the languages of the server.
const QUOTES: [char; 12] = ['"', '\'', '«', '»', '„', '“', '”', '‘', '’', '‹', '›', '`'];

/// What must be known to judge warnings.
pub(super) struct Sent<'a> {
    pub(super) object: &'a str,
    pub(super) links: &'a [TablespaceLink],
    /// Files that the server's functions gave, although its backup passes over them.
    pub(super) came: &'a BTreeSet<String>,
    pub(super) live: Option<&'a Live>,
    /// We check the pages ourselves.
    pub(super) checks: bool,
}

impl Sent<'_> {
    /// Notes what is lacking; the rest becomes facts.
    ///
    /// # Errors
    /// If the server needs what it passed over.
    pub(super) fn judge(
        &self,
        warnings: &[ServerError],
        notes: &Notes,
    ) -> Result<Vec<(String, String)>, EngineError> {
        let (mut facts, mut needed) = (Vec::new(), Vec::new());
        for warning in warnings {
            let routine = warning.origin.as_ref().map_or("", |(_, routine)| routine);
            if routine == LISTS {
                // Of what can't be told what it is nothing is known, and the server may need it.
                let Some(path) = self.named(&warning.message) else {
                    needed.push(warning.message.clone());
                    continue;
                };
                if self.is_skipped(&path) {
                    continue;
                }
                if is_needed(&path, self.live) {
                    needed.push(path);
                } else {
                    notes.lacks(&path, PASSED_OVER);
                }
            } else if !(self.checks && CHECK_PAGES.contains(&routine)) {
                facts.push((format!("{WARNED}{}", facts.len() + 1), warning.message.clone()));
            }
        }
        if needed.is_empty() { Ok(facts) } else { Err(self.lost(&needed)) }
    }

    /// Whether it is left out of an image anyway, or came by other means.
    fn is_skipped(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        let skipped = matches!(classify(path), Class::Skip(_)) || name.starts_with(SOCKET);
        skipped || self.came.contains(path)
    }

    fn lost(&self, needed: &[String]) -> EngineError {
        let named: Vec<&str> = needed.iter().take(NAMED).map(String::as_str).collect();
        let more = needed.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let message = format!("{}{more}: {PASSED_OVER}", named.join(", "));
        EngineError::new("pg.files", "back up", self.object, message).hint(
            "the server needs it: put the directory or file itself in its place (a tablespace may lie elsewhere), or set \
             data_dir, where Everpoint can read the files and follows the link",
        )
    }

    /// The path that a message names, as the image has it. Marks may be part of it, so that its beginning and its end are
    /// looked for: the one is a known place, the other the last mark of the message.
    fn named(&self, message: &str) -> Option<String> {
        let places = self.links.iter().filter_map(|link| link.path.as_deref());
        let begin = places.chain(["./", IN_PLACE]).filter_map(|place| message.find(place)).min()?;
        let end = message.rfind(QUOTES).filter(|end| *end > begin)?;
        let path = message.get(begin..end)?.trim_end();
        if let Some(inside) = path.strip_prefix("./") {
            return Some(inside.to_owned());
        }
        let below = to_path(path);
        let space = self.links.iter().find_map(|link| {
            let place = to_path(link.path.as_deref()?);
            Some(format!("{IN_PLACE}{}/{}", link.oid, of_path(Path::new(below.strip_prefix(place).ok()?))))
        });
        space.or_else(|| path.starts_with(IN_PLACE).then(|| path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(message: &str, routine: &str) -> ServerError {
        let origin = Some(("basebackup.c".to_owned(), routine.to_owned()));
        ServerError { message: message.to_owned(), origin, ..ServerError::default() }
    }

    /// Facts, and what is lacking.
    type Judged = (Vec<(String, String)>, Vec<String>);

    fn judge(warnings: &[ServerError]) -> Result<Judged, EngineError> {
        let links = [
            TablespaceLink { oid: 16400, path: Some("/srv/ts".to_owned()) },
            TablespaceLink { oid: 16401, path: Some("/srv/it\"s « a »/ts".to_owned()) },
        ];
        let live =
            Live { databases: BTreeSet::from([5]), tablespaces: BTreeSet::from([16400, 16401, 16402]) };
        let came = BTreeSet::from(["pg_hba.conf".to_owned()]);
        let sent = Sent { object: "db", links: &links, came: &came, live: Some(&live), checks: true };
        let notes = Notes::default();
        let facts = sent.judge(warnings, &notes)?;
        Ok((facts, notes.into_lacking().into_keys().collect()))
    }

    #[test]
    fn what_the_server_passes_over_is_lacking_in_any_language() {
        let (facts, lacking) = judge(&[
            warning("skipping special file \"./log\"", "sendDir"),
            warning("überspringe besondere Datei »./a b/fifo«", "sendDir"),
            warning("ignore le fichier spécial « ./c »", "sendDir"),
            warning("skipping special file \"/srv/ts/notes\"", "sendDir"),
            warning("skipping special file \"./it\"s ’ours\"", "sendDir"),
            warning("skipping special file \"/srv/it\"s « a »/ts/x\"", "sendDir"),
            warning("\"./日\"のスペシャルファイルをスキップしています", "sendDir"),
            warning("skipping special file \"./.s.PGSQL.5432\"", "sendDir"),
            warning("skipping special file \"./pg_hba.conf\"", "sendDir"),
            warning("skipping special file \"./base/99999\"", "sendDir"),
            warning("checksum verification failed in file \"./base/5/1\", block 3", "sendFile"),
            warning("something else", "other"),
        ])
        .unwrap();
        assert_eq!(
            lacking,
            [
                "a b/fifo",
                "base/99999",
                "c",
                "it\"s ’ours",
                "log",
                "pg_tblspc/16400/notes",
                "pg_tblspc/16401/x",
                "日"
            ]
        );
        assert_eq!(facts, [("server warning 1".to_owned(), "something else".to_owned())]);
    }

    #[test]
    fn what_the_server_needs_is_never_passed_over() {
        for path in [
            "./base/5",
            "./pg_xact",
            "./base/5/1259",
            "/srv/ts/PG_15_1/5",
            "/srv/it\"s « a »/ts/PG_15_1/5",
            "pg_tblspc/16402/PG_15_1/5",
            // A place that we don't know.
            "/srv/other/PG_15_1/5",
        ] {
            let error =
                judge(&[warning(&format!("skipping special file \"{path}\""), "sendDir")]).unwrap_err();
            assert_eq!(error.code, "pg.files", "{path}");
            assert!(error.hint.is_some());
        }
    }
}
