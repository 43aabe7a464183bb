//! Mail through an SMTP server.

use std::time::Duration;

use everpoint_app::AppError;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};

use super::{Failure, Sink, unusable};
use crate::alerts::message::Message;
use crate::config::alerts::{MailSecurity, SmtpConfig};

/// How long a server may take for each step.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Mail {
    transport: SmtpTransport,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mail {
    pub(super) fn new(
        name: &str,
        config: &SmtpConfig,
        warn: &mut dyn FnMut(String),
    ) -> Result<Self, AppError> {
        let mut builder = SmtpTransport::builder_dangerous(&config.host)
            .tls(tls(name, config)?)
            .port(config.port)
            .timeout(Some(PATIENCE));
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            let password = password.read(&format!("the password of the sink {name}"), warn)?;
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
        }
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| unusable(name, format!("{text}: {error}")))
        };
        let to = config.to.iter().map(mailbox).collect::<Result<_, _>>()?;
        Ok(Self { transport: builder.build(), from: mailbox(&config.from)?, to })
    }

    fn mail(&self, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
        let mark = if message.is_bad() { message.severity.to_uppercase() } else { message.state.clone() };
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .subject(format!("[Everpoint {mark}] {}", message.title))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        mail.body(message.text())
    }
}

/// A server that can't prove who it is gets nothing.
fn tls(name: &str, config: &SmtpConfig) -> Result<Tls, AppError> {
    if config.security == MailSecurity::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            unusable(name, format!("{} can't be read: {error}", path.display())).cause(error)
        })?;
        let wrong =
            |error: lettre::transport::smtp::Error| unusable(name, format!("{}: {error}", path.display()));
        parameters = parameters.add_root_certificate(Certificate::from_pem(&pem).map_err(wrong)?);
    }
    let parameters = parameters.build().map_err(|error| unusable(name, error.to_string()))?;
    Ok(if config.security == MailSecurity::Tls {
        Tls::Wrapper(parameters)
    } else {
        Tls::Required(parameters)
    })
}

impl Sink for Mail {
    fn send(&self, message: &Message) -> Result<(), Failure> {
        let never = |error: lettre::error::Error| Failure { message: error.to_string(), may_pass: false };
        let mail = self.mail(message).map_err(never)?;
        match self.transport.send(&mail) {
            Ok(_) => Ok(()),
            Err(error) => {
                let may_pass = !error.is_permanent() && !error.is_client();
                Err(Failure { message: error.to_string(), may_pass })
            }
        }
    }
}
