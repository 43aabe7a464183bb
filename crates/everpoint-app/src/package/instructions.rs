//! `RESTORE.md`: how to restore a package with age, tar, zstd and PostgreSQL alone. Its commands are run by a test as they
//! stand.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use everpoint_core::{LogOffset, Micros, RestorePlan};
use everpoint_format::manifest::BackupRecord;
use everpoint_format::package::{PackagedBase, PackagedCluster, PackagedTarget};

use crate::text;

/// Settings that a replaying server must have at least as large as production had, and how the log names them.
const LIMITS: [(&str, &str); 5] = [
    ("max_connections", "max_connections"),
    ("max_worker_processes", "max_worker_processes"),
    ("max_wal_senders", "max_wal_senders"),
    ("max_prepared_transactions", "max_prepared_xacts"),
    ("max_locks_per_transaction", "max_locks_per_xact"),
];

const HEAD: &str = r#"# Restoring this package without Everpoint

Needed: the age identity, `age`, `tar`, `zstd`, `sha256sum`, and PostgreSQL of the version that is named below. Work as
the user under whom the server will run, which must not be root.

Whoever has the repository's key gets the age identity with `everpoint --key-file KEY key age > identity.txt`. If the
package was encrypted to recipients of your own, it is one of theirs.

With Everpoint at hand, one command does all of this: `everpoint --key-file KEY restore CLUSTER DIRECTORY --package FILE`.
"#;

/// Writes it.
/// `paths`: of each plan, the directories in which its log lies here, the newest branch first.
pub(super) fn write(
    name: &str,
    clusters: &[PackagedCluster],
    plans: &[Option<&RestorePlan>],
    paths: &[Option<Vec<String>>],
) -> String {
    let mut out = HEAD.to_owned();
    let _ = write!(
        out,
        r#"
## Open the package

Set `package` to an empty directory with room for it, `identity` to the file with the age identity, `file` to the package.

```sh
mkdir -p "$package"
age --decrypt --identity "$identity" "$file" | tar -x -C "$package"
(cd "$package" && sha256sum --check --quiet SHA256SUMS)
```

The package is called {name}. `MANIFEST.json` says what it holds.
"#
    );
    for ((cluster, plan), path) in clusters.iter().zip(plans).zip(paths) {
        match (&cluster.base, &cluster.newest) {
            (Some(base), Some(newest)) => restorable(&mut out, cluster, base, newest, *plan),
            _ => log_only(&mut out, cluster, plan.zip(path.as_deref())),
        }
    }
    out.push_str(TAIL);
    out
}

const TAIL: &str = r#"
## Other moments

A moment before the newest: write `recovery_target_time = '2026-01-29 14:30:00+00'` in place of `recovery_target_lsn`.
It must lie after the base image. For a moment before it, open the package of an earlier day beside this one, take its base
image, and name the directories of both in `fetch-log.sh`, those of the later package first.
"#;

