use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

fn sample() -> Metrics {
    let metrics = Metrics::default();
    for measure in Measure::ALL {
        let labels: Vec<&str> = measure.labels().iter().map(|_| "some \"value\"\\\n").collect();
        metrics.observe(*measure, &labels, 1.5);
    }
    metrics
}

#[test]
fn names_follow_the_customs_of_prometheus() {
    let mut names = BTreeSet::new();
    for measure in Measure::ALL {
        let name = measure.name();
        assert!(names.insert(name), "{name} stands there twice");
        assert!(name.starts_with("everpoint_"), "{name}");
        assert_eq!(measure.kind() == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(!measure.help().is_empty() && !measure.help().contains(['\n', '\\']), "{name}");
    }
}

#[test]
fn what_is_not_known_does_not_show() {
    let metrics = Metrics::default();
    assert_eq!(metrics.text(), "");
    metrics.set_known(Measure::ProofAge, &["shop"], None);
    assert_eq!(metrics.text(), "");
    metrics.set_known(Measure::LagBytes, &["shop"], Some(7.0));
    assert!(metrics.text().ends_with("\neverpoint_archive_lag_bytes{cluster=\"shop\"} 7\n"));
    metrics.set_known(Measure::LagBytes, &["shop"], None);
    assert_eq!(metrics.text(), "");
    metrics.count(Measure::Jobs, &["backup", "shop", "ok"]);
    metrics.count(Measure::Jobs, &["backup", "shop", "ok"]);
    assert!(metrics.text().contains("{kind=\"backup\",cluster=\"shop\",result=\"ok\"} 2\n"));
    metrics.observe(Measure::JobSeconds, &["backup", "shop"], 2.5);
    assert!(
        metrics.text().contains("everpoint_job_duration_seconds_count{kind=\"backup\",cluster=\"shop\"} 1\n")
    );
}

#[test]
fn labels_are_escaped() {
    let text = sample().text();
    assert!(text.contains(r#"{cluster="some \"value\"\\\n"}"#), "{text}");
}

/// Everything that looks like one of our measures in a shipped file.
fn named_in(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    text.split(|c: char| !word(c)).filter(|text| text.starts_with("everpoint_")).map(str::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    let summary = |measure: &Measure| {
        let parts = if measure.kind() == Kind::Summary { &["_sum", "_count"][..] } else { &[][..] };
        parts.iter().map(|part| format!("{}{part}", measure.name())).collect::<Vec<_>>()
    };
    let names = Measure::ALL.iter().map(|measure| measure.name().to_owned());
    names.chain(Measure::ALL.iter().flat_map(summary)).collect()
}

#[test]
fn rules_and_dashboard_name_only_measures_that_exist() {
    for file in ["packaging/prometheus/everpoint.rules.yml", "packaging/grafana/everpoint.json"] {
        let named = named_in(file);
        assert!(named.len() > 5, "{file} names only {named:?}");
        let unknown: Vec<_> = named.difference(&known()).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

#[test]
fn the_documentation_has_every_measure() {
    let named = named_in("docs/API.md");
    for measure in Measure::ALL {
        assert!(named.contains(measure.name()), "docs/API.md lacks {}", measure.name());
    }
    let unknown: Vec<_> = named.difference(&known()).cloned().collect();
    assert!(unknown.is_empty(), "docs/API.md names {unknown:?}");
}

/// Prometheus's own tool reads what we write.
#[test]
fn promtool_accepts_metrics_and_rules() {
    let Some(tool) = everpoint_testkit::test_tool("bin/promtool").unwrap() else {
        return;
    };
    let mut check = Command::new(&tool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(sample().text().as_bytes()).unwrap();
    assert!(check.wait().unwrap().success(), "promtool check metrics");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/prometheus/everpoint.rules.yml");
    let checked = Command::new(&tool).args(["check", "rules"]).arg(rules).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
