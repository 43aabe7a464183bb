"""One machine of the trial: a layer over the cached Debian, in namespaces of its own, and what runs on it.

The namespaces (mounts, processes, network, host name) are made by scripts/debian-trial before this is used, so ports, mounts and
processes are nobody else's, and all of it ends with the trial.
"""

import os
import pty
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTS = "127.0.0.1 localhost db1\n"


class Failed(Exception):
    """A block, or what was expected of it, failed."""


class Machine:
    def __init__(self, lower, scratch):
        self.root = Path(scratch) / "root"
        for name in ("root", "upper", "work"):
            (Path(scratch) / name).mkdir()
        layers = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
        self.call("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        self.call("mount", "-t", "proc", "proc", self.root / "proc")
        self.call("mount", "--rbind", "/dev", self.root / "dev")
        self.call("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", self.root / "dev/shm")
        self.call("ip", "link", "set", "lo", "up")
        (self.root / "etc/hosts").write_text(HOSTS)
        (self.root / "etc/hostname").write_text("db1\n")
        socket.sethostname("db1")
        self.runs = 0

    @staticmethod
    def call(*command):
        subprocess.run([str(word) for word in command], check=True)

    def path(self, name):
        return self.root / name.lstrip("/")

    def ids(self, user):
        for line in self.path("/etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == user:
                return int(fields[2]), int(fields[3]), fields[5]
        raise Failed(f"there is no user {user}")

    def command(self, user, script):
        """As root gets there by `runuser -u USER -- bash`."""
        bash = ["bash", "-e", "-o", "pipefail", "-c", script]
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        return ["chroot", str(self.root), *become, *bash]

    def environment(self, user, more=None):
        home = "/root" if user == "root" else self.ids(user)[2]
        return {"PATH": PATH, "LANG": "C.UTF-8", "HOME": home, "USER": user, "TERM": "dumb", **(more or {})}

    def start(self, user, script, cwd="/", more=None, tty=None):
        """Starts a script in the background; its output goes to a file."""
        self.runs += 1
        out = self.root.parent / f"out-{self.runs}"
        script = f"cd {cwd}\n{script}"
        with open(out, "wb") as to:
            answers = {"stdin": tty, "stdout": tty, "stderr": tty} if tty is not None else {
                "stdin": subprocess.DEVNULL, "stdout": to, "stderr": subprocess.STDOUT}
            started = subprocess.Popen(
                self.command(user, script), env=self.environment(user, more), start_new_session=True, **answers)
        return Run(started, out)

    def run(self, user, script, cwd="/", timeout=180, answer=None):
        """Runs a script to its end; what it said."""
        if answer is None:
            run = self.start(user, script, cwd)
            code = run.wait(timeout)
        else:
            run, code = self.at_terminal(user, script, cwd, timeout, answer)
        run.end()
        said = run.said()
        if code != 0:
            raise Failed(f"as {user}, exit {code}:\n{script}\n--- said\n{said}")
        return said

    def at_terminal(self, user, script, cwd, timeout, answer):
        ours, theirs = pty.openpty()
        run = self.start(user, script, cwd, tty=theirs)
        os.close(theirs)
        threading.Thread(target=copy, args=(ours, run.out), daemon=True).start()
        os.write(ours, answer.encode())
        return run, run.wait(timeout)

    def sql(self, text, port=5432, database="postgres"):
        return self.run("postgres", f"psql -XAtq -p {port} -d {database} <<'END'\n{text}\nEND").strip()


def copy(source, out):
    with open(out, "ab", buffering=0) as to:
        while True:
            try:
                to.write(os.read(source, 65536) or b"")
            except OSError:
                return


class Run:
    def __init__(self, process, out):
        self.process, self.out = process, out

    def said(self):
        return self.out.read_bytes().decode(errors="replace")

    def wait(self, timeout):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise Failed(f"it did not end within {timeout} s; said\n{self.said()}") from None

    def until(self, text, timeout=120):
        end = time.monotonic() + timeout
        while text not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise Failed(f"{text!r} was not said but\n{self.said()}")
            time.sleep(0.1)

    def interrupt(self):
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.wait(30)
        if code not in (0, 130):
            raise Failed(f"Ctrl-C ended it with {code}; said\n{self.said()}")

    def end(self):
        """What a script left in the background ends with its terminal."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                time.sleep(0.3)
            except ProcessLookupError:
                return


class Service:
    """The unit, started by hand as near to systemd as goes without it: user, environment, readiness, and of its sandbox
    ProtectSystem, ReadWritePaths, StateDirectory, PrivateTmp, ProtectHome, NoNewPrivileges, no capabilities, UMask.
    Left out: system call filter, address families, devices, kernel settings; `systemd-analyze verify` reads them."""

    UNIT = "/etc/systemd/system/everpoint.service"

    def __init__(self, machine):
        self.machine, self.process = machine, None

    def settings(self):
        files = [self.machine.path(self.UNIT)]
        files += sorted(self.machine.path(self.UNIT + ".d").glob("*.conf"))
        found = {}
        for line in "\n".join(file.read_text() for file in files).splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                found.setdefault(key, []).append(value)
        return found

    @property
    def user(self):
        return self.settings()["User"][-1]

    def start(self):
        unit = self.settings()
        uid, gid, _ = self.machine.ids(self.user)
        state = f"/var/lib/{unit['StateDirectory'][-1]}"
        directory = self.machine.path(state)
        directory.mkdir(exist_ok=True)
        directory.chmod(int(unit["StateDirectoryMode"][-1], 8))
        if directory.stat().st_uid != uid:
            self.machine.call("chown", "-R", f"{uid}:{gid}", directory)
        writable = [state, *(word.lstrip("-+") for value in unit.get("ReadWritePaths", []) for word in value.split())]
        notify = self.machine.path("/run/everpoint.notify")
        notify.unlink(missing_ok=True)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(str(notify))
        notify.chmod(0o777)
        ready.settimeout(60)
        sandbox = [f"mount --bind {place} {place}" for place in writable]
        sandbox += ["mount -o remount,bind,ro /"] if unit["ProtectSystem"][-1] == "strict" else []
        sandbox += ["mount -t tmpfs -o mode=1777 tmpfs /tmp", "mount -t tmpfs -o mode=1777 tmpfs /var/tmp"]
        sandbox += ["mount -t tmpfs -o mode=0,ro tmpfs /root", "mount -t tmpfs -o mode=0,ro tmpfs /home"]
        sandbox += [f"umask {unit['UMask'][-1]}", "cd /"]
        lower = f"setpriv --reuid {uid} --regid {gid} --init-groups --no-new-privs --bounding-set=-all"
        variables = f"STATE_DIRECTORY={state} NOTIFY_SOCKET=/run/everpoint.notify WATCHDOG_USEC=60000000"
        sandbox += [f"exec {lower} env {variables} {unit['ExecStart'][-1]}"]
        script = "exec unshare --mount --propagation private bash -ec '" + "\n".join(sandbox) + "'"
        home = self.machine.ids(self.user)[2]
        self.process = self.machine.start("root", script, more={"HOME": home, "USER": self.user})
        try:
            while b"READY=1" not in ready.recv(4096):
                pass
        except TimeoutError:
            raise Failed(f"the service did not say that it is ready but\n{self.process.said()}") from None

    def stop(self):
        if self.process is None:
            return
        os.killpg(self.process.process.pid, signal.SIGTERM)
        begun, code = time.monotonic(), self.process.wait(30)
        self.process, seconds = None, time.monotonic() - begun
        if code != 0 or seconds > 12:
            raise Failed(f"SIGTERM ended the service with {code} after {seconds:.0f} s")

    def restart(self):
        self.stop()
        self.start()
