//! Reading a server's settings without leaving errors in its log: a setting that a version lacks, or hides from a role, is
//! not asked for.

use std::collections::BTreeMap;

use super::{Connection, PgError, Purpose, quote_literal};

/// Settings that we read and older servers lack, with the first major version that has them.
const SINCE: [(&str, u32); 7] = [
    ("ssl_crl_dir", 14),
    ("in_hot_standby", 14),
    ("idle_session_timeout", 14),
    ("archive_library", 15),
    ("transaction_timeout", 17),
    ("idle_replication_slot_timeout", 18),
    ("summarize_wal", 17),
];

/// Settings that only superusers and members of `pg_read_all_settings` see.
const HIDDEN: [&str; 6] = [
    "shared_preload_libraries",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "krb_server_keyfile",
];

impl Connection {
    /// These settings in their own units, as far as the server has them and shows them to this role.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn settings(&mut self, names: &[&str]) -> Result<BTreeMap<String, String>, PgError> {
        if self.purpose() == Purpose::Sql {
            return self.settings_by_sql(names);
        }
        let (major, superuser) = (self.major(), self.parameter("is_superuser") == Some("on"));
        let mut found = BTreeMap::new();
        for name in names.iter().filter(|name| shown(name, major, superuser)) {
            found.insert((*name).to_owned(), self.show(name)?);
        }
        Ok(found)
    }

    /// One of [`Connection::settings`].
    ///
    /// # Errors
    /// If the connection broke.
    pub fn setting(&mut self, name: &str) -> Result<Option<String>, PgError> {
        Ok(self.settings(&[name])?.remove(name))
    }

    /// The view holds what this role may see: a value is asked for only then.
    fn settings_by_sql(&mut self, names: &[&str]) -> Result<BTreeMap<String, String>, PgError> {
        let list: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
        let query = format!(
            "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE name IN ({})",
            list.join(", ")
        );
        let rows = self.query(&query)?;
        let pair = |mut row: Vec<Option<String>>| row.pop().flatten().zip(row.pop().flatten());
        Ok(rows.0.into_iter().filter_map(pair).map(|(value, name)| (name, value)).collect())
    }
}

/// Whether a session of replication may ask for it.
fn shown(name: &str, major: u32, superuser: bool) -> bool {
    let known = SINCE.iter().find(|(newer, _)| *newer == name).is_none_or(|(_, since)| major >= *since);
    known && (superuser || !HIDDEN.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_lacks_or_hides_is_not_asked_for() {
        assert!(!shown("archive_library", 14, true) && shown("archive_library", 15, false));
        assert!(!shown("shared_preload_libraries", 18, false) && shown("shared_preload_libraries", 13, true));
        assert!(shown("wal_level", 13, false));
    }
}
