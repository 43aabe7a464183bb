//! Each kind of alert, to real receivers: a web server, a mail server, a collector of traces.

mod mail;
mod receiver;
#[cfg(feature = "otel")]
mod traces;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoint_core::alert::{AlertKey, AlertKind, Observation, Severity};
use serde_json::Value;

use super::outbox::Outbox;
use super::thread::Senders;
use crate::config::alerts::{AlertsConfig, SecretText, SinkConfig, SinkKind};
use crate::config::otel::OtelConfig;
use crate::config::secret::Secret;
use crate::trace::Traces;
use receiver::Receiver;

fn sink(name: &str, kind: SinkKind) -> SinkConfig {
    SinkConfig { name: name.to_owned(), kind, only: Vec::new(), least: Severity::Info }
}

fn webhook(receiver: &Receiver) -> SinkConfig {
    let url = SecretText::Given(Secret::new(receiver.url.clone()));
    sink("webhook", SinkKind::Webhook { url, token: None })
}

struct Sent {
    home: tempfile::TempDir,
    config: AlertsConfig,
}

impl Sent {
    fn new(sinks: Vec<SinkConfig>) -> Self {
        let successes = vec![AlertKind::BackupDone, AlertKind::PackageDone];
        let config = AlertsConfig { sinks, successes, ..AlertsConfig::default() };
        Self { home: tempfile::tempdir().unwrap(), config }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("alerts.json")
    }

    fn outbox(&self) -> Arc<Outbox> {
        Arc::new(Outbox::new(self.config.clone(), self.path(), Arc::default()))
    }
}

fn no_traces() -> Traces {
    Traces::start(&OtelConfig::default()).unwrap()
}

fn key(kind: AlertKind) -> AlertKey {
    AlertKey::new(kind, "shop")
}

/// Everything goes wrong, stays so for a while, and comes right; what succeeds, succeeds.
fn live(outbox: &Outbox) {
    for kind in AlertKind::ALL {
        if kind.is_success() {
            outbox.tell([Observation::Happened(key(kind), format!("{} went well", kind.word()))]);
            continue;
        }
        for _ in 0..3 {
            outbox.tell([Observation::Wrong(key(kind), format!("{} is wrong", kind.word()))]);
        }
        for _ in 0..2 {
            outbox.tell([Observation::Right(key(kind))]);
        }
    }
}

/// What each kind must have caused: one beginning and one end, or one success.
fn expected() -> BTreeMap<String, Vec<&'static str>> {
    let states =
        |kind: AlertKind| if kind.is_success() { vec!["happened"] } else { vec!["firing", "resolved"] };
    AlertKind::ALL.into_iter().map(|kind| (kind.word().to_owned(), states(kind))).collect()
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn messages() -> usize {
    expected().values().map(Vec::len).sum()
}

#[test]
fn a_webhook_receives_each_kind_once_and_its_recovery_once() {
    let receiver = Receiver::start(&[]);
    let sent = Sent::new(vec![webhook(&receiver)]);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    live(&outbox);
    wait_until("sending", || receiver.got().len() >= messages());
    drop(senders);
    let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in receiver.got() {
        assert_eq!(message["subject"], "shop");
        let kind = message["kind"].as_str().unwrap().to_owned();
        got.entry(kind).or_default().push(message["state"].as_str().unwrap().to_owned());
    }
    let expected: BTreeMap<String, Vec<String>> = expected()
        .into_iter()
        .map(|(kind, states)| (kind, states.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn slack_shows_a_line_and_a_colour() {
    let receiver = Receiver::start(&[]);
    let url = SecretText::Given(Secret::new(receiver.url.clone()));
    let sent = Sent::new(vec![sink("slack", SinkKind::Slack { url })]);
    let outbox = sent.outbox();
    let _senders = Senders::start(&outbox, &no_traces()).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "0/1 <-> 0/2".to_owned())]);
    outbox.tell([Observation::Right(key(AlertKind::Gap))]);
    wait_until("sending", || receiver.got().len() >= 2);
    let got = receiver.got();
    assert_eq!(got[0]["text"], "shop: gap in the log (critical)");
    assert_eq!(got[0]["attachments"][0]["color"], "danger");
    assert_eq!(got[0]["attachments"][0]["text"], "0/1 &lt;-&gt; 0/2");
    assert_eq!(got[1]["text"], "resolved: shop: gap in the log");
    assert_eq!(got[1]["attachments"][0]["color"], "good");
}

