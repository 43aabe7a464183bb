"""What the trial types, in which order, and what it puts in the place of the examples.

A block of the documents is in PLAN, or in NOT_RUN with the reason. `problems` says which is in neither, or is gone: `make test` asks.
"""

import re
from dataclasses import dataclass, field

from . import documents

PASSES = ("root", "postgres", "own")

# Example -> what a reader puts there. `@name` is what the trial has found out by then (Trial.facts); `{user}` the service's user.
WORDS = {
    "-o postgres -g postgres": "-o {user} -g {user}",
    "postgres:postgres": "{user}:{user}",
    "'2026-01-29 14:30:00.5+01'": "'@late'",
    "'2026-01-29 14:29:59'": "'@late'",
    "'2026-01-29 14:10:00'": "'@early'",
    "lsn:0/3000148": "lsn:@lsn",
    "before-xid:731": "before-xid:@xid",
    "20260129-020000F": "@backup",
    "20260129-143000F": "@backup",
    "everpoint-4f2a91c0-20260129T030000Z.tar.age": "@package",
    "everpoint-4f2a91c0-20260129T030000Z-17.tar.age": "@sent",
    "https://vault.example.com": "http://127.0.0.1:8099",
    "2033-01-31": "2099-01-31",
    " dbname": " postgres",
}

# Words of only one pass: a user of its own can't read the server's files.
PASS_WORDS = {
    "own": {'data_dir = "/var/lib/postgresql/15/main"   # optional: readable here, so files are read in parallel\n': ""},
}


@dataclass(frozen=True)
class Step:
    """A block that is typed, or something that the trial does (`block` is None)."""

    block: tuple | None
    act: str = "type"
    passes: tuple = PASSES
    words: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


def guide(heading, number, **options):
    return step("GUIDE", heading, number, **options)


def runbook(heading, number=1, **options):
    return step("RUNBOOKS", heading, number, **options)


def step(document, heading, number, act="type", passes=PASSES, words=None, **options):
    passes = (passes,) if isinstance(passes, str) else passes
    return Step((document, heading, number), act, passes, words or {}, options)


def do(act, **options):
    return Step(None, act, options.pop("passes", PASSES), {}, options)


PROTECT, SERVICE = "Protect a running PostgreSQL", "From `protect` to a service"
WATCH, PACKAGE = "Watch it", "Take everything in one file: the package"
DAILY = "One call a day: packages that go out by themselves"
ELSEWHERE = {"cd /etc/everpoint\n": "", "cat order-db": "cat /etc/everpoint/order-db", " --repo /var/lib/everpoint": ""}
SECOND = {"order-db": "inventory-db", "psql -d": "psql -p 5433 -d"}

PLAN = (
    guide("Install", 1, cwd="/srv/download"),
    guide("Install", 2),
    guide("Install", 3, passes=("root", "postgres")),
    guide("Install", 4, passes="own"),
    do("unit_is_right"),
    guide(PROTECT, 1),
    guide(PROTECT, 1, words=SECOND),
    # The postgres of the trial begins in another directory, and brings everything to its place afterwards.
    guide(PROTECT, 2, passes=("root", "own"), until="is protected", beside=3),
    guide(PROTECT, 2, passes="postgres", words=ELSEWHERE, until="is protected", beside=3),
    guide(SERVICE, 4, passes="postgres", cwd="/srv/work"),
    guide(SERVICE, 5, passes="postgres", cwd="/srv/work"),
    guide(SERVICE, 1),
    guide("The configuration", 1, act="write", to="everpoint.toml"),
    guide("The configuration", 2),
    guide("Configuration outside of the data directory, as on Debian", 1),
    guide(SERVICE, 2),
    do("both_are_protected"),
    guide(SERVICE, 3),
    guide("Keep archive_mode", 1, passes=("root", "postgres")),
    do("life"),
    guide("Keep what is needed, remove the rest", 1),
    guide("Keep what is needed, remove the rest", 2),
    guide("Restore", 1),
    guide("Restore", 2, act="alternatives"),
    guide("Let it run: the daemon", 1, act="instead_of_the_service"),
    guide(WATCH, 1, act="append"),
    guide(WATCH, 3),
    guide(WATCH, 4),
    guide("Keys", 1, before="stick"),
    do("repository_elsewhere"),
    guide("From a repository alone", 1, before="new_place"),
    guide(PACKAGE, 1),
    do("package_is_there"),
    guide("See what there is", 1, words={"--package FILE": "--package /mnt/usb/@package"}),
    guide(PACKAGE, 2, before="new_place"),
    guide(PACKAGE, 3, before="new_place"),
    do("vault"),
    guide(DAILY, 1, act="append"),
    guide(DAILY, 3, answer="y\n"),
    do("sent"),
    guide(DAILY, 4, before="new_place"),
    guide(DAILY, 5, before="new_place"),
    guide("Keys", 2),
    guide("Keys", 1, before="stick"),
    do("service_again"),
    runbook("Runbooks"),
    runbook("The server crashed, its disk is whole", before="crash"),
    runbook("Somebody dropped a table", before="drop_table"),
    do("table_is_back"),
    runbook("The machine is lost", before="machine_is_lost"),
    do("copy_has_three"),
    runbook("Total loss, from a package", before="stick_with_package"),
    do("copy_has_three"),
    runbook("Some files are corrupt", before="corrupt"),
    do("three_rows"),
    runbook("Restore production on Debian, on a new machine", 1, before="empty_machine"),
    runbook("Restore production on Debian, on a new machine", 2, before="configuration_is_back"),
    do("three_rows"),
    do("printed_commands"),
    do("three_rows"),
    runbook("Wrong moment, an earlier one", before="wrong_moment"),
    do("one_row"),
    runbook("The copy becomes production", 1, before="wrong_moment_again"),
    runbook("The copy becomes production", 2),
    runbook("The copy becomes production", 3),
    do("one_row"),
    runbook("There is a gap in the WAL"),
    runbook("The repository's disk is full"),
    do("service_goes_on"),
    runbook("The key is lost", 1, before="key_is_lost"),
    runbook("The key is lost", 2, until="is protected"),
    guide(SERVICE, 1, before="archiver_is_back"),
    guide(WATCH, 1, act="append"),
    do("service_goes_on"),
    guide("Stop protecting a cluster", 1),
    guide("Stop protecting a cluster", 2, act="when_there", command="forget"),
    do("nothing_keeps_log"),
)

