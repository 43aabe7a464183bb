"""The rows of the table: what is measured, and how."""

import shutil
import time

from . import damage, log
from .process import Cost
from .server import Server
from .tools import Copy, Everpoint, EverpointEncrypted, PgBackRest, PgBackRestEncrypted, PgBaseBackup
from .tools import fresh_directory, make

SEGMENTS = 64


class Row:
    """A row: its tools, a preparation, and one run of one tool, which returns a Cost."""

    title = ""
    unit = "s"
    kinds = (Everpoint, PgBackRest)

    def prepare(self, world, tools):
        for tool in tools:
            tool.fresh()
            tool.backup()

    def once(self, world, tool):
        raise NotImplementedError


class Full(Row):
    title = "full backup, zstd"
    kinds = (Everpoint, PgBackRest, PgBaseBackup)
    command = "full"

    def prepare(self, world, tools):
        pass

    def once(self, world, tool):
        tool.fresh()
        world.server.sql("CHECKPOINT")
        cost = tool.backup()
        cost.stored = tool.stored()
        return cost


class Encrypted(Full):
    title = "full backup, zstd, encrypted"
    kinds = (EverpointEncrypted, PgBackRestEncrypted, Everpoint)


class Restore(Row):
    title = "restore into an empty directory, to fsynced"
    kinds = (Everpoint, PgBackRest, Copy)
    command = "restore"

    def once(self, world, tool):
        destination = fresh_directory(world, world.home / "copy")
        # What an earlier run left unwritten would be waited for by this one's fsync.
        world.run.run(["sync"])
        cost = tool.restore(destination)
        before = time.monotonic()
        world.run.run(["sync", "-f", destination])
        cost.seconds += time.monotonic() - before
        shutil.rmtree(destination)
        return cost


class Delta(Row):
    title = "delta restore, 1 % of pages differ"
    command = "delta"

    def prepare(self, world, tools):
        super().prepare(world, tools)
        for tool in tools:
            tool.restore(fresh_directory(world, tool.home / "copy"))

    def once(self, world, tool):
        destination = tool.home / "copy"
        pages = damage.pages(destination, one_in=100, seed=world.scale)
        world.run.run(["sync"])
        cost = tool.delta(destination)
        cost.notes.append(f"{pages} pages differ")
        left = damage.left(destination)
        if left:
            raise SystemExit(f"bench: {tool.name} left {left} pages as they were")
        return cost


class Push(Row):
    title = f"push of {SEGMENTS} segments, one after another"
    command = "push"

    def prepare(self, world, tools):
        log.segments(world, SEGMENTS)

    def once(self, world, tool):
        tool.fresh()
        cost = log.push_all(world, tool)
        cost.stored = tool.stored()
        return cost


class Get(Row):
    title = f"get of {SEGMENTS} segments, one after another"
    command = "get"

    def prepare(self, world, tools):
        log.segments(world, SEGMENTS)
        for tool in tools:
            tool.fresh()
            log.push_all(world, tool)

    def once(self, world, tool):
        return log.get_all(world, tool)


class Bundle(Row):
    title = f"bundle of {SEGMENTS} segments"
    kinds = (Everpoint,)
    command = "bundle"

    def prepare(self, world, tools):
        log.segments(world, SEGMENTS)

    def once(self, world, tool):
        tool.fresh()
        log.push_all(world, tool)
        before = tool.stored()
        cost = tool.bundle()
        cost.stored = tool.stored()
        cost.notes.append(f"{before / 1e6:.0f} MB as single segments")
        return cost


class Replay(Row):
    title = f"restore and replay of {SEGMENTS} segments, to promoted"
    command = "replay"

    def prepare(self, world, tools):
        # The log of the backups themselves belongs to what is pushed.
        log.begin(world)
        super().prepare(world, tools)
        log.finish(world, SEGMENTS)
        for tool in tools:
            log.push_all(world, tool)

    def once(self, world, tool):
        destination = fresh_directory(world, world.home / "copy")
        copy = Server(world.run, world.machine.server, world.directory("copy-server"), world.port + 1)
        copy.data = destination
        before = time.monotonic()
        cost = tool.restore_to_end(destination, copy.port)
        if not tool.starts_itself:
            copy.start(wait_for_end_of_recovery=True)
        cost.seconds = time.monotonic() - before
        log.stop_copy(copy)
        shutil.rmtree(destination)
        return cost


class Pace(Row):
    title = "transactions per second during backups, of those without"
    unit = "share"
    kinds = (Everpoint, PgBackRest, PgBaseBackup)
    command = "full"
    seconds = 20

    def prepare(self, world, tools):
        self.idle = []

    def once(self, world, tool):
        self.idle.append(self.transactions(world))
        tool.fresh()
        command = ["-c", "8", "-j", "1", "-n", "-T", str(self.seconds)]
        server = world.server
        load = world.run.start(
            [server.tool("pgbench"), "-h", server.home, "-p", server.port, "-U", "postgres", *command, "postgres"],
            stdout=-1, text=True,
        )
        cost = Cost(seconds=0)
        while load.poll() is None:
            cost.seconds = tool.backup().seconds
        cost.value = parse_tps(load.communicate()[0]) / self.idle[-1]
        cost.notes.append(f"{self.idle[-1]:.0f} without")
        return cost

    def transactions(self, world):
        return parse_tps(world.pgbench("-c", "8", "-j", "1", "-n", "-T", str(self.seconds)))


def parse_tps(text):
    """The rate in the report of pgbench."""
    line = next(line for line in text.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


ROWS = {
    "full": Full, "encrypted": Encrypted, "restore": Restore, "delta": Delta, "push": Push, "get": Get,
    "bundle": Bundle, "replay": Replay, "pace": Pace,
}


def measure(world, name, runs):
    """Measures a row; returns the row, its tools, and the costs of each."""
    row = ROWS[name]()
    tools = make(world, *row.kinds)
    print(f"bench: {name}: {row.title}", flush=True)
    row.prepare(world, tools)
    costs = {tool.name: [] for tool in tools}
    for number in range(runs):
        # Another tool begins each time.
        turn = number % max(1, len(tools))
        for tool in tools[turn:] + tools[:turn]:
            costs[tool.name].append(row.once(world, tool))
    for tool in tools:
        shutil.rmtree(tool.home, ignore_errors=True)
    return row, tools, costs