#[test]
fn what_was_not_taken_is_sent_again_and_what_never_will_be_is_not() {
    let receiver = Receiver::start(&[503]);
    let sent = Sent::new(vec![webhook(&receiver)]);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "first".to_owned())]);
    wait_until("sending again", || receiver.got().len() == 1);
    drop(senders);
    let receiver = Receiver::start(&[404]);
    let sent = Sent::new(vec![webhook(&receiver)]);
    let outbox = sent.outbox();
    let _senders = Senders::start(&outbox, &no_traces()).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "refused".to_owned())]);
    outbox.tell([Observation::Wrong(key(AlertKind::BackupOld), "taken".to_owned())]);
    wait_until("sending", || !receiver.got().is_empty());
    assert_eq!(receiver.got()[0]["message"], "taken");
}

#[test]
fn a_restart_repeats_nothing_and_sends_what_waited() {
    let receiver = Receiver::start(&[]);
    let sent = Sent::new(vec![webhook(&receiver)]);
    // Nobody sends: the process ends before it could.
    sent.outbox().tell([Observation::Wrong(key(AlertKind::Gap), "before".to_owned())]);
    let outbox = sent.outbox();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "after".to_owned())]);
    outbox.tell([Observation::Right(key(AlertKind::Gap))]);
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    wait_until("sending", || receiver.got().len() >= 2);
    drop(senders);
    let states: Vec<Value> = receiver.got().iter().map(|message| message["state"].clone()).collect();
    assert_eq!(states, ["firing", "resolved"]);
    assert!(!std::fs::read_to_string(sent.path()).unwrap().contains("secret-part"));
}

#[test]
fn a_receiver_that_hangs_holds_nobody_up_and_a_stop_is_quick() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = SecretText::Given(Secret::new("http://127.0.0.1:9/refuses".to_owned()));
    let sent = Sent::new(vec![sink("webhook", SinkKind::Webhook { url, token: None })]);
    drop(listener);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &no_traces()).unwrap();
    let begun = Instant::now();
    (0..1000).for_each(|number| {
        outbox.tell([Observation::Happened(key(AlertKind::BackupDone), number.to_string())]);
    });
    drop(senders);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(std::fs::metadata(sent.path()).unwrap().len() < 200_000, "the queue is bounded");
}

#[test]
fn a_sink_takes_only_what_it_wants() {
    let receiver = Receiver::start(&[]);
    let only = SinkConfig { only: vec![AlertKind::Gap], ..webhook(&receiver) };
    let bad = SinkConfig { name: "bad".to_owned(), least: Severity::Critical, ..webhook(&receiver) };
    let sent = Sent::new(vec![only, bad]);
    let outbox = sent.outbox();
    let _senders = Senders::start(&outbox, &no_traces()).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::BackupOld), "nobody wants it".to_owned())]);
    outbox.tell([Observation::Wrong(key(AlertKind::SlotGivenUp), "one".to_owned())]);
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "both".to_owned())]);
    wait_until("sending", || receiver.got().len() >= 3);
    let mut got: Vec<String> =
        receiver.got().iter().map(|message| message["message"].as_str().unwrap().to_owned()).collect();
    got.sort();
    assert_eq!(got, ["both", "both", "one"]);
}

#[test]
fn secrets_do_not_show_when_a_sink_fails() {
    let url = SecretText::Given(Secret::new("http://127.0.0.1:9/T0SECRET".to_owned()));
    let config = sink("hook", SinkKind::Webhook { url, token: None });
    assert!(!format!("{config:?}").contains("T0SECRET"));
    let opened = super::sink::open(&config, &no_traces(), &mut |_| ()).unwrap();
    let notice = everpoint_core::alert::Alerts::default()
        .observe(Observation::Wrong(key(AlertKind::Gap), String::new()), super::message::now(), None)
        .unwrap();
    let failure = opened.send(&super::message::Message::of(&notice, "here")).unwrap_err();
    assert!(failure.may_pass && !failure.message.contains("T0SECRET"), "{}", failure.message);
}
