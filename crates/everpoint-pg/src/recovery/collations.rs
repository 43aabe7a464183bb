//! Sort orders: an index on text is only right under the versions of glibc and ICU that it was built with, and another
//! machine may have others. Wrong ones lose rows in silence, so what differs is told with what mends it.

use std::collections::BTreeSet;
use std::process::Command;

use crate::client::{Connection, quote_identifier};

/// So many databases are named one by one.
const NAMED: usize = 20;

/// What differs, as far as it can be told without a server: `facts` were recorded with the backup.
pub(crate) fn compared(facts: &[(String, String)]) -> Vec<String> {
    judge(facts, glibc_here().as_deref())
}

/// Version of this machine's glibc; `None` where there is another library.
fn glibc_here() -> Option<String> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("glibc ").map(str::to_owned)
}

fn judge(facts: &[(String, String)], here: Option<&str>) -> Vec<String> {
    let named = |name: &str| facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let with = |prefix: &'static str| {
        facts.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    };
    let by_icu: BTreeSet<&str> =
        with("locale provider ").filter(|(_, provider)| *provider == "i").map(|(name, _)| name).collect();
    let is_sorted_by_libc = |(name, locale): &(&str, &str)| {
        let fixed = ["C", "POSIX"].contains(locale) || locale.starts_with("C.");
        !fixed
            && !by_icu.contains(name)
            && with("locale provider ").all(|(other, it)| other != *name || it == "c")
    };
    let locales = with("locale ").filter(|(name, _)| !name.starts_with("provider "));
    let locales = locales.map(|(name, locale)| (name, locale.split(' ').next().unwrap_or_default()));
    let by_libc: BTreeSet<&str> = locales.filter(is_sorted_by_libc).map(|(name, _)| name).collect();
    let libc = named("collation library libc");
    let is_same = |version: &str| libc == Some(version) && libc == here;
    let own = with("collation ").filter(|(name, version)| !is_of_ours(name) && !is_same(version));
    let own: Vec<&str> = own.map(|(name, _)| name).collect();
    let mut told = Vec::new();
    if !by_libc.is_empty() && (libc.is_none() || libc != here) {
        told.push(advice("glibc", libc, here, &by_libc));
    }
    // ICU belongs to the programs: only a running server tells its version.
    if !by_icu.is_empty() {
        told.push(advice("ICU", named("collation library icu"), None, &by_icu));
    }
    if !own.is_empty() {
        told.push(format!(
            "whether the collations {} sort here as they did there is not known: after the start ALTER COLLATION … \
             REFRESH VERSION tells, and what is indexed by them wants REINDEX where it changed",
            own.join(", ")
        ));
    }
    told
}

/// Facts whose names begin like those of collations.
fn is_of_ours(name: &str) -> bool {
    name.starts_with("library ") || name.starts_with("of database ")
}

fn advice(library: &str, there: Option<&str>, here: Option<&str>, databases: &BTreeSet<&str>) -> String {
    let shown = |version: Option<&str>| version.unwrap_or("unknown").to_owned();
    let names: Vec<String> = databases.iter().map(|name| quote_identifier(name)).collect();
    let commands: Vec<String> = names.iter().take(NAMED).map(|name| mend(name)).collect();
    format!(
        "sort orders may differ: {library} was {} there and is {} here; unless you know that they are the same, indexes on \
         text have to be rebuilt after the start, in each database by itself: {}",
        shown(there),
        shown(here),
        commands.join(" ")
    )
}

/// `database`: quoted.
fn mend(database: &str) -> String {
    format!("REINDEX DATABASE {database}; ALTER DATABASE {database} REFRESH COLLATION VERSION;")
}

/// Since 15 a database remembers the version that its indexes were built with.
const DATABASES: &str = "SELECT datname, datcollversion, coalesce(pg_catalog.pg_database_collation_actual_version(oid), \
     'none') FROM pg_catalog.pg_database WHERE datallowconn AND datcollversion IS DISTINCT FROM \
     pg_catalog.pg_database_collation_actual_version(oid) AND datcollversion IS NOT NULL ORDER BY datname";

