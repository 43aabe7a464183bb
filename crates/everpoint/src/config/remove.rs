//! Takes a cluster out of a configuration file: its tables become comments, and nothing else changes by a byte.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_core::FailureClass;

use super::{Config, Variables};

/// The text without the cluster.
///
/// # Errors
/// Class `Usage` if that can't be done by commenting tables out, or something else in the file needs the cluster.
pub(crate) fn without_cluster(
    text: &str,
    path: &Path,
    name: &str,
    note: &str,
    variables: Variables<'_>,
) -> Result<String, AppError> {
    let refused = |message: String| {
        let object = path.display().to_string();
        AppError::new("forget.configuration", FailureClass::Usage, "take the cluster out of", object, message)
            .hint(format!("take everything about {name} out of it by hand, then run the same command again"))
    };
    let edited = commented_out(text, name, note);
    let (Ok(mut wanted), Ok(got)) = (text.parse::<toml::Table>(), edited.parse::<toml::Table>()) else {
        return Err(refused(format!("[cluster.{name}] can't be told from what is around it")));
    };
    if let Some(toml::Value::Table(clusters)) = wanted.get_mut("cluster") {
        clusters.remove(name);
        if clusters.is_empty() {
            wanted.remove("cluster");
        }
    }
    if wanted != got {
        return Err(refused(format!("{name} is not a table of its own, [cluster.{name}]")));
    }
    match Config::parse(&edited, path, variables) {
        Ok(_) => Ok(edited),
        Err(mistakes) => {
            let said: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
            Err(refused(format!("something else in it needs {name}: {}", said.join("; "))))
        }
    }
}

/// Comments out the tables of the cluster. What is written above a table, and between it and the next one, stays.
fn commented_out(text: &str, name: &str, note: &str) -> String {
    let mut out = String::with_capacity(text.len() + 200);
    let (mut inside, mut noted) = (false, false);
    for line in text.split_inclusive('\n') {
        if let Some(keys) = header(line) {
            inside = keys.first().is_some_and(|key| key == "cluster")
                && keys.get(1).is_some_and(|key| key == name);
            if inside && !std::mem::replace(&mut noted, true) {
                out.push_str(&format!("# {note}\n"));
            }
        }
        let plain = line.trim_start();
        if inside && !plain.is_empty() && !plain.starts_with('#') {
            out.push_str("# ");
        }
        out.push_str(line);
    }
    out
}

/// The keys of a line that begins a table, `[a."b.c"]` or `[[a.b]]`; `None`: it begins none.
fn header(line: &str) -> Option<Vec<String>> {
    let rest = line.trim_start().strip_prefix('[')?;
    let rest = rest.strip_prefix('[').unwrap_or(rest);
    let (mut keys, mut key, mut quote) = (Vec::new(), String::new(), None);
    for c in rest.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => key.push(c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '.') => keys.push(std::mem::take(&mut key)),
            (None, ']') => {
                keys.push(key);
                return Some(keys);
            }
            (None, c) if c.is_whitespace() => {}
            (None, c) => key.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# all that we have\n[repository.local]\nurl = \"/r\"\n\n# orders: ask Jane\n[cluster.orders]\n\
                        postgres = \"postgres://h/d\" # the address\n\n# of orders\n[cluster.orders.retention]\nlast = 3\n\n\
                        # the shop\n[cluster.\"shop.eu\"]\npostgres = \"\"\"\npostgres://h/[cluster.orders]\"\"\"\n";

    fn without(text: &str, name: &str) -> Result<String, AppError> {
        without_cluster(text, Path::new("/e.toml"), name, "forgotten", &|_| None)
    }

    #[test]
    fn only_the_tables_of_the_cluster_become_comments() {
        let text = TEXT.replace("\"\"\"\npostgres://h/[cluster.orders]\"\"\"", "\"postgres://h/e\"");
        let edited = without(&text, "orders").unwrap();
        let expected = text
            .replace("[cluster.orders]", "# forgotten\n# [cluster.orders]")
            .replace("postgres = \"postgres://h/d\"", "# postgres = \"postgres://h/d\"")
            .replace("[cluster.orders.retention]", "# [cluster.orders.retention]")
            .replace("last = 3", "# last = 3");
        assert_eq!(edited, expected);
        let edited = without(&text, "shop.eu").unwrap();
        assert!(edited.contains("# [cluster.\"shop.eu\"]") && edited.contains("\n[cluster.orders]"));
        let none = without(&edited, "orders").unwrap();
        assert!(Config::parse(&none, Path::new("/e.toml"), &|_| None).unwrap().clusters.is_empty());
    }

    #[test]
    fn what_can_not_be_done_safely_is_not_done() {
        // A text over several lines in which a line looks like a table.
        let odd = TEXT.replace("postgres://h/[cluster.orders]", "[cluster.orders]\npostgres://h/e");
        assert_eq!(without(&odd, "orders").unwrap_err().code, "forget.configuration");
        let inline = "[repository.r]\nurl = \"/r\"\n[cluster]\na.postgres = \"postgres://h/d\"\n";
        let error = without(inline, "a").unwrap_err();
        assert!(error.message.contains("not a table of its own"), "{error}");
        let needed = "[repository.r]\nurl = \"/r\"\n[cluster.a]\npostgres = \"postgres://h/d\"\n[cluster.b]\n\
                      postgres = \"postgres://h/e\"\n[offsite.v]\ntype = \"filesystem\"\npath = \"/v\"\npriority = [\"a\"]\n";
        let error = without(needed, "a").unwrap_err();
        assert!(error.message.contains("something else in it needs a"), "{error}");
        assert!(without(needed, "b").is_ok());
    }
}
