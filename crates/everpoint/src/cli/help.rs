//! Examples at the end of each `--help`.

pub(super) const TOP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration
  3  the target can't be reached; nothing was written
  4  damaged or wrong data, wrong key
  5  no call is left in the offsite provider's budget
  6  already running or locked

Examples:
  everpoint protect postgres://backup@db1/postgres
  everpoint restore order-db /tmp/copy --to '2026-01-29 14:30:00+01' --start";

pub(super) const PROTECT: &str = "\
Writes everpoint.toml and a key beside it, creates the repository, takes the first backup, and goes on \
capturing until stopped with Ctrl-C or SIGTERM. Called again it continues where it was. The role needs \
only REPLICATION:  CREATE ROLE backup LOGIN REPLICATION PASSWORD '…';

Examples:
  everpoint protect postgres://backup@db1/postgres
  everpoint protect postgres://backup@db1/postgres --repo /backup/everpoint --name order-db
  everpoint protect postgres://backup@localhost/postgres --data-dir /var/lib/postgresql/15/main
  everpoint protect postgres://backup@db1/postgres --escrow /mnt/usb/everpoint.key";

pub(super) const INIT: &str = "\
Where a repository was before (the server of a cluster has its slot, the daemon has read it, its disk is not mounted) none is \
made by itself: a new one in its place would take the log over, and the old one get a gap.

Examples:
  everpoint init
  everpoint init local
  everpoint init --new local    # the old one is lost, or left behind";

pub(super) const CHECK: &str = "\
Ends with 1 if a line is an error.

Examples:
  everpoint check
  everpoint check order-db --json";

pub(super) const FORGET: &str = "\
Its table in the configuration becomes a comment, a daemon stops capturing it within a few seconds, and its replication \
slot is dropped, so that the server keeps no WAL for it. Backups and log stay in the repository. Where the server does \
not answer, the slot that stays is named with the command that drops it. Refused while archive_command of the server \
still calls archive-push for it.

Examples:
  everpoint forget order-db --dry-run
  everpoint forget order-db";

pub(super) const CAPTURE: &str = "\
Examples:
  everpoint capture order-db
  everpoint capture order-db --once";

pub(super) const ARCHIVE_PUSH: &str = "\
Returns 0 only when the file is stored and durable. The same file again is success; a different content \
under the same name is an error.

Examples:
  archive_command = 'everpoint archive-push order-db %p'
  archive_command = 'everpoint --config /etc/everpoint/everpoint.toml archive-push order-db %p'";

pub(super) const ARCHIVE_GET: &str = "\
Ends with 0 if the file was put in place, with 1 if it is certainly not stored, and with 126 if that is \
not certain, so that PostgreSQL stops instead of promoting (under standby.signal: 1, so that the standby \
goes on asking).

Examples:
  restore_command = 'everpoint archive-get order-db %f %p'
  restore_command = 'everpoint archive-get --repo /backup --key-file /root/key order-db %f %p'";

pub(super) const BACKUP: &str = "\
Ends with 4 if pages were damaged: the backup is kept and marked, and the pages are named.

Examples:
  everpoint backup order-db
  everpoint backup order-db --full --label ticket=4711 --label reason='before upgrade'";

pub(super) const BUNDLE: &str = "\
Hours that are over are bundled: everything reads bundles as it reads segments. A bundle is read back \
and compared before the segments that it replaces are removed. Ends with 4 if damaged segments were left \
as they are.

Examples:
  everpoint bundle order-db
  everpoint bundle order-db --close --restore-points restore-points.json";

pub(super) const EXPIRE: &str = "\
What is kept stands under [retention] in the configuration: by default any second of the last 14 days, \
14 daily, 4 weekly and 12 monthly backups. Never removed: the newest good backup, one on hold, what a \
running backup or restore needs.

Examples:
  everpoint expire --dry-run
  everpoint expire order-db
  everpoint expire order-db --now
  everpoint expire order-db --branch 00000002-4f2a91c04f2a91c0 --dry-run";

pub(super) const HOLD: &str = "\
Examples:
  everpoint hold order-db 20260129-143000F
  everpoint hold order-db 20260129-143000F --until 2033-01-31
  everpoint hold order-db 20260129-143000F --release";

