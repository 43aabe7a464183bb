"""What this machine is, and which programs are here."""

import os
import platform
import pwd
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MAJOR = 15


def first_line(command):
    """The first line that a command prints, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout else ""


class Machine:
    """Programs, the account that runs them, and a description for the report."""

    def __init__(self, everpoint=None):
        cache = Path(os.environ.get("EVERPOINT_CACHE", ROOT / ".cache"))
        self.everpoint = (everpoint or ROOT / "target/release/everpoint").resolve()
        self.pgbackrest = cache / "peers/bin/pgbackrest"
        self.server = self._server(cache / f"servers/pg{MAJOR}/bin")
        self.server_zstd = self._has_zstd()
        self.account = self._account()
        self.fatal = False

    @staticmethod
    def _server(fetched):
        """Debian's build where it is installed: unlike the fetched one it can compress with zstd inside the server."""
        packaged = Path(f"/usr/lib/postgresql/{MAJOR}/bin")
        return packaged if (packaged / "postgres").exists() and (packaged / "pgbench").exists() else fetched

    def _has_zstd(self):
        # pg_config may be missing from a packaged server; the program itself names the library it was linked with.
        linked = subprocess.run(["ldd", self.server / "postgres"], capture_output=True, text=True, check=False).stdout
        return "libzstd" in linked

    @staticmethod
    def _account():
        """PostgreSQL refuses to run as root; root lends it an account."""
        if os.geteuid() != 0:
            return pwd.getpwuid(os.geteuid())
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise SystemExit("bench: root cannot run PostgreSQL, and there is no account postgres or nobody")

    def missing(self):
        """What can't be measured, in words."""
        lines = []
        if not (self.server / "postgres").exists():
            self.fatal = True
            lines.append(f"PostgreSQL {MAJOR} is missing: run scripts/install-test-servers {MAJOR}")
        if not self.pgbackrest.exists():
            lines.append("pgBackRest is missing, its rows stay empty: run scripts/install-peers")
        if not self.everpoint.exists():
            lines.append(f"{self.everpoint} is missing, its rows stay empty: run make build")
        for path in (self.server, self.pgbackrest.parent):
            if os.geteuid() == 0 and path.exists() and not self._reaches(path):
                self.fatal = True
                lines.append(f"{self.account.pw_name} cannot reach {path}: move the checkout, or set EVERPOINT_CACHE")
        return lines

    def _reaches(self, path):
        return all(p.stat().st_mode & 0o001 or p.stat().st_uid == self.account.pw_uid for p in [path, *path.parents])

    def describe(self):
        """Lines about hardware and versions."""
        cpu = first_line(["sh", "-c", "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo"]) or platform.processor()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        lines = [
            f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB of memory",
            f"{platform.system()} {platform.release()}, {platform.machine()}",
            first_line([self.server / "postgres", "--version"])
            + (", built with zstd" if self.server_zstd else ", built without zstd"),
        ]
        if self.pgbackrest.exists():
            lines.append(first_line([self.pgbackrest, "version"]))
        if self.everpoint.exists():
            lines.append(first_line([self.everpoint, "--version"]))
        if shutil.which("zstd"):
            lines.append(first_line(["zstd", "--version"]).strip("* "))
        return lines
