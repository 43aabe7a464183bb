"""One pass of the trial: a machine, who types, and what becomes of it."""

import json
import os
import re
import shutil
import signal
import time
from datetime import datetime

from . import documents, plan
from .disasters import Disasters
from .machine import Failed, Machine, Service

# What belongs to the service's user alone, and what to the servers' user.
STATE = "/var/lib/everpoint-state"
OURS = ("/var/lib/everpoint", "/etc/everpoint", STATE)
SERVERS = ("/var/lib/postgresql/15", "/etc/postgresql/15")
COPIES = ("/srv/copy", "/srv/new")
# No systemd runs: units are enabled by the real systemctl; what is to be started or stopped, the trial does (`Trial.type`).
SYSTEMCTL = """#!/bin/sh
case $1 in
enable) shift; [ "$1" != --now ] || shift; exec /usr/bin/systemctl enable "$@" ;;
daemon-reload | start | stop | restart) exit 0 ;;
*) echo "systemctl $*: the trial does not know this" >&2; exit 1 ;;
esac
"""


class Trial(Disasters):
    def __init__(self, sources, binary, lower, scratch, typist):
        self.typist_name, self.facts, self.failures, self.typed = typist, {}, [], 0
        self.forgotten = False
        self.blocks = {block.id: block for block in documents.blocks(sources)}
        self.machine = Machine(lower, scratch)
        self.service = Service(self.machine)
        download = self.machine.path("/srv/download")
        download.mkdir(parents=True)
        shutil.copy(binary, download / "everpoint")
        shutil.copy(sources / "packaging/systemd/everpoint.service", download)
        # A program of a newer system than this Debian says so here.
        self.machine.run("root", "/srv/download/everpoint --version")
        self.machine.run("root", "cd /srv/download && sha256sum everpoint > SHA256SUMS")
        stand_in = self.machine.path("/usr/local/bin/systemctl")
        stand_in.write_text(SYSTEMCTL)
        stand_in.chmod(0o755)
        self.machine.run("root", "pg_createcluster 15 inventory --port 5433 --locale C.UTF-8")
        for name in ("main", "inventory"):
            self.machine.run("root", f"pg_ctlcluster 15 {name} start")

    @property
    def user(self):
        """The service's."""
        return "everpoint" if self.typist_name == "own" else "postgres"

    @property
    def typist(self):
        return "everpoint" if self.typist_name == "own" else self.typist_name

    def run(self, stop_at_first):
        for step in plan.PLAN:
            if self.typist_name not in step.passes:
                continue
            name = self.blocks[step.block].name if step.block else step.act
            begun = time.monotonic()
            try:
                who = self.step(step)
            except Failed as failed:
                self.failures.append(name)
                print(f"FAILED  {name}\n{failed}\n", flush=True)
                if stop_at_first:
                    return
                continue
            finally:
                self.look_at_owners(name)
            print(f"ok  {who:9} {name} ({time.monotonic() - begun:.1f} s)", flush=True)

    def step(self, step):
        if before := step.options.get("before"):
            getattr(self, before)()
        if step.block is None:
            getattr(self, step.act)()
            return "-"
        block = self.blocks[step.block]
        self.typed += 1
        options = {**step.options, "words": step.words}
        return getattr(self, step.act)(block, self.put_words(block.text, step.words), options) or self.typist

    def put_words(self, text, own):
        words = {**own, **plan.PASS_WORDS.get(self.typist_name, {}), **plan.WORDS}
        for example, value in words.items():
            value = value.format(user=self.user) if "{user}" in value else value
            for name in re.findall(r"@(\w+)", value) if example in text else ():
                if name not in self.facts:
                    raise Failed(f"the trial does not know {name} yet, which stands for {example}")
                value = value.replace(f"@{name}", self.facts[name])
            text = text.replace(example, value)
        return text

    # --- how blocks are used

    def type(self, block, text, options):
        user = block.user(self.typist)
        if block.language == "sql":
            self.machine.sql(text)
            return "postgres"
        cwd = options.get("cwd", self.work(user))
        if until := options.get("until"):
            run = self.machine.start(user, text, cwd)
            run.until(until)
            try:
                self.in_a_second_terminal(block, user, cwd, options)
            finally:
                run.interrupt()
        else:
            self.machine.run(user, text, cwd, answer=options.get("answer"))
        if "systemctl stop everpoint" in text:
            self.service.stop()
        if "enable --now everpoint" in text or "systemctl restart everpoint" in text:
            self.service.restart()
        return user

    def in_a_second_terminal(self, block, user, cwd, options):
        if number := options.get("beside"):
            self.typed += 1
            beside = self.blocks[(*block.id[:2], number)]
            self.machine.run(user, self.put_words(beside.text, options["words"]), cwd)

    def alternatives(self, block, text, _options):
        """Each line by itself, into an empty directory."""
        for line in text.splitlines():
            self.new_place()
            self.machine.run(self.typist, line, self.work(self.typist))

    def instead_of_the_service(self, block, text, _options):
        self.service.stop()
        run = self.machine.start(self.typist, text, self.work(self.typist))
        time.sleep(6)
        if run.process.poll() is not None:
            raise Failed(f"it ended by itself:\n{run.said()}")
        run.interrupt()
        self.look_at_owners(block.name)
        self.service.start()

    def when_there(self, block, text, options):
        """A command that a program of this age may not have: said, and counted as not typed."""
        try:
            self.machine.run("root", f"everpoint {options['command']} --help")
        except Failed:
            self.typed -= 1
            print(f"pending {block.name}: this program has no `{options['command']}`", flush=True)
            return "-"
        self.forgotten = True
        return self.type(block, text, options)

    def write(self, _block, text, options):
        """The file keeps its owner, as an editor leaves it."""
        self.machine.path(f"/etc/everpoint/{options['to']}").write_text(text + "\n")

    def append(self, _block, text, _options):
        with open(self.machine.path("/etc/everpoint/everpoint.toml"), "a") as file:
            file.write(f"\n{text}\n")

    def work(self, user):
        """A directory that who types may write to."""
        if user != self.typist:
            return "/"
        place = self.machine.path("/srv/work")
        place.mkdir(exist_ok=True)
        self.give(place, user)
        return "/srv/work"

    def give(self, place, user, mode=0o700):
        uid, gid, _ = self.machine.ids(user)
        os.chown(place, uid, gid)
        os.chmod(place, mode)

    # --- what must be right

    def look_at_owners(self, name):
        """After each step: whatever belongs to somebody else from then on stops the service, or the server."""
        wrong = []
        for places, user in ((OURS, self.user), (SERVERS, "postgres")):
            try:
                uid, gid, _ = self.machine.ids(user)
            except Failed:
                continue
            for place in places:
                for path in self.all_below(place):
                    there = os.lstat(path)
                    if (there.st_uid, there.st_gid) != (uid, gid):
                        wrong.append(f"{there.st_uid}:{there.st_gid} {str(path).removeprefix(str(self.machine.root))}")
                        # So that what follows is not judged for it.
                        os.lchown(path, uid, gid)
        if wrong:
            self.failures.append(f"{name}: owners")
            print(f"FAILED  {name}: {len(wrong)} files belong to the wrong user: {', '.join(wrong[:5])}", flush=True)

    def all_below(self, place):
        top = self.machine.path(place)
        # Of a state directory that was made by somebody else, systemd mends all owners when it starts the unit.
        if top.is_dir() and not (place == STATE and os.lstat(top).st_uid != self.machine.ids(self.user)[0]):
            yield top
            for directory, directories, files in os.walk(top):
                for name in directories + files:
                    path = os.path.join(directory, name)
                    if os.path.lexists(path):
                        yield path

    def unit_is_right(self):
        said = self.machine.run("root", "systemd-analyze verify --man=no /etc/systemd/system/everpoint.service 2>&1")
        if "everpoint" in said:
            raise Failed(f"systemd-analyze verify: {said}")
        self.machine.run("root", "systemd-analyze security --offline=true --threshold=25 everpoint.service")

    # --- Everpoint asked by the trial itself, as the service's user

    def ask(self, *words):
        return json.loads(self.machine.run(self.user, f"everpoint --json {' '.join(words)} 2>/dev/null"))

    def cluster(self, name="order-db"):
        listed = self.ask("list", name)
        return next(cluster for cluster in listed["clusters"] if cluster["name"] == name)

    def good_backups(self, name="order-db"):
        return [backup["label"] for backup in self.cluster(name)["backups"] if backup["status"] == "ok"]

    def wait(self, what, holds, seconds=90):
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                service = self.service.process.said()[-3000:] if self.service.process else "(it does not run)"
                raise Failed(f"waited {seconds} s for this: {what}; the service said\n{service}")
            time.sleep(0.5)

    def both_are_protected(self):
        link = self.machine.path("/etc/systemd/system/multi-user.target.wants/everpoint.service")
        if not link.is_symlink():
            raise Failed("the unit is not enabled")
        for name in ("order-db", "inventory-db"):
            self.wait(f"a good backup of {name}", lambda name=name: self.good_backups(name))

    def settle(self):
        """What is committed is stored."""
        self.wait("the server is promoted", lambda: self.machine.sql("SELECT pg_is_in_recovery()") == "f")
        moment = self.machine.sql("SELECT clock_timestamp()")
        time.sleep(0.2)
        self.machine.sql("SELECT pg_create_restore_point('settled'), pg_switch_wal()")
        self.machine.sql("CREATE TABLE IF NOT EXISTS heart(n int); INSERT INTO heart VALUES (1)")
        wanted = datetime.fromisoformat(complete(moment))
        self.wait(f"{moment} is stored", lambda: any(
            datetime.fromisoformat(complete(window["to"])) >= wanted for window in self.cluster()["windows"]))

    def copies(self):
        """Places of copies; one of them becomes production in the end."""
        production = self.machine.path("/etc/postgresql/15/main/postgresql.conf")
        text = production.read_text() if production.exists() else ""
        return [place for place in COPIES if f"'{place}'" not in text]

    def stop_copies(self):
        for place in self.copies():
            pid_file = self.machine.path(place) / "postmaster.pid"
            if pid_file.exists():
                pid = int(pid_file.read_text().split()[0])
                os.kill(pid, signal.SIGINT)
                self.wait("a copy stops", lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


def complete(moment):
    """Python before 3.11 reads no zone of two digits."""
    moment = moment.replace("Z", "+00:00")
    return moment + ":00" if moment[-3] in "+-" else moment
