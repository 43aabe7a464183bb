//! Every mistake is found where it is, and what is right is read.

use super::*;

fn parse(source: &str) -> Result<Config, String> {
    let variables = |name: &str| (name == "DB_HOST").then(|| "db9".to_owned());
    Config::parse(source, Path::new("/etc/everpoint/everpoint.toml"), &variables)
        .map_err(|mistakes| mistake::render(source, &mistakes))
}

const GOOD: &str = r#"
[repository.local]
url = "/var/lib/everpoint"
key_file = "key"

[cluster.order-db]
postgres = "postgres://backup@${DB_HOST}:5432/postgres?sslmode=verify-full"
data_dir = "/var/lib/postgresql/15/main"

[cluster.shop]
mongodb = "mongodb://db2:27017/?replicaSet=rs0"

[limits]
workers = 4
read_rate = "50MB"
"#;

#[test]
fn the_documented_file_is_read() {
    let config = parse(GOOD).unwrap();
    let repository = &config.repositories["local"];
    assert_eq!(repository.url, "/var/lib/everpoint");
    assert_eq!(repository.key, KeySource::File("/etc/everpoint/key".into()));
    let order = config.cluster("order-db").unwrap();
    assert_eq!(order.slot, "everpoint_order_db");
    let Source::Postgres(postgres) = &order.source else { panic!("{order:?}") };
    assert_eq!(postgres.url, "postgres://backup@db9:5432/postgres?sslmode=verify-full");
    assert!(matches!(config.cluster("shop").unwrap().source, Source::MongoDb));
    assert_eq!(config.limits.workers, Some(4));
    assert_eq!(config.limits.read_rate, Some(50_000_000));
    assert!(config.cluster("order_db").unwrap_err().hint.unwrap().contains("order-db"));
}

/// A mistake, and what its report must say.
const BAD: &[(&str, &[&str])] = &[
    (
        "[repository.local]\nuri = \"/x\"\n",
        &["line 2, column 1: unknown key `uri`", "did you mean `url`?", "2 | uri = …", "^^^"],
    ),
    (
        "[repository.local]\nurl = 7\n",
        &["line 2, column 7: `url` must be a text in quotes, not a whole number"],
    ),
    ("[repository.local]\nurl = \"/x\n", &["line 2, column"]),
    (
        "[repositry.local]\nurl = \"/x\"\n",
        &["line 1, column 2: unknown key `repositry`", "did you mean `repository`?"],
    ),
    ("[repository]\nurl = \"/x\"\n", &["line 2, column 1", "[repository.NAME]"]),
    (
        "[repository.a]\nurl = \"/x\"\nkey_file = \"a\"\nkey_command = \"b\"\n",
        &["line 4", "can't both be given"],
    ),
    ("[repository.\"A b\"]\nurl = \"/x\"\n", &["line 1", "can't be a name"]),
    (
        "[cluster.a]\npostgres = \"mysql://h\"\n",
        &["line 2, column 12", "not the address of a PostgreSQL server"],
    ),
    ("[cluster.a]\n", &["line 1", "has no address"]),
    ("[cluster.a]\npostgres = \"postgres://${NO_PE}/x\"\n", &["line 2", "NO_PE is not set"]),
    ("[cluster.a]\npostgres = \"postgres://h/x\"\nslot = \"A-b\"\n", &["line 3, column 8", "name of a slot"]),
    (
        "[cluster.a]\npostgres = \"postgres://h/x\"\ncheckpoint = \"fats\"\n",
        &["line 3", "fast, spread", "did you mean \"fast\"?"],
    ),
    (
        "[cluster.a]\npostgres = \"postgres://h/x\"\ncompression = \"zstd:99\"\n",
        &["line 3", "not a compression"],
    ),
    (
        "[cluster.a]\npostgres = \"postgres://h/x\"\nworkers = 0\n",
        &["line 3, column 11", "between 1 and 256"],
    ),
    (
        "[cluster.a]\npostgres = \"postgres://h/x\"\nworkers = \"2\"\n",
        &["line 3", "whole number, not a text"],
    ),
    (
        "[repository.local]\nurl = \"/x\"\n[cluster.a]\npostgres = \"postgres://h/x\"\nrepository = \"locale\"\n",
        &["line 5, column 14", "there is no [repository.locale]", "did you mean local?"],
    ),
    (
        "[repository.a]\nurl = \"/x\"\n[repository.b]\nurl = \"/y\"\n[cluster.c]\npostgres = \"postgres://h/x\"\n",
        &["line 5", "does not say which repository"],
    ),
    ("[limits]\nread_rate = \"fast\"\n", &["line 2, column 13", "not a number of bytes"]),
    ("limits = 3\n", &["line 1, column 10", "must be a table"]),
];

