//! Reads the fields of a query or a body: each once, with its type and range; what is left over is unknown.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::{Refusal, WrongField};

/// The fields of a request.
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    wrong: Vec<WrongField>,
    /// They came as text (a query): `true` is a text there.
    textual: bool,
    /// Status of the refusal.
    status: u16,
}

/// Which texts are allowed: a test, and what it asks for in words.
pub(crate) struct Rule(pub(crate) fn(&str) -> bool, pub(crate) &'static str);

impl Fields {
    /// Of a JSON body.
    pub(crate) fn of_body(values: Map<String, Value>) -> Self {
        Self { values, wrong: Vec::new(), textual: false, status: 422 }
    }

    /// Of a query string. A name that comes twice is refused: which one counts nobody knows.
    pub(crate) fn of_query(query: &str) -> Self {
        let mut fields = Self { values: Map::new(), wrong: Vec::new(), textual: true, status: 400 };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                fields.refuse(name, "it is not encoded as UTF-8");
                continue;
            };
            if fields.values.insert(name.clone(), Value::String(value)).is_some() {
                fields.refuse(&name, "it is given twice");
            }
        }
        fields
    }

    pub(crate) fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.wrong.push(WrongField { field: field.to_owned(), message: message.into() });
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str, rule: &Rule) -> Option<String> {
        match self.values.remove(name)? {
            Value::String(text) if rule.0(&text) => Some(text),
            Value::String(_) => {
                self.refuse(name, rule.1);
                None
            }
            other => {
                self.refuse(name, format!("it must be a text, not {}", type_name(&other)));
                None
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn required(&mut self, name: &str, rule: &Rule) -> Option<String> {
        if !self.values.contains_key(name) {
            self.refuse(name, "it is missing");
            return None;
        }
        self.text(name, rule)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.values.remove(name)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) if self.textual && (text == "true" || text == "false") => {
                Some(text == "true")
            }
            _ => {
                self.refuse(name, "it must be true or false");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, name: &str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let number = match self.values.remove(name)? {
            Value::String(text) if self.textual && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok()
            }
            Value::Number(number) if !self.textual => {
                // JSON has one kind of number: 5.0 is 5.
                let whole = number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n));
                number.as_u64().or(whole.map(|n| n as u64))
            }
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.refuse(
                name,
                format!("it must be a whole number from {} to {}", bounds.start(), bounds.end()),
            );
        }
        number
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let word = self.values.remove(name)?;
        let found = choices.iter().find(|(known, _)| word.as_str() == Some(known));
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(name, format!("it must be one of: {}", words.join(", ")));
        }
        found.map(|(_, chosen)| *chosen)
    }

    /// Texts by name.
    pub(crate) fn texts(&mut self, name: &str) -> BTreeMap<String, String> {
        let Some(value) = self.values.remove(name) else {
            return BTreeMap::new();
        };
        let Value::Object(map) = value else {
            self.refuse(name, "it must be an object of texts");
            return BTreeMap::new();
        };
        let mut found = BTreeMap::new();
        for (key, value) in map {
            match value {
                Value::String(text) if !key.is_empty() => {
                    found.insert(key, text);
                }
                _ => self.refuse(name, "its names can't be empty and its values must be texts"),
            }
        }
        found
    }

    /// All was read.
    ///
    /// # Errors
    /// With every field that is wrong or unknown.
    pub(crate) fn finish(mut self) -> Result<(), Refusal> {
        let unknown: Vec<String> = self.values.keys().cloned().collect();
        unknown.iter().for_each(|name| self.refuse(name, "there is no such field"));
        if self.wrong.is_empty() { Ok(()) } else { Err(Refusal::fields(self.status, self.wrong)) }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Undoes the encoding of a part of an address; `None` if it is no UTF-8 or an escape is broken.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Rule = Rule(|_| true, "");

    #[test]
    fn queries_are_decoded_and_checked() {
        let mut fields = Fields::of_query("to=2026-01-29+14%3A30&exclusive=true&limit=7");
        assert_eq!(fields.text("to", &ANY).as_deref(), Some("2026-01-29 14:30"));
        assert_eq!(fields.flag("exclusive"), Some(true));
        assert_eq!(fields.number("limit", 1..=10), Some(7));
        assert!(fields.finish().is_ok());
        for bad in ["a=1&a=2", "a=%zz", "a=%ff", "unknown"] {
            let mut fields = Fields::of_query(bad);
            fields.text("a", &ANY);
            assert_eq!(fields.finish().unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = serde_json::json!({"mode": "fulll", "labels": {"a": 1}, "extra": 0, "n": 1.5});
        let mut fields = Fields::of_body(body.as_object().unwrap().clone());
        assert_eq!(fields.choice("mode", &[("full", 1)]), None);
        fields.texts("labels");
        fields.number("n", 0..=9);
        fields.required("name", &ANY);
        let refusal = fields.finish().unwrap_err();
        let named: Vec<&str> = refusal.fields.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(named, ["mode", "labels", "n", "name", "extra"]);
        assert_eq!(refusal.status, 422);
    }
}
