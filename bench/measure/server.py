"""A PostgreSQL server to measure on."""

import os
import signal
import time


class Server:
    """A cluster: made once, started and stopped often."""

    def __init__(self, run, programs, home, port):
        self.run, self.programs, self.home, self.port = run, programs, home, port
        self.data = home / "data"
        self.process = None

    def tool(self, name):
        return self.programs / name

    def make(self, settings):
        self.run.run([self.tool("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-k", "--locale=C", "-E", "UTF8"])
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))

    def start(self, wait_for_end_of_recovery=False):
        self.process = self.run.start([
            self.tool("postgres"), "-D", self.data, "-c", f"port={self.port}", "-c", f"unix_socket_directories={self.home}",
            "-c", "listen_addresses=127.0.0.1",
        ])
        wish = "f" if wait_for_end_of_recovery else None
        for _ in range(60000):
            if self.process.poll() is not None:
                raise SystemExit(f"bench: the server on {self.data} did not start, see {self.run.log}")
            answer = self.ask("SELECT pg_is_in_recovery()")
            if answer is not None and wish in (None, answer):
                return
            time.sleep(0.02)
        raise SystemExit("bench: the server does not answer")

    def ask(self, sql):
        """One value, or nothing while the server does not answer."""
        child = self.run.start(self.psql(sql), stdout=-1, text=True)
        text, _ = child.communicate()
        return text.strip() if child.returncode == 0 else None

    def psql(self, sql, database="postgres"):
        return [self.tool("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.home, "-p", self.port, "-d", database, "-c", sql]

    def sql(self, sql):
        return self.run.output(self.psql(sql))

    def stop(self, how=signal.SIGINT):
        if self.process is None or self.process.poll() is not None:
            return
        os.kill(self.process.pid, how)
        self.process.wait(timeout=300)
        self.process = None

    @property
    def url(self):
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"
