"""How each tool is driven: the commands that RESULTS.md shows."""

import shutil
from pathlib import Path

from .process import disk_bytes

CLUSTER = "order-db"


class Tool:
    """A backup tool with a repository of its own."""

    name = ""

    def __init__(self, world):
        self.world, self.run = world, world.run
        self.home = world.home / self.name.replace(" ", "-")
        self.repository = self.home / "repository"
        self.commands = {}

    def available(self):
        return True

    def fresh(self):
        """An empty repository."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.world.own(self.home)

    def timed(self, what, command):
        self.commands.setdefault(what, " ".join(self.shown(word) for word in command))
        return self.run.timed(command)

    def shown(self, word):
        """A word of a command without this run's directories."""
        return str(word).replace(str(self.home), "…").replace(str(self.world.home), "…").replace(
            str(self.world.machine.server) + "/", "").replace(str(self.world.machine.everpoint.parent) + "/", "").replace(
            str(self.world.machine.pgbackrest.parent) + "/", "")

    def stored(self):
        return disk_bytes(self.repository)


class Everpoint(Tool):
    """Everpoint, files read beside the server."""

    name = "everpoint"
    encrypted = False

    def available(self):
        return self.world.machine.everpoint.exists()

    def fresh(self):
        super().fresh()
        key = f'key_file = "{self.home}/key"\n' if self.encrypted else ""
        server = self.world.server
        self.config = self.home / "everpoint.toml"
        self.config.write_text(
            f'[repository.local]\nurl = "{self.repository}"\n{key}\n[cluster.{CLUSTER}]\npostgres = "{server.url}"\n'
            f'data_dir = "{server.data}"\npg_bin = "{self.world.machine.server}"\nworkers = 2\n'
        )
        self.world.own(self.home)
        self.run.run(self.command("init"))

    def command(self, *words):
        return [self.world.machine.everpoint, "--config", self.config, *words]

    def backup(self):
        return self.timed("full", self.command("backup", CLUSTER, "--full"))

    def restore(self, destination):
        return self.timed("restore", self.command("restore", CLUSTER, destination, "--to", self.newest()))

    def delta(self, destination):
        return self.timed("delta", self.command("restore", CLUSTER, destination, "--to", self.newest(), "--delta"))

    def newest(self):
        """The end of the newest backup: what a plain restore of the peers goes to."""
        import json

        listed = json.loads(self.run.output(self.command("--json", "list", CLUSTER)))
        return "backup:" + max(listed["clusters"][0]["backups"], key=lambda b: b["stopped_at"])["label"]

    def push(self, segment):
        return self.command("archive-push", CLUSTER, segment)

    def bundle(self):
        return self.timed("bundle", self.command("bundle", CLUSTER, "--close"))

    def get(self, name, destination):
        return self.command("archive-get", CLUSTER, name, destination)

    def restore_to_end(self, destination, port):
        return self.timed("replay", self.command("restore", CLUSTER, destination, "--start", "--port", port))

    starts_itself = True


class EverpointEncrypted(Everpoint):
    """The same with a key."""

    name = "everpoint encrypted"
    encrypted = True


class PgBackRest(Tool):
    """pgBackRest at its fastest fair setting: zstd 3, two processes, bundles, block incremental."""

    name = "pgbackrest"
    encrypted = False
    starts_itself = False

    def available(self):
        return self.world.machine.pgbackrest.exists()

    def fresh(self):
        super().fresh()
        cipher = "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=bench\n" if self.encrypted else ""
        server = self.world.server
        self.config = self.home / "pgbackrest.conf"
        self.config.write_text(
            f"[global]\nrepo1-path={self.repository}\n{cipher}compress-type=zst\ncompress-level=3\nprocess-max=2\n"
            f"repo1-bundle=y\nrepo1-block=y\nstart-fast=y\nlog-path={self.home}\nlock-path={self.home}/lock\n"
            f"log-level-console=warn\nspool-path={self.home}/spool\narchive-check=n\n\n"
            f"[{CLUSTER}]\npg1-path={server.data}\npg1-port={server.port}\npg1-socket-path={server.home}\npg1-user=postgres\n"
        )
        self.world.own(self.home)
        self.run.run(self.command("stanza-create"))

    def command(self, *words):
        return [self.world.machine.pgbackrest, f"--config={self.config}", f"--stanza={CLUSTER}", *words]

    def backup(self):
        return self.timed("full", self.command("--type=full", "backup"))

    def restore(self, destination):
        # --type=none: the files of the backup alone, as the other tools write them.
        return self.timed("restore", self.command(f"--pg1-path={destination}", "--type=none", "restore"))

    def delta(self, destination):
        return self.timed("delta", self.command(f"--pg1-path={destination}", "--type=none", "--delta", "restore"))

    def push(self, segment):
        return self.command("archive-push", segment)

    def get(self, name, destination):
        return self.command("archive-get", name, destination)

    def restore_to_end(self, destination, _port):
        return self.timed("replay", self.command(f"--pg1-path={destination}", "--archive-mode=off", "restore"))


class PgBackRestEncrypted(PgBackRest):
    """The same with a pass phrase (AES-256-CBC)."""

    name = "pgbackrest encrypted"
    encrypted = True


class PgBaseBackup(Tool):
    """PostgreSQL's own tool: tar, compressed in the server where it was built with zstd, else by the zstd program."""

    name = "pg_basebackup"

    def available(self):
        return self.world.machine.server_zstd or shutil.which("zstd") is not None

    def backup(self):
        shutil.rmtree(self.repository, ignore_errors=True)
        server = self.world.server
        tool = [server.tool("pg_basebackup"), "-h", server.home, "-p", server.port, "-U", "postgres", "-c", "fast", "-Ft"]
        if self.world.machine.server_zstd:
            return self.timed("full", [*tool, "-X", "fetch", "-Z", "server-zstd:level=3,workers=2", "-D", self.repository])
        self.repository.mkdir()
        self.world.own(self.repository)
        line = " ".join(map(str, [*tool, "-X", "fetch", "-D", "-"])) + f" | zstd -q -3 -T2 -o {self.repository}/base.tar.zst"
        return self.timed("full", ["bash", "-o", "pipefail", "-c", line + f" && sync -f {self.repository}"])


class Copy(Tool):
    """cp and sync: what writing the files costs by itself."""

    name = "cp + sync (floor)"

    def backup(self):
        return None

    def restore(self, destination):
        source = self.world.server.data
        line = f"cp -a {source}/. {destination} && sync -f {destination}"
        return self.timed("restore", ["bash", "-c", line])


def make(world, *kinds):
    """Those of the tools that are here."""
    return [tool for tool in (kind(world) for kind in kinds) if tool.available()]


def fresh_directory(world, path):
    """An empty data directory at `path`."""
    path = Path(path)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    world.own(path)
    return path