/// What is to be done for a cluster of which no image is in the package: the image of an earlier one, and this log.
fn log_only(out: &mut String, cluster: &PackagedCluster, plan: Option<(&RestorePlan, &[String])>) {
    let name = &cluster.name;
    let _ = write!(
        out,
        r#"
## Cluster {name}

This package holds only log of it, below `clusters/{name}/wal`. The base image comes from the newest earlier package that
has one: unpack that and every package made after it, each into a directory of its own. Do what the `RESTORE.md` of the
package with the image says, up to where the server is started, with `package` set to its directory. Then, for each later
package, the oldest first, set `package` to its directory and do what its own `RESTORE.md` says here; start the server last.
"#
    );
    let given: Vec<&str> = cluster.log.iter().map(|log| log.directory.as_str()).collect();
    let path = plan.map_or_else(
        || given.into_iter().rev().collect(),
        |(_, path)| path.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    if path.is_empty() {
        out.push_str("\nThere is no log in this package either: nothing to do for it.\n");
        return;
    }
    let directories: Vec<String> = path.iter().map(|path| format!("\\\"$package/{path}\\\"")).collect();
    let _ = write!(
        out,
        "\n```sh\nsed -i \"s|^for directory in |&{} |\" \"$data/fetch-log.sh\"\n",
        directories.join(" ")
    );
    match plan {
        Some((plan, _)) => {
            let _ = write!(
                out,
                r#"sed -i "s|^recovery_target_lsn = .*|recovery_target_lsn = '{lsn}'|" "$data/postgresql.conf"
sed -i "s|^recovery_target_timeline = .*|recovery_target_timeline = '{timeline}'|" "$data/postgresql.conf"
```

That brings it to {lsn}{reached}.
"#,
                lsn = text::lsn(plan.stop.record),
                timeline = plan.timeline,
                reached = reached(Some(plan)),
            );
        }
        None => out.push_str(
            "sed -i '/^recovery_target_lsn/d' \"$data/postgresql.conf\"\n```\n\n\
             The log goes on in the next package, which says where it ends: unpack that, too. With this one as the last, the server\n\
             replays what there is, and does not tell if it were less.\n",
        ),
    }
}

fn reached(plan: Option<&RestorePlan>) -> String {
    let time = plan.and_then(|plan| plan.reached.time).map(text::time);
    time.map_or_else(String::new, |time| format!(", its last commit at {time}"))
}

fn restorable(
    out: &mut String,
    cluster: &PackagedCluster,
    base: &PackagedBase,
    newest: &PackagedTarget,
    plan: Option<&RestorePlan>,
) {
    let (name, record) = (&cluster.name, &base.record);
    let reached = reached(plan);
    let _ = write!(
        out,
        r#"
## Cluster {name}

PostgreSQL {version}, system identifier {system}. The base image {label} was taken from {started} on. These
commands bring it to {to}{reached}.

Set `data` to an empty directory for the cluster, `bin` to the directory of PostgreSQL's programs, and `port` to a free port.

```sh
mkdir -p "$data" && chmod 700 "$data"
zstd -d -c "$package/{member}" | tar -x -p -C "$data"
```
"#,
        version = record.server_version_text,
        system = record.system_identifier,
        label = record.label,
        started = text::time(Micros(record.started_at)),
        to = text::lsn(LogOffset(newest.record)),
        member = base.member,
    );
    tablespaces(out, record);
    configuration(out, record, plan, newest);
    let directories: Vec<String> = newest.path.iter().map(|path| format!("\"$package/{path}\"")).collect();
    let _ = write!(
        out,
        r#"
The script that hands the log to the server:

```sh
cat > "$data/fetch-log.sh" <<SCRIPT
for directory in {}; do
  if [ -f "\$directory/\$1.zst" ]; then exec zstd -q -d -f "\$directory/\$1.zst" -o "\$2"; fi
  if [ -f "\$directory/\$1" ]; then exec cp "\$directory/\$1" "\$2"; fi
done
exit 1
SCRIPT
```

Start it, and wait until it has replayed the log. If a part of the log were missing, it would stop and `server.log` would say so.

```sh
"$bin/pg_ctl" -D "$data" -l "$data/server.log" -W start
sleep 2
while "$bin/pg_ctl" -D "$data" status > /dev/null; do
  if "$bin/pg_isready" -q -h "$data" -p "$port"; then break; fi
  sleep 1
done
"$bin/pg_isready" -h "$data" -p "$port"
```

Your own configuration lies beside as `postgresql.conf.production` and `pg_hba.conf.production`, or, if it was kept outside
of the data directory, below `everpoint-external`. Until you put it back, connections are only taken through the socket in "$data".
"#,
        directories.join(" ")
    );
}

fn tablespaces(out: &mut String, record: &BackupRecord) {
    let links: Vec<_> = record.tablespaces.iter().filter(|space| space.path.is_some()).collect();
    if links.is_empty() {
        return;
    }
    out.push_str("\nIts tablespaces go beside the data directory:\n\n```sh\n");
    for space in links {
        let oid = space.oid;
        let was = space.path.as_deref().unwrap_or_default();
        let _ = write!(
            out,
            r#"mkdir -p "$data.tablespaces/{oid}" "$data/pg_tblspc/{oid}"    # was {was}
(cd "$data/pg_tblspc/{oid}" && tar -c .) | tar -x -p -C "$data.tablespaces/{oid}"
rm -r "$data/pg_tblspc/{oid}" && ln -s "$data.tablespaces/{oid}" "$data/pg_tblspc/{oid}"
"#
        );
    }
    out.push_str("```\n");
}

fn configuration(
    out: &mut String,
    record: &BackupRecord,
    plan: Option<&RestorePlan>,
    newest: &PackagedTarget,
) {
    let mut settings = String::new();
    for (name, value) in limits(record, plan) {
        let _ = writeln!(settings, "{name} = {value}");
    }
    let _ = write!(
        out,
        r#"
A configuration of its own, so that nothing of production is touched:

```sh
rm -f "$data/tablespace_map" "$data/postmaster.pid" "$data/standby.signal"
for name in postgresql.conf postgresql.auto.conf pg_hba.conf pg_ident.conf; do
  if [ -f "$data/$name" ]; then mv "$data/$name" "$data/$name.production"; fi
done
cat > "$data/postgresql.conf" <<SETTINGS
port = $port
listen_addresses = 'localhost'
unix_socket_directories = '$data'
hot_standby = off
archive_mode = off
{settings}restore_command = 'sh fetch-log.sh "%f" "%p"'
recovery_target_lsn = '{lsn}'
recovery_target_timeline = '{timeline}'
recovery_target_action = 'promote'
recovery_end_command = 'sed -i -e /^recovery_/d -e /^restore_command/d -e /^hot_standby/d postgresql.conf'
SETTINGS
echo 'local all all trust' > "$data/pg_hba.conf"
touch "$data/pg_ident.conf" "$data/recovery.signal"
```
"#,
        lsn = text::lsn(LogOffset(newest.record)),
        timeline = newest.timeline,
    );
}

/// The largest that the image and the log name.
fn limits(record: &BackupRecord, plan: Option<&RestorePlan>) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    let named = record.facts.iter().chain(plan.into_iter().flat_map(|plan| &plan.limits));
    for (name, value) in named {
        let known = LIMITS.iter().find(|(setting, logged)| name == setting || name == logged);
        if let (Some((setting, _)), Ok(value)) = (known, value.parse::<u64>()) {
            let entry = found.entry(*setting).or_default();
            *entry = value.max(*entry);
        }
    }
    found
}
