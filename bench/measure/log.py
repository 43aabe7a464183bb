"""Segments of the log: made by the server, pushed, fetched."""

import os
import shutil
import signal
import time

from .process import Cost

# Many small transactions on random rows. Their commits are not waited for: what is measured is the log, not its making.
WORK = """
DO $$ BEGIN
  SET synchronous_commit = off;
  FOR i IN 1..1500 LOOP
    UPDATE pgbench_accounts SET abalance = abalance + i
      WHERE aid = ANY (ARRAY(SELECT 1 + (random() * ({accounts} - 1))::int FROM generate_series(1, 12)));
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (i, 1, i, i, clock_timestamp());
    INSERT INTO varied SELECT gen_random_uuid(), now(), body, document FROM varied LIMIT 1;
    COMMIT;
  END LOOP;
END $$
"""


def begin(world):
    """From now on the server keeps every segment that it finishes."""
    shutil.rmtree(world.home / "archive", ignore_errors=True)
    archive = world.directory("archive")
    server = world.server
    world.first_segment = server.sql("SELECT pg_walfile_name(pg_switch_wal() + 1)")
    server.sql(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'")
    server.sql("SELECT pg_reload_conf()")


def finish(world, count):
    """Lets the server write `count` segments more; `world.segments` are all since `begin`."""
    archive, server = world.home / "archive", world.server
    wanted = len(archived(archive)) + count
    while len(archived(archive)) < wanted:
        server.sql(WORK.format(accounts=world.scale * 100_000))
    # The last is ended by a switch, so that every one of them is whole.
    last = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
    while not (archive / last).exists():
        time.sleep(0.05)
    server.sql("ALTER SYSTEM SET archive_command = 'true'")
    server.sql("SELECT pg_reload_conf()")
    world.segments = [archive / name for name in archived(archive) if name >= world.first_segment]


def segments(world, count):
    """`count` segments to push and get; made once."""
    if not getattr(world, "segments", None):
        begin(world)
        finish(world, count)
    world.segments = world.segments[:count]


def archived(archive):
    return sorted(path.name for path in archive.iterdir() if len(path.name) == 24)


def push_all(world, tool):
    """Pushes every segment as PostgreSQL's archiver does: one command each, in order, `.ready` files beside them."""
    spool = world.home / "pg_wal"
    shutil.rmtree(spool, ignore_errors=True)
    status = world.directory("pg_wal") / "archive_status"
    status.mkdir()
    for segment in world.segments:
        os.link(segment, spool / segment.name)
        (status / f"{segment.name}.ready").touch()
    world.own(spool)
    total = Cost()
    for segment in world.segments:
        add(total, tool.timed("push", tool.push(spool / segment.name)))
        (status / f"{segment.name}.ready").rename(status / f"{segment.name}.done")
    total.notes.append(f"{total.seconds / len(world.segments) * 1000:.0f} ms each")
    return total


def get_all(world, tool):
    """Fetches every segment as a recovering server does: one command each, in order, into the same place."""
    place = world.directory("fetched") / "RECOVERYXLOG"
    total = Cost()
    for segment in world.segments:
        place.unlink(missing_ok=True)
        add(total, tool.timed("get", tool.get(segment.name, place)))
        if place.stat().st_size != segment.stat().st_size:
            raise SystemExit(f"bench: {tool.name} fetched {place.stat().st_size} bytes of {segment.name}")
    total.notes.append(f"{total.seconds / len(world.segments) * 1000:.0f} ms each")
    return total


def add(total, one):
    total.seconds += one.seconds
    total.cpu += one.cpu
    total.memory = max(total.memory, one.memory)


def stop_copy(copy):
    """Stops the server on a copy, whoever started it."""
    if copy.process is not None:
        copy.stop(signal.SIGQUIT)
        return
    pid = int((copy.data / "postmaster.pid").read_text().splitlines()[0])
    if os.readlink(f"/proc/{pid}/cwd") != str(copy.data.resolve()):
        raise SystemExit(f"bench: process {pid} does not run on {copy.data}")
    os.kill(pid, signal.SIGQUIT)
    while (copy.data / "postmaster.pid").exists() and os.path.exists(f"/proc/{pid}/cwd"):
        time.sleep(0.02)