pub(super) const LIST: &str = "\
Examples:
  everpoint list
  everpoint list --package /srv/package.age --key-file /root/key
  everpoint list order-db --json
  everpoint list --repo /backup/everpoint --key-file /root/key";

pub(super) const STATUS: &str = "\
Works when the server is dead: then it says what the repository knows.

Examples:
  everpoint status
  everpoint status order-db --json";

pub(super) const RESTORE: &str = "\
TARGET:
  latest                        the last moment that is stored (default)
  2026-01-29 14:30:00.5+01      a time, to the microsecond; without a zone it is the machine's
  yesterday 14:30, 14:30, -2h   a time counted from now, shown back before anything is written
  lsn:0/3000148                 a position
  xid:731, before-xid:731       a transaction, with it or just before it; with its epoch or without
  name:LABEL                    a named restore point
  backup:LABEL                  the end of a backup

A target that can't be reached ends with 3; nothing is written then, and the nearest targets are named. \
A place that is not proven to be this cluster's ends with 2, and stays as it is.

Tablespaces lie inside the directory. Outside of it something is written only where --map names a place, \
where production's own links lead when its own data directory is restored in place, or, with \
--replace-production, at their own paths.

Examples:
  everpoint restore order-db /var/lib/postgresql/restored --to '2026-01-29 14:30:00+01' --dry-run
  everpoint restore order-db /var/lib/postgresql/restored --to before-xid:731 --start --port 5433
  everpoint restore order-db /var/lib/postgresql/15/main --delta --replace-production
  everpoint restore order-db /srv/copy --map /mnt/ssd/space=/srv/space
  everpoint restore order-db /restored --repo /backup/everpoint --key-file /root/key";

pub(super) const RESTORE_POINT: &str = "\
Examples:
  everpoint restore-point order-db before-release-42
  everpoint restore order-db /tmp/copy --to name:before-release-42";

pub(super) const ADOPT: &str = "\
With a directory: the copy in it, restored by Everpoint and started, is production from now on. It has \
to run at the configured address. Its mark is removed, `latest` means its branch, and a backup is taken.

Without one: after pg_upgrade or a new initdb the server has another system identifier, and its log is \
refused under the old one. This makes the server that the configuration names the next identity of the \
cluster. What was stored before stays and can be restored; nothing is ever restored across the change. \
Take a backup afterwards.

Examples:
  everpoint adopt order-db /srv/copy
  everpoint adopt order-db";

pub(super) const KEY: &str = "\
Examples:
  everpoint key confirm
  everpoint key rotate";

pub(super) const KEY_ROTATE: &str = "\
The new key goes into the key file, the old one beside it with the ending .old (or .old-2 and so on: \
packages from before open with it alone). Unless --keep-old is given the old key no longer opens the repository. Data keys stay as they are: no stored object is \
rewritten.

Examples:
  everpoint key rotate
  everpoint key rotate local --new-key-file /etc/everpoint/key-2027 --keep-old";

pub(super) const KEY_CONFIRM: &str = "\
A key that lies only beside its repository dies with it. Store it in a second place (a password manager, \
paper, another machine), then run this.

Example:
  everpoint key confirm";

pub(super) const OFFSITE: &str = "\
Providers stand in the configuration: [offsite.NAME]. The daemon (`everpoint serve`) sends a package \
each day.

Examples:
  everpoint offsite status
  everpoint offsite push --yes
  everpoint offsite fetch latest package.tar.age
  everpoint offsite pack --directory /mnt/usb
  everpoint offsite unpack PACKAGE /restore";

pub(super) const OFFSITE_STATUS: &str = "\
Examples:
  everpoint offsite status
  everpoint --json offsite status --provider vault";

pub(super) const OFFSITE_PUSH: &str = "\
Asks before it spends the call; without a terminal it needs --yes. The package is complete and verified \
before the call is made. If no call is allowed now, nothing is made or sent, it says when the next one \
is, and ends with 5.

Examples:
  everpoint offsite push
  everpoint --json offsite push --provider vault --yes";

pub(super) const OFFSITE_LIST: &str = "\
Without --remote it reads the ledger in the repository, and the provider is not asked. With --remote it \
works on a machine that has nothing but the [offsite.NAME] table.

