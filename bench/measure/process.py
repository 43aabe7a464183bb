"""Running a command and seeing what it costs."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Cost:
    """What a command cost: wall and CPU seconds, peak memory of it and its children in bytes, bytes left behind."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    stored: int = 0
    value: float = 0.0
    notes: list = field(default_factory=list)


class Runner:
    """Runs commands under an account, with their output in one log."""

    def __init__(self, account, log):
        self.account = account
        self.log = log
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC",
            "USER": account.pw_name, "PGUSER": "postgres",
        }

    def start(self, command, **more):
        """Starts a command; its output goes to the log."""
        arguments = [str(word) for word in command]
        if os.geteuid() == 0:
            more |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(arguments)}\n")
            log.flush()
            more.setdefault("stdout", log)
            more.setdefault("stderr", log)
            more.setdefault("stdin", subprocess.DEVNULL)
            return subprocess.Popen(arguments, cwd="/", env=self.environment, **more)

    def run(self, command, allowed=(0,)):
        """Runs a command to its end; any exit code that is not allowed ends the measurement."""
        child = self.start(command)
        if child.wait() not in allowed:
            raise SystemExit(f"bench: {' '.join(map(str, command))} failed ({child.returncode}), see {self.log}")
        return child.returncode

    def output(self, command):
        """What a command prints."""
        child = self.start(command, stdout=subprocess.PIPE, text=True)
        text, _ = child.communicate()
        if child.returncode != 0:
            raise SystemExit(f"bench: {' '.join(map(str, command))} failed ({child.returncode}), see {self.log}")
        return text.strip()

    def timed(self, command):
        """Runs a command to its end and measures it."""
        before = time.monotonic()
        child = self.start(command)
        watch = Watch(child.pid)
        # wait4 tells the CPU time of the command and of all children that it waited for.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - before
        peak = max(watch.stop(), usage.ru_maxrss * 1024)
        if child.returncode != 0:
            raise SystemExit(f"bench: {' '.join(map(str, command))} failed ({child.returncode}), see {self.log}")
        return Cost(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, memory=peak)


class Watch:
    """Samples the memory of a process and its descendants, shared pages counted once (PSS)."""

    def __init__(self, pid):
        self.pid, self.peak, self.done = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.done.wait(0.2):
            self.peak = max(self.peak, sum(proportional_memory(pid) for pid in descendants(self.pid)))

    def stop(self):
        self.done.set()
        self.thread.join()
        return self.peak


def descendants(pid):
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            tasks = Path(f"/proc/{one}/task").iterdir()
            for task in tasks:
                found.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            continue
    return found


def proportional_memory(pid):
    """Bytes of memory of a process; a page shared by n processes counts as 1/n."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def disk_bytes(path):
    """Bytes of all files below a directory."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(directory, name)).st_size
    return total
