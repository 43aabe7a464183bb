//! Tablespaces that lie inside the data directory.

use std::time::Duration;

use everpoint_core::name::{of_path, to_path};

use crate::client::{Connection, Until};

/// A server that does not answer for so long is gone.
const ANSWER: Duration = Duration::from_secs(60);
/// Null for a role that may not know it.
const DATA: &str = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";
/// Whether the role may look which links there are.
const MAY: &str = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_ls_dir(text)', 'EXECUTE')";
/// Nothing but bytes is asked for: functions that compare texts refuse a path that is none in the database's encoding.
const PLACES: &str = "SELECT spcname, pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace";
/// A place whose link is gone can't be asked for.
const LINKED: &str =
    " WHERE oid::pg_catalog.text IN (SELECT pg_catalog.pg_ls_dir('pg_tblspc')) OR oid < 16384";

/// Their names and places, in words; `None` if there are none, or the role may not know. A refused question would be an error
/// in the server's log.
pub(super) fn inside(sql: &mut Connection) -> Option<String> {
    let mut ask =
        |query: &str| sql.query_exact_until(query, Until { limit: Some(ANSWER), stop: &|| false }).ok();
    let data = ask(DATA)?.single()?.to_owned();
    let may = ask(MAY)?.single() == Some("t");
    let rows = ask(&if may { format!("{PLACES}{LINKED}") } else { PLACES.to_owned() })?;
    let places = rows.0.iter().filter_map(|row| row.first()?.as_deref().zip(row.get(1)?.as_deref()));
    among(&data, places)
}

/// Those of these tablespaces (name and place, both escaped) that lie below a directory.
fn among<'a>(data: &str, places: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let data = to_path(data);
    let below = |place: &str| to_path(place).strip_prefix(&data).is_ok_and(|rest| !of_path(rest).is_empty());
    let named: Vec<String> =
        places.filter(|(_, place)| below(place)).map(|(name, place)| format!("{name} ({place})")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_the_directory_is_named_by_its_bytes() {
        let places =
            [("pg_default", ""), ("a", "/d/in\\xe9"), ("b", "/data"), ("c", "/d"), ("e\\xe9", "/d/x/y")];
        let found = among("/d", places.into_iter());
        assert_eq!(found.unwrap(), "a (/d/in\\xe9), e\\xe9 (/d/x/y)");
        assert_eq!(among("/e", places.into_iter()), None);
    }
}