Examples:
  everpoint offsite list
  everpoint offsite list --remote";

pub(super) const OFFSITE_FETCH: &str = "\
Compares what comes with what was sent. Works on a machine that has nothing but the [offsite.NAME] \
table: then give the name of the package.

Examples:
  everpoint offsite fetch latest package.tar.age
  everpoint offsite fetch everpoint-4f2a91c0-20260129T030000Z-12.tar.age package.tar.age
  everpoint restore order-db /srv/copy --package package.tar.age";

pub(super) const OFFSITE_PACK: &str = "\
The file holds for each cluster the newest base image and the log from its start to now. Debian's age, \
tar, zstd and PostgreSQL are enough to restore it: RESTORE.md in it says how.

Examples:
  everpoint offsite pack --directory /mnt/usb
  everpoint offsite pack --recipient age1… --limit 50000000000";

pub(super) const OFFSITE_UNPACK: &str = "\
Examples:
  everpoint --key-file /etc/everpoint/key offsite unpack PACKAGE /restore
  everpoint offsite unpack PACKAGE /restore --identity identity.txt";

pub(super) const KEY_AGE: &str = "\
Daily packages are encrypted to this identity unless the configuration names other recipients. Whoever \
has it can read them: keep it as you keep the key. It stays the same as long as the key does.

Examples:
  everpoint --key-file /etc/everpoint/key key age > identity.txt
  age --decrypt --identity identity.txt PACKAGE | tar -x
  everpoint key age --recipient";

pub(super) const COMPLETION: &str = "\
Examples:
  everpoint completion bash > /etc/bash_completion.d/everpoint
  everpoint completion zsh > ~/.zfunc/_everpoint";

pub(super) const HELP: &str = "\
Examples:
  everpoint help restore
  everpoint help key rotate";

pub(super) const MAN: &str = "\
Examples:
  everpoint man /usr/local/share/man/man1
  everpoint man | man -l -";

pub(crate) const SERVE: &str = "\
Examples:
  everpoint serve
  everpoint --config /etc/everpoint/everpoint.toml serve

Without anything else configured a backup is taken at 02:00 UTC each day, and at once of a cluster that \
has none; hours of log are joined to bundles; everything is checked each hour. See [schedule] and \
[serve] in docs/CONFIG.md.";

pub(super) const MOCK_OFFSITE: &str = "\
PUT or POST of any path is an upload of the path's last part; GET /list, /health, /stats, or GET of a \
name. What it counted stays in the directory, so that a restart forgets nothing. PUT /clock with \
microseconds since 1970 sets its clock, DELETE /clock sets it back to the machine's. Stops at Ctrl-C or \
SIGTERM.

Examples:
  everpoint mock-offsite --dir /tmp/vault
  everpoint mock-offsite --rolling --calls 2 --latency 500 --failure-rate 0.2 --storage-limit 2GiB";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    fn each(command: &clap::Command, look: &mut dyn FnMut(&clap::Command)) {
        look(command);
        command.get_subcommands().for_each(|below| each(below, look));
    }

    /// Lines of one paragraph would be broken here, and again by the terminal.
    #[test]
    fn paragraphs_are_wrapped_by_the_terminal_alone() {
        each(&crate::cli::Cli::command(), &mut |command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2) {
                let plain = |line: &str| !line.is_empty() && !line.starts_with(' ');
                assert!(!(plain(pair[0]) && plain(pair[1])), "{}: {pair:?}", command.get_name());
            }
            for line in lines.iter().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        });
    }

    #[test]
    fn every_argument_and_command_is_described_in_words_of_everybody() {
        let jargon = ["lease", "pieces", "let go", "lets go", "letting go", "surface", "subcommand"];
        each(&crate::cli::documented(), &mut |command| {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no description");
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut texts = vec![about, more];
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{name} {} has no description", argument.get_id());
                texts.push(help);
            }
            for word in jargon {
                let has = |text: &String| {
                    format!(" {text} ")
                        .replace(|c: char| !c.is_alphabetic(), " ")
                        .contains(&format!(" {word} "))
                };
                assert!(!texts.iter().any(has), "{name}: {word} in {texts:?}");
            }
        });
    }
}