NOT_RUN = {
    ("GUIDE", SERVICE, 6): "an example of what `systemctl edit` takes; the trial has no systemd that runs",
    ("GUIDE", WATCH, 2): "asks for an address of Slack; sinks are tested against receivers of their own",
    ("GUIDE", DAILY, 2): "examples of other providers: a bucket and a tape are not there",
    ("GUIDE", "After pg_upgrade", 1): "Debian 12 has one major version; crates/everpoint/tests/upgrade.rs upgrades",
    ("RUNBOOKS", "Some files are corrupt, outside of Debian", 1): "crates/everpoint/tests/runbooks.rs types it",
    ("RUNBOOKS", "Another moment in the same copy", 1): "crates/everpoint/tests/runbooks.rs types it",
    ("RUNBOOKS", "pg_control is corrupt", 1): "crates/everpoint/tests/debian.rs types it",
    ("RUNBOOKS", "pg_control is corrupt, outside of Debian", 1): "crates/everpoint/tests/runbooks.rs types it",
    ("RUNBOOKS", "Wrong moment, outside of Debian", 1): "crates/everpoint/tests/debian.rs types it",
    ("RUNBOOKS", "The copy becomes production, outside of Debian", 1): "crates/everpoint/tests/debian.rs types it",
    ("RUNBOOKS", "The primary is gone, a standby was promoted", 1): "crates/everpoint/tests/runbooks.rs types it",
    ("RUNBOOKS", "The primary is gone, a standby was promoted", 2): "crates/everpoint/tests/runbooks.rs types it",
    ("RUNBOOKS", "The primary is gone, a standby was promoted", 3): "crates/everpoint/tests/runbooks.rs types it",
}


def all_typed():
    """Blocks of steps, and those that are typed in a second terminal while a step's block runs."""
    beside = {(*step.block[:2], step.options["beside"]) for step in PLAN if "beside" in step.options}
    return {step.block for step in PLAN if step.block} | beside


def problems(root):
    """What is wrong with the plan, or with the documents, in words."""
    found = documents.blocks(root)
    there, planned = {block.id for block in found}, all_typed()
    wrong = [f"{block.name}: neither in the plan nor in the list of what is not run"
             for block in found if block.id not in planned | NOT_RUN.keys()]
    wrong += [f"{': '.join(map(str, gone))}: the plan names it, the documents do not have it"
              for gone in sorted((planned | NOT_RUN.keys()) - there)]
    wrong += [f"{': '.join(map(str, both))}: typed, and in the list of what is not run" for both in planned & NOT_RUN.keys()]
    text = "\n".join(block.text for block in found if block.id in planned)
    wrong += [f"the example {word!r} is in no block" for word in WORDS if word not in text]
    wrong += [f"{block.name}: its first line says {block.text.splitlines()[0]!r}, which names no user"
              for block in found if block.language == "sh" and re.match(r"# as ", block.text)
              and block.text.splitlines()[0].split(",")[0] not in (*documents.WHO, "# as the service")]
    wrong += documents.strange(root)
    return wrong


def summary(root):
    found = documents.blocks(root)
    typed = all_typed()
    lines = [f"not run: {': '.join(map(str, block))}: {reason}" for block, reason in NOT_RUN.items()]
    return "\n".join([*lines, f"{len(found)} blocks: {len(typed)} are typed, {len(NOT_RUN)} are not"])
