//! Webhooks: a JSON object for other programs, or what Slack shows.

use std::time::Duration;

use everpoint_app::AppError;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use super::{Failure, Sink, unusable};
use crate::alerts::message::Message;
use crate::config::secret::Secret;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Http {
    client: Client,
    address: Secret,
    token: Option<Secret>,
    body: fn(&Message) -> Value,
}

impl Http {
    pub(super) fn new(
        name: &str,
        address: Secret,
        token: Option<Secret>,
        body: fn(&Message) -> Value,
    ) -> Result<Self, AppError> {
        // A redirect would hand the message, and the secret in the address, to somebody else.
        let client = Client::builder().timeout(PATIENCE).redirect(Policy::none()).build();
        let client = client.map_err(|error| unusable(name, error.without_url().to_string()))?;
        Ok(Self { client, address, token, body })
    }
}

impl Sink for Http {
    fn send(&self, message: &Message) -> Result<(), Failure> {
        let mut request = self.client.post(self.address.expose()).json(&(self.body)(message));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let status = match request.send() {
            Ok(response) => response.status(),
            Err(error) => {
                let may_pass = !error.is_builder();
                return Err(Failure { message: error.without_url().to_string(), may_pass });
            }
        };
        if status.is_success() {
            return Ok(());
        }
        let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        Err(Failure { message: format!("it answered {status}"), may_pass })
    }
}

/// For other programs: the message itself.
pub(super) fn webhook(message: &Message) -> Value {
    json!(message)
}

/// For a channel: the line as text, the rest as an attachment in the colour of how bad it is.
pub(super) fn slack(message: &Message) -> Value {
    let colour = match (message.is_bad(), message.severity.as_str()) {
        (true, "critical") => "danger",
        (true, _) => "warning",
        (false, _) => "good",
    };
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({
        "text": escape(&message.line()),
        "attachments": [{
            "color": colour,
            "fallback": escape(&message.line()),
            "text": escape(&message.message),
            "footer": escape(&format!("Everpoint on {}, {}", message.host, message.at)),
        }],
    })
}
