//! Mail, to a server that is not ours.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use everpoint_core::alert::{AlertKind, Observation};

use super::{Sent, key, live, messages, no_traces, sink, wait_until};
use crate::alerts::Senders;
use crate::config::alerts::{MailSecurity, SinkKind, SmtpConfig};
use crate::config::secret::SecretSource;

/// A mail server of others: aiosmtpd, with STARTTLS and a password, which writes each mail into a file.
const MAIL_SERVER: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
home = sys.argv[1]
class Keep:
    count = 0
    async def handle_DATA(self, server, session, envelope):
        open(f"{home}/mail-{Keep.count:03}", "wb").write(repr((envelope.mail_from, envelope.rcpt_tos)).encode() + b"\n" + envelope.content)
        Keep.count += 1
        return "250 taken"
def login(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"backup", b"mail-s3cret"))
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{home}/cert.pem", f"{home}/key.pem")
class Secure(Controller):
    def factory(self):
        return SMTP(self.handler, tls_context=context, require_starttls=True, auth_required=True, authenticator=login)
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close()
c = Secure(Keep(), hostname="127.0.0.1", port=port); c.start()
print(port, flush=True)
sys.stdin.read()
"#;

struct MailServer {
    child: Child,
    port: u16,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mail_server(python: &Path, home: &Path) -> MailServer {
    let (cert, key) = (home.join("cert.pem"), home.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([&key, Path::new("-out"), &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut child = Command::new(python)
        .args(["-c", MAIL_SERVER])
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    MailServer { child, port: line.trim().parse().unwrap() }
}

fn mail_config(home: &Path, port: u16) -> SmtpConfig {
    let password = home.join("password");
    std::fs::write(&password, "mail-s3cret\n").unwrap();
    SmtpConfig {
        host: "localhost".to_owned(),
        port,
        security: MailSecurity::StartTls,
        ca_file: Some(home.join("cert.pem")),
        user: Some("backup".to_owned()),
        password: Some(SecretSource::File(password)),
        from: "Everpoint <everpoint@example.com>".to_owned(),
        to: vec!["dba@example.com".to_owned(), "boss@example.com".to_owned()],
    }
}

fn mails(home: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("mail-"))
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn mail_brings_each_kind_once_and_its_recovery_once() {
    let Some(python) = everpoint_testkit::test_tool("python/bin/python").unwrap() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let server = mail_server(&python, home.path());
    let sent = Sent::new(vec![sink("mail", SinkKind::Smtp(mail_config(home.path(), server.port)))]);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    live(&outbox);
    wait_until("mailing", || mails(home.path()).len() >= messages());
    drop(senders);
    let mails = mails(home.path());
    assert_eq!(mails.len(), messages());
    assert!(
        mails[0].starts_with("('everpoint@example.com', ['dba@example.com', 'boss@example.com'])"),
        "{}",
        mails[0]
    );
    for kind in AlertKind::ALL {
        let titled = |mark: &str| {
            let subject = format!("Subject: [Everpoint {mark}] shop: {}\r\n", kind.title());
            mails.iter().filter(|mail| mail.contains(&subject)).count()
        };
        if kind.is_success() {
            assert_eq!(titled("happened"), 1, "{}", kind.word());
        } else {
            assert_eq!(titled(&kind.severity().word().to_uppercase()), 1, "{}", kind.word());
            assert_eq!(titled("resolved"), 1, "{}", kind.word());
        }
    }
}

#[test]
fn a_mail_server_that_is_not_trusted_gets_neither_password_nor_mail() {
    let Some(python) = everpoint_testkit::test_tool("python/bin/python").unwrap() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let server = mail_server(&python, home.path());
    let config = SmtpConfig { ca_file: None, ..mail_config(home.path(), server.port) };
    let sent = Sent::new(vec![sink("mail", SinkKind::Smtp(config))]);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "secret things".to_owned())]);
    std::thread::sleep(Duration::from_millis(700));
    drop(senders);
    assert!(mails(home.path()).is_empty());
}
