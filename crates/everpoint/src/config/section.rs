//! Reads one table of the file: each key once, with its type and range; what is left over is unknown.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::expand::expand;
use super::mistake::{self, Mistake, plain_or_name, word};
use super::places;
use everpoint_core::words::nearest;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: Range<usize>,
}

/// A value that may be written in two ways.
pub(crate) enum TextOrTable<'a> {
    Text(At<String>),
    Table(Section<'a>),
}

/// One table.
pub(crate) struct Section<'a> {
    name: String,
    at: Range<usize>,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(name: impl Into<String>, at: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { name: name.into(), at, table, known: Vec::new(), mistakes: Vec::new() }
    }

    /// Where the table's header stands.
    pub(crate) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    pub(crate) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    fn get(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, Range<usize>)> {
        self.known.push(key);
        self.table.get(key).map(|value| (value.get_ref(), value.span()))
    }

    fn wrong_type(&mut self, key: &str, wanted: &str, found: &DeValue<'_>, at: Range<usize>) {
        let message = format!("`{key}` must be {wanted}, not {}", type_name(found));
        self.mistakes.push(Mistake::new(at, message));
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let (value, at) = self.get(key)?;
        match value.as_str() {
            Some("") => {
                self.mistakes.push(Mistake::new(at, format!("`{key}` is empty")));
                None
            }
            Some(text) => Some(At { value: text.to_owned(), at }),
            None => {
                self.wrong_type(key, "a text in quotes", value, at);
                None
            }
        }
    }

    /// A text in which `${NAME}` stands for an environment variable; `$${` for a plain `${`.
    pub(crate) fn expanded(
        &mut self,
        key: &'static str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Option<At<String>> {
        let At { value, at } = self.text(key)?;
        match expand(&value, variable) {
            Ok(value) => Some(At { value, at }),
            Err(message) => {
                self.mistakes.push(Mistake::new(at, message));
                None
            }
        }
    }

    /// A path; a relative one begins at the configuration file's directory.
    pub(crate) fn path(&mut self, key: &'static str, base: &Path) -> Option<PathBuf> {
        self.text(key).map(|text| base.join(text.value))
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (value, at) = self.get(key)?;
        let Some(integer) = value.as_integer() else {
            self.wrong_type(key, "a whole number", value, at);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let message = format!("`{key}` must lie between {} and {}", bounds.start(), bounds.end());
            self.mistakes.push(Mistake::new(at, message));
        }
        number
    }

    /// A number of bytes: a whole number, or a text such as `"50MB"` or `"64 MiB"`.
    pub(crate) fn bytes(&mut self, key: &'static str) -> Option<u64> {
        let (value, at) = self.get(key)?;
        let parsed = match value {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            DeValue::String(text) => parse_bytes(text),
            _ => {
                self.wrong_type(key, "a number of bytes such as \"50MB\"", value, at);
                return None;
            }
        };
        if parsed.is_none_or(|bytes| bytes == 0) {
            let mistake = Mistake::new(at, format!("`{key}` is not a number of bytes"));
            self.mistakes.push(mistake.hint("write it like \"50MB\", \"64MiB\" or 1048576"));
            return None;
        }
        parsed
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let At { value, at } = self.text(key)?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == value) {
            return Some(*chosen);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let mut mistake = Mistake::new(at, format!("`{key}` must be one of: {}", words.join(", ")));
        if let Some(meant) = nearest(&value, words) {
            mistake = mistake.hint(format!("did you mean \"{meant}\"?"));
        }
        self.mistakes.push(mistake);
        None
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let (value, at) = self.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong_type(key, "true or false", value, at);
        }
        flag
    }

    /// A span of time in seconds: a whole number with a unit, `"90s"`, `"5min"`, `"26h"`, `"7d"`.
    pub(crate) fn seconds(&mut self, key: &'static str) -> Option<u64> {
        let At { value, at } = self.text(key)?;
        let parsed = parse_seconds(&value);
        if parsed.is_none() {
            let mistake = Mistake::new(at, format!("`{key}` is not a span of time"));
            self.mistakes.push(mistake.hint("write it like \"90s\", \"5min\", \"26h\" or \"7d\""));
        }
        parsed
    }

    /// A list of texts; empty if it is not there.
    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<At<String>> {
        let Some((value, at)) = self.get(key) else {
            return Vec::new();
        };
        let Some(list) = value.as_array() else {
            self.wrong_type(key, "a list of texts", value, at);
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in list {
            match item.get_ref().as_str() {
                Some(text) => found.push(At { value: text.to_owned(), at: item.span() }),
                None => self.wrong_type(key, "a list of texts", item.get_ref(), item.span()),
            }
        }
        found
    }

    /// What stands under any names in the table `key`: `{ Accept = "text/plain", Authorization = { file = "token" } }`.
    pub(crate) fn entries(&mut self, key: &'static str) -> Vec<(String, TextOrTable<'a>)> {
        let Some((value, at)) = self.get(key) else {
            return Vec::new();
        };
        let Some(table) = value.as_table() else {
            self.wrong_type(key, "a table", value, at);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in table {
            let (name, at) = (name.get_ref().to_string(), value.span());
            match (value.get_ref().as_str(), value.get_ref().as_table()) {
                (Some(text), _) => found.push((name, TextOrTable::Text(At { value: text.to_owned(), at }))),
                (_, Some(table)) => {
                    let section = Section::new(format!("`{key}.{name}`"), at, table);
                    found.push((name, TextOrTable::Table(section)));
                }
                _ => self.wrong_type(&name, "a text in quotes, or a table", value.get_ref(), at),
            }
        }
        found
    }

    /// The tables of a list in the table `parent`: `[[parent.key]]`, or `key = [{…}]`.
    pub(crate) fn tables(&mut self, key: &'static str, parent: &str) -> Vec<Section<'a>> {
        let Some((value, at)) = self.get(key) else {
            return Vec::new();
        };
        let Some(list) = value.as_array() else {
            self.wrong_type(key, &format!("a list of tables: [[{parent}.{key}]]"), value, at);
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in list {
            match item.get_ref().as_table() {
                Some(table) => found.push(Section::new(format!("[[{parent}.{key}]]"), item.span(), table)),
                None => self.wrong_type(key, "a list of tables", item.get_ref(), item.span()),
            }
        }
        found
    }

    /// The tables below `key`: `[key.NAME]`.
    pub(crate) fn named_tables(&mut self, key: &'static str) -> Vec<(At<String>, Section<'a>)> {
        let Some((value, at)) = self.get(key) else {
            return Vec::new();
        };
        let Some(tables) = value.as_table() else {
            self.wrong_type(key, &format!("a table: [{key}.NAME]"), value, at);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in tables {
            let named = At { value: name.get_ref().to_string(), at: name.span() };
            if let Some(table) = value.get_ref().as_table() {
                let section =
                    Section::new(format!("[{key}.{}]", plain_or_name(&named.value)), name.span(), table);
                found.push((named, section));
            } else {
                let message = format!(
                    "{} stands directly under [{key}], where only names of tables can be",
                    word(&named.value)
                );
                let hint = format!("begin a table: [{key}.NAME]");
                self.mistakes.push(Mistake::new(name.span(), message).hint(hint));
            }
        }
        found
    }

    /// The table `key`, if there.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<Section<'a>> {
        let (value, at) = self.get(key)?;
        match value.as_table() {
            Some(table) => Some(Section::new(format!("[{key}]"), at, table)),
            None => {
                self.wrong_type(key, &format!("a table: [{key}]"), value, at);
                None
            }
        }
    }

    /// Everything was read: what is left is unknown. Returns all mistakes of the table.
    pub(crate) fn finish(mut self) -> Vec<Mistake> {
        for key in self.table.keys() {
            let word: &str = key.get_ref().as_ref();
            if self.known.contains(&word) {
                continue;
            }
            let all = format!("known here: {}", self.known.join(", "));
            if let Some(table) = places::of_key(word) {
                let message = format!("unknown key `{word}` in {}", self.name);
                let hint = format!(
                    "it is one of {table}: put the line below that header, and above the next one; {all}"
                );
                self.mistakes.push(Mistake::new(key.span(), message).hint(hint));
                continue;
            }
            self.mistakes.push(match nearest(word, self.known.iter().copied()) {
                Some(meant) => {
                    let message = format!("unknown key {} in {}", mistake::word(word), self.name);
                    Mistake::new(key.span(), message).hint(format!("did you mean `{meant}`? {all}"))
                }
                // It may be no key at all, but what should have stood in quotation marks behind one.
                None => Mistake::unread(key.span(), &format!("unknown key in {}", self.name)).hint(all),
            });
        }
        self.mistakes
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `"50MB"`, `"64 MiB"`, `"1048576"`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `"90s"`, `"5min"`, `"26h"`, `"7d"`.
pub(crate) fn parse_seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_with_units() {
        assert_eq!(parse_seconds("90s"), Some(90));
        assert_eq!(parse_seconds("5 min"), Some(300));
        assert_eq!(parse_seconds("26h"), Some(93_600));
        assert_eq!(parse_seconds("7d"), Some(604_800));
        for bad in ["", "h", "90", "-1s", "1.5h", "3 fortnights", "99999999999999999d"] {
            assert_eq!(parse_seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_with_units() {
        assert_eq!(parse_bytes("50MB"), Some(50_000_000));
        assert_eq!(parse_bytes("64 MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("7"), Some(7));
        for bad in ["", "MB", "5 parsecs", "-1", "1.5GB", "99999999999999TB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
