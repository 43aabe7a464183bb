//! The surroundings that connection parameters are completed from.

use std::collections::HashMap;
use std::path::PathBuf;

/// Environment variables, home directory and user name, as values: a test gives its own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| {
                name.starts_with("PG") || matches!(name.as_str(), "HOME" | "USER" | "LOGNAME")
            })
            .collect();
        Self { variables }
    }

    /// With exactly these variables.
    #[must_use]
    pub fn with(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file in the home directory.
    #[must_use]
    pub fn in_home(&self, relative: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| PathBuf::from(home).join(relative))
    }

    /// The operating system's name of the user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.get("USER").or_else(|| self.get("LOGNAME"))
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // PGPASSWORD may be among the values.
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