const COLLATIONS: &str = "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname), \
     c.collversion, coalesce(pg_catalog.pg_collation_actual_version(c.oid), 'none') FROM pg_catalog.pg_collation c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL AND c.oid >= 16384 AND \
     c.collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(c.oid) ORDER BY 1";

/// What the running server says of its databases, and of the collations of the one that is connected.
pub(super) fn asked(sql: &mut Connection, major: u32) -> Vec<String> {
    let mut told = Vec::new();
    if major >= 15 {
        for (name, there, here) in rows(sql, DATABASES) {
            let name = quote_identifier(&name);
            told.push(format!(
                "the indexes of database {name} were built with sort orders of version {there}, here they have {here}: in it \
                 run {}",
                mend(&name)
            ));
        }
    }
    for (name, there, here) in rows(sql, COLLATIONS) {
        told.push(format!(
            "collation {name} had version {there} and has {here} here: REINDEX what is indexed by it, then ALTER COLLATION \
             {name} REFRESH VERSION;"
        ));
    }
    told
}

fn rows(sql: &mut Connection, query: &str) -> Vec<(String, String, String)> {
    let found = sql.query(query).map(|rows| rows.0).unwrap_or_default();
    let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten();
    found.iter().filter_map(|row| Some((text(row, 0)?, text(row, 1)?, text(row, 2)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn another_glibc_is_told_with_the_databases_that_it_sorts() {
        let known = facts(&[
            ("locale shop", "de_DE.UTF-8 de_DE.UTF-8"),
            ("locale plain", "C C"),
            ("locale new", "C.UTF-8 C.UTF-8"),
            ("collation library libc", "2.31"),
        ]);
        assert_eq!(judge(&known, Some("2.31")), Vec::<String>::new());
        let told = judge(&known, Some("2.36"));
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("glibc was 2.31 there and is 2.36 here"), "{told:?}");
        assert!(
            told[0].contains("REINDEX DATABASE \"shop\"; ALTER DATABASE \"shop\" REFRESH COLLATION VERSION;")
        );
        assert!(!told[0].contains("plain") && !told[0].contains("new"));
        // Musl, or a backup that does not say: nobody knows, and that is told too.
        assert!(judge(&known, None)[0].contains("is unknown here"));
        assert!(judge(&known[..3], Some("2.36"))[0].contains("was unknown there"));
    }

    #[test]
    fn icu_is_known_to_a_running_server_alone() {
        let known = facts(&[
            ("locale shop", "en_US.UTF-8 en_US.UTF-8"),
            ("locale provider shop", "i"),
            ("locale sorted", "en_US.UTF-8 en_US.UTF-8"),
            ("locale provider sorted", "b"),
            ("collation library icu", "153.112"),
        ]);
        let told = judge(&known, Some("2.36"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("ICU was 153.112 there and is unknown here"));
    }

    #[test]
    fn collations_of_ones_own_are_named_unless_they_are_known_to_sort_alike() {
        let known = facts(&[
            ("collation library libc", "2.36"),
            ("collation public.german", "2.36"),
            ("collation public.numeric", "153.112"),
            ("collation of database shop", "2.36"),
        ]);
        let told = judge(&known, Some("2.36"));
        assert!(told.len() == 1 && told[0].contains("collations public.numeric sort"), "{told:?}");
        assert!(judge(&known, Some("2.41"))[0].contains("public.german, public.numeric"));
    }

    #[test]
    fn nothing_is_told_where_all_is_sorted_by_bytes() {
        let known =
            facts(&[("locale a", "C C"), ("locale b", "POSIX POSIX"), ("collation library libc", "2.31")]);
        assert_eq!(judge(&known, Some("2.36")), Vec::<String>::new());
    }
}
