"""The data set, and where everything lies."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from .process import Runner, disk_bytes
from .server import Server

SETTINGS = {
    "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "wal_level": "replica",
    "archive_mode": "on", "archive_command": "true", "max_wal_senders": "10", "autovacuum": "off", "timezone": "UTC",
    "log_timezone": "UTC",
}
# Varied rows as applications have them: prose, JSON documents, random keys. About 1 KB each.
VARIED = """
CREATE TABLE varied AS
SELECT gen_random_uuid() AS id, now() - g * interval '7 seconds' AS at,
       (SELECT string_agg((ARRAY['order','invoice','the','customer','of','payment','shipped','returned','and','late',
         'warehouse','is','with','address','pending','cancelled'])[1 + (hashint4(g * 97 + i) & 15)], ' ')
        FROM generate_series(1, 60) i) AS body,
       jsonb_build_object('user', md5(g::text), 'total', (hashint4(g) & 65535) / 100.0,
         'lines', (SELECT jsonb_agg(jsonb_build_object('sku', hashint4(g + i) & 9999, 'n', i)) FROM generate_series(1, 6) i),
         'token', gen_random_uuid()) AS document
FROM generate_series(1, {rows}) g
"""
SMALL = """
DO $$ BEGIN FOR i IN 1..{tables} LOOP
  EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, name text)', i);
  EXECUTE format('INSERT INTO small_%s SELECT g, md5(g::text) FROM generate_series(1, 20) g', i);
  IF i % 100 = 0 THEN COMMIT; END IF;
END LOOP; END $$
"""


class World:
    """A server with the data set, and a directory for repositories and copies. Removed at the end."""

    def __init__(self, machine, scratch, scale, port):
        self.machine, self.scale = machine, scale
        base = scratch or Path("/var/tmp")
        base.mkdir(parents=True, exist_ok=True)
        self.home = Path(tempfile.mkdtemp(prefix="everpoint-bench-", dir=base))
        self.home.chmod(0o755)
        self.log = self.home / "log"
        self.log.touch()
        self.own(self.home)
        self.run = Runner(machine.account, self.log)
        self.server = Server(self.run, machine.server, self.directory("server"), port)
        self.port = port

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.server.stop(signal.SIGQUIT)
        if kind is None or kind is KeyboardInterrupt:
            shutil.rmtree(self.home, ignore_errors=True)
        else:
            print(f"bench: files are kept in {self.home}")

    def directory(self, name):
        path = self.home / name
        path.mkdir(exist_ok=True)
        self.own(path)
        return path

    def own(self, path):
        """Gives what lies at `path` to the account that runs everything."""
        if os.geteuid() != 0:
            return
        account = self.machine.account
        os.chown(path, account.pw_uid, account.pw_gid)
        for directory, directories, files in os.walk(path):
            for name in directories + files:
                os.chown(os.path.join(directory, name), account.pw_uid, account.pw_gid, follow_symlinks=False)

    def build(self):
        """Makes the data set."""
        share = self.scale / 200
        self.rows, self.tables = max(1000, int(1_000_000 * share)), max(20, int(2000 * share))
        print(f"bench: making the data set, pgbench scale {self.scale}, {self.rows} varied rows, {self.tables} tables",
              flush=True)
        server = self.server
        server.make(SETTINGS)
        server.start()
        self.pgbench("-i", "-q", "-s", str(self.scale))
        server.sql(VARIED.format(rows=self.rows))
        server.sql("CREATE INDEX ON varied (id)")
        server.sql("CREATE INDEX ON varied USING gin (document jsonb_path_ops)")
        server.sql(SMALL.format(tables=self.tables))
        server.sql("VACUUM ANALYZE")
        server.sql("CHECKPOINT")
        self.data_bytes = disk_bytes(server.data)
        self.data_files = sum(len(names) for _, _, names in os.walk(server.data))
        print(f"bench: {self.data_bytes / 1e9:.2f} GB in {self.data_files} files", flush=True)

    def pgbench(self, *words):
        server = self.server
        command = [server.tool("pgbench"), "-h", server.home, "-p", server.port, "-U", "postgres", *words, "postgres"]
        return self.run.output(["bash", "-c", '"$@" 2>&1', "pgbench", *command])