#[test]
fn every_mistake_names_its_place_and_what_was_meant() {
    for (source, wanted) in BAD {
        let shown = parse(source).map(|config| format!("{config:?}")).unwrap_err();
        for part in *wanted {
            assert!(shown.contains(part), "{source}\n{shown}\nlacks {part}");
        }
    }
}

#[test]
fn a_key_that_stands_in_another_table_is_named_with_its_own() {
    let shown = parse("[api]\nlisten = \"off\"\npassword_file = \"hunter2\"\n").unwrap_err();
    assert!(shown.contains("line 3, column 1: unknown key `password_file` in [api]"), "{shown}");
    assert!(shown.contains("one of [cluster.NAME]") && !shown.contains("hunter2"), "{shown}");
    // The list is right.
    for (table, keys) in places::KEYS {
        let header = table.replace("NAME", "a");
        let first = match table {
            "[cluster.NAME]" => "postgres = \"postgres://h/x\"",
            "[repository.NAME]" => "url = \"/x\"",
            _ => "",
        };
        let shown = parse(&format!("{header}\n{first}\nzzzzzzzzzzzzzz = 1\n")).unwrap_err();
        let known = shown.split("known here: ").nth(1).unwrap_or_default().lines().next().unwrap_or_default();
        let known: Vec<&str> = known.split(", ").collect();
        assert!(keys.iter().all(|key| known.contains(key)), "{table}: {shown}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let shown = parse("[repository.local]\nurl = 1\nkeyfile = \"a\"\n[limits]\nwrokers = 1\n").unwrap_err();
    assert!(shown.contains("line 2") && shown.contains("line 3") && shown.contains("line 5"), "{shown}");
}

#[test]
fn a_password_never_shows() {
    let config = parse("[cluster.a]\npostgres = \"postgres://me:s3cret@h/x\"\n").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let shown = parse("[cluster.a]\npostgres = \"postgres://me:s3cret@h/x\" oops\n").unwrap_err();
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// The files that docs/CONFIG.md shows: the whole, and providers of each type.
fn documented(number: usize) -> &'static str {
    let page = include_str!("../../../../docs/CONFIG.md");
    page.split("```toml\n").nth(number).and_then(|rest| rest.split("```").next()).unwrap()
}

#[test]
fn the_documented_keys_are_those_that_exist() {
    let config = parse(documented(1)).unwrap();
    let order = config.cluster("order-db").unwrap();
    let defaults = parse("[cluster.order-db]\npostgres = \"postgres://h/x\"\n").unwrap();
    let plain = defaults.cluster("order-db").unwrap();
    assert_eq!(
        (&order.slot, order.compression, order.checkpoint),
        (&plain.slot, plain.compression, plain.checkpoint)
    );
    // A mistake lists what is known: each of these words must stand on the page.
    for table in ["repository.local", "cluster.a", "limits", "schedule", "api", "alerts", "otel"] {
        let shown = parse(&format!("[{table}]\nqqqqqqqq = 1")).unwrap_err();
        let known = shown.split("known here: ").nth(1).unwrap().lines().next().unwrap();
        for key in known.split(", ") {
            assert!(documented(1).contains(key), "docs/CONFIG.md lacks {key}");
        }
    }
}

#[test]
fn the_documented_keys_of_providers_are_those_that_exist() {
    let config = parse(documented(2)).unwrap();
    assert_eq!(config.offsite.len(), 4);
    let both = [documented(1), documented(2)].concat();
    for own in [
        "\"filesystem\"\npath = \"p\"",
        "\"http\"\nurl = \"u\"",
        "\"s3\"\nbucket = \"b\"",
        "\"command\"\nupload = [\"u\"]",
    ] {
        let shown = parse(&format!("[offsite.x]\nqqqqqqqq = 1\ntype = {own}")).unwrap_err();
        let known = shown.split("known here: ").nth(1).unwrap().lines().next().unwrap();
        for key in known.split(", ") {
            // Three sources of the same secret are shown once.
            let shown =
                ["_file", "_env", "_command"].iter().find_map(|end| key.strip_suffix(end)).unwrap_or(key);
            assert!(both.contains(shown), "docs/CONFIG.md lacks {key}");
        }
    }
}

#[test]
fn compressions_are_read() {
    for (text, wanted) in [
        ("auto", Compression::Auto),
        ("lz4", Compression::Lz4),
        ("none", Compression::None),
        ("zstd", Compression::Zstd(3)),
        ("zstd:19", Compression::Zstd(19)),
    ] {
        let config =
            parse(&format!("[cluster.a]\npostgres = \"postgres://h/x\"\ncompression = \"{text}\"\n"));
        assert_eq!(config.unwrap().cluster("a").unwrap().compression, wanted);
    }
}

#[test]
fn mistakes_in_the_tables_of_the_api_and_of_alerts_are_told() {
    let told = |text: &str, word: &str| {
        let shown = parse(text).unwrap_err();
        assert!(shown.contains(word), "{text}: {shown}");
    };
    told("[api]\nlisten = \"8432\"\n", "`listen` is no address with a port");
    told("[api]\ntls_cert = \"c\"\n", "belong together");
    told("[api]\ntokens = [{ name = \"a\", scope = \"write\", env = \"T\" }]\n", "read, operate");
    told("[api]\ntokens = [{ name = \"a\", scope = \"read\" }]\n", "where the token comes from");
    told("[[api.tokens]]\nname = \"a\"\nscope = \"read\"\nenv = \"T\"\nfile = \"f\"\n", "only one of");
    told("[alerts]\nsuccesses = [\"backup_dome\"]\n", "did you mean backup_done?");
    told("[alerts]\nlag = \"60\"\n", "is not a span of time");
    told("[[alerts.sink]]\ntype = \"pager\"\n", "`type` must be one of");
    told("[[alerts.sink]]\ntype = \"slack\"\n", "the sink needs one address");
    told(
        "[[alerts.sink]]\ntype = \"smtp\"\nhost = \"h\"\nfrom = \"a@b\"\nto = [\"nobody\"]\n",
        "no mail address",
    );
    told("[[alerts.sink]]\ntype = \"log\"\n[[alerts.sink]]\ntype = \"log\"\n", "two sinks named \"log\"");
}

const OFFSITE: &str = r#"
[offsite.vault]
type = "http"
url = "https://${DB_HOST}/upload/{name}"
method = "POST"
headers = { Accept = "text/plain", Authorization = "Bearer ${NOT_SET_HERE}", Cookie = { file = "cookie" } }
calls = 2
zone = "Europe/Berlin"
counts = ["download"]
limit = "2GB"
priority = ["shop"]

[offsite.tape]
type = "command"
upload = ["/bin/send", "{name}"]
period = "24h"
enabled = false
"#;

#[test]
fn offsite_providers_are_read_and_values_of_headers_are_not_looked_for_yet() {
    let config = parse(&format!("{GOOD}{OFFSITE}")).unwrap();
    let vault = &config.offsite["vault"];
    let offsite::OffsitePlace::Http(place) = &vault.place else { panic!("{vault:?}") };
    assert_eq!(place.url.expose(), "https://db9/upload/{name}");
    assert_eq!(place.headers.len(), 3);
    let berlin = everpoint_core::BudgetPeriod::CalendarDay(jiff::tz::TimeZone::get("Europe/Berlin").unwrap());
    assert_eq!((vault.budget.calls, &vault.budget.period), (2, &berlin));
    assert!(vault.counts.download && !vault.counts.list && vault.enabled);
    assert_eq!(vault.limit, Some(2_000_000_000));
    assert!(!format!("{vault:?}").contains("Bearer"), "what a header says is secret");
    let tape = &config.offsite["tape"];
    assert_eq!((tape.budget.calls, &tape.budget.period), (1, &everpoint_core::BudgetPeriod::Rolling24h));
    assert!(!tape.enabled);
}

#[test]
fn a_directory_that_is_to_count_requests_is_a_mistake() {
    let usb = "[offsite.usb]\ntype = \"filesystem\"\npath = \"/mnt/usb\"\n";
    parse(&format!("{GOOD}{usb}")).unwrap();
    let shown = parse(&format!("{GOOD}{usb}counts = [\"list\"]\n")).unwrap_err();
    assert!(shown.contains("counts nothing but uploads") && shown.contains("remove `counts`"), "{shown}");
}

#[test]
fn mistakes_in_offsite_providers_are_shown_where_they_are() {
    let wrong =
        |change: (&str, &str)| parse(&format!("{GOOD}{}", OFFSITE.replace(change.0, change.1))).unwrap_err();
    for (change, expected) in [
        (("type = \"http\"", "type = \"htttp\""), "line 19"),
        (("type = \"http\"", ""), "one of: filesystem, http, s3, command"),
        (("\"2GB\"", "\"much\""), "line 25, column 9"),
        (("Europe/Berlin", "Berlin"), "there is no time zone \"Berlin\""),
        (("[\"download\"]", "[\"downloads\"]"), "`downloads` is no kind of request"),
        (("[\"shop\"]", "[\"shopp\"]"), "did you mean shop?"),
        (("{ file = \"cookie\" }", "{ fill = \"cookie\" }"), "the header `Cookie` has no value"),
        (("${NOT_SET_HERE}", "${NOT_CLOSED"), "`${` without its `}`"),
        (("upload = [\"/bin/send\", \"{name}\"]", ""), "the provider has no valid `upload`"),
        (("period = \"24h\"", "period = \"24h\"\nzone = \"UTC\""), "any 24 hours have no `zone`"),
        (("enabled = false", "enabld = false"), "enabled"),
    ] {
        let told = wrong(change);
        assert!(told.contains(expected), "{change:?}: {told}");
    }
}
