//! One request, read whole.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::Refusal;
use super::fields::Fields;
use everpoint_app::AppError;
use everpoint_core::FailureClass;

/// What an endpoint is asked.
#[derive(Debug)]
pub(crate) struct Call {
    /// What stands in the place of `{name}` in its path.
    pub(crate) path: BTreeMap<String, String>,
    pub(crate) query: Fields,
    pub(crate) body: Fields,
}

impl Call {
    /// The part of the path called `name`.
    pub(crate) fn part(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// All fields were read.
    ///
    /// # Errors
    /// With the fields that are wrong.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        self.query.finish()?;
        self.body.finish()
    }
}

/// The fields of a body. No body is an empty object.
///
/// # Errors
/// 400: it is no JSON object. 415: it says that it is something else.
pub(crate) fn body(kind: Option<&str>, bytes: &[u8]) -> Result<Fields, Refusal> {
    if bytes.is_empty() {
        return Ok(Fields::of_body(Map::new()));
    }
    let refuse = |status, message: String| {
        let error =
            AppError::new("api.body", FailureClass::Usage, "read", "the body of the request", message);
        Refusal::new(status, error.hint("send a JSON object with the header: Content-Type: application/json"))
    };
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A browser sends other types to another site without asking first; JSON it does not.
    if kind != "application/json" {
        return Err(refuse(415, "it is not declared as JSON".to_owned()));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(Fields::of_body(map)),
        Ok(_) => Err(refuse(400, "it is no JSON object".to_owned())),
        Err(error) => Err(refuse(400, format!("it is no JSON: {error}"))),
    }
}
