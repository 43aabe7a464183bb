//! Traces, to a collector that decodes them.

use everpoint_core::alert::{AlertKind, Observation};

use super::receiver::Receiver;
use super::{Sent, key, sink, wait_until};
use crate::alerts::Senders;
use crate::config::alerts::SinkKind;
use crate::config::otel::OtelConfig;
use crate::trace::Traces;

#[test]
fn a_collector_receives_spans_of_work_and_of_alerts() {
    let receiver = Receiver::start(&[]);
    let endpoint = receiver.url.replace("/secret-part", "");
    let traces = Traces::start(&OtelConfig { endpoint: Some(endpoint), ..OtelConfig::default() }).unwrap();
    let span = traces.span("backup", &[("everpoint.cluster", "shop")]);
    span.event("copying files");
    span.end(Err("no disk"));
    let sent = Sent::new(vec![sink("otel", SinkKind::Otel)]);
    let outbox = sent.outbox();
    let senders = Senders::start(&outbox, &traces).unwrap();
    outbox.tell([Observation::Wrong(key(AlertKind::Gap), "0/1 to 0/2".to_owned())]);
    wait_until("the span", || outbox.is_firing(&key(AlertKind::Gap)));
    drop(senders);
    traces.end();
    let got = receiver.got.lock().unwrap().clone();
    assert!(!got.is_empty());
    assert!(got.iter().all(|(head, _)| head.starts_with("POST /v1/traces ")), "{got:?}");
    let told: Vec<Vec<u8>> = got.iter().flat_map(|(_, body)| texts(body)).collect();
    for text in ["backup", "alert", "shop", "copying files", "no disk", "gap", "0/1 to 0/2", "everpoint"] {
        assert!(told.iter().any(|told| told == text.as_bytes()), "{text} is missing");
    }
}

/// Every text of a protobuf message, at any depth: length-delimited fields that may be messages are looked into.
fn texts(bytes: &[u8]) -> Vec<Vec<u8>> {
    fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn walk(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            match varint(bytes, &mut at)? & 7 {
                0 => {
                    varint(bytes, &mut at)?;
                }
                1 => at += 8,
                2 => {
                    let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                    let field = bytes.get(at..at.checked_add(length)?)?;
                    at += length;
                    found.push(field.to_vec());
                    found.extend(walk(field).unwrap_or_default());
                }
                5 => at += 4,
                _ => return None,
            }
        }
        (at == bytes.len()).then_some(found)
    }
    walk(bytes).expect("it is a protobuf message")
}
