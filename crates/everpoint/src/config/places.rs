//! To which table a key belongs: a line that is put at the end of a file belongs to the last table, whatever was meant.

/// Keys that one kind of table alone has.
pub(super) const KEYS: [(&str, &[&str]); 5] = [
    (
        "[cluster.NAME]",
        &[
            "postgres",
            "mongodb",
            "password_file",
            "password_command",
            "data_dir",
            "pg_bin",
            "slot",
            "checkpoint",
            "compression",
        ],
    ),
    ("[repository.NAME]", &["key_file", "key_command"]),
    ("[api]", &["listen", "tokens", "restore_dir", "insecure"]),
    ("[serve]", &["state_dir", "max_retained"]),
    ("[limits]", &["read_rate", "fetch_ahead", "push_ahead", "scratch_dir", "standby_lag"]),
];

/// The table to which a key of this name belongs, if that is one alone.
pub(super) fn of_key(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(_, keys)| keys.contains(&key)).map(|(table, _)| *table)
}
