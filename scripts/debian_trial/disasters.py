"""What happens before a block of the documents is needed, and what must be there afterwards."""

import json
import os
import shutil
import signal
import time

from .machine import Failed

DATA = "/var/lib/postgresql/15/main"


class Disasters:
    """Mixed into Trial: uses its machine, facts and questions."""

    # --- places

    def new_place(self, owner=None):
        self.stop_copies()
        for name in self.copies():
            place = self.machine.path(name)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            self.give(place, owner or self.user)
        self.machine.path("/srv/work/package.age").unlink(missing_ok=True)

    def place_of_server(self):
        self.new_place("postgres")

    def stick(self):
        for name in ("/media/usb", "/mnt/usb"):
            self.machine.path(name).mkdir(parents=True, exist_ok=True)
            self.give(self.machine.path(name), self.typist)

    def repository_elsewhere(self):
        self.machine.run("root", "rm -rf /mnt/backup; cp -a /var/lib/everpoint /mnt/backup")

    def machine_is_lost(self):
        self.settle()
        self.repository_elsewhere()
        self.place_of_server()

    def package_is_there(self):
        names = [path.name for path in self.machine.path("/mnt/usb").glob("everpoint-*.tar.age")]
        if len(names) != 1:
            raise Failed(f"one package was made, there are {names}")
        self.facts["package"] = names[0]

    def stick_with_package(self):
        self.place_of_server()
        self.machine.run("root", "rm -rf /srv/packages")
        self.machine.path("/srv/packages").mkdir()
        self.give(self.machine.path("/srv/packages"), self.user)
        packed = self.ask("offsite", "pack", "--directory", "/srv/packages")
        shutil.copy(self.machine.path(packed["file"]), self.machine.path("/media/usb/package.age"))
        # Root types this block where the service has a user of its own; else who types has brought it along.
        self.give(self.machine.path("/media/usb/package.age"), self.typist, 0o600)

    # --- the service that takes one call a day

    def vault(self):
        token = self.machine.path("/etc/everpoint/vault.token")
        token.write_text("Bearer of-the-trial\n")
        self.give(token, self.user, 0o600)
        self.service.stop()
        self.mock = self.machine.start("root", "exec everpoint mock-offsite --dir /srv/vault")
        time.sleep(1)

    def sent(self):
        names = [path.name for path in self.machine.path("/srv/vault").rglob("everpoint-*.tar.age")]
        if len(names) != 1:
            raise Failed(f"one package was sent, there are {names}")
        self.facts["sent"] = names[0]

    def service_again(self):
        self.service.restart()
        self.settle()

    # --- life and its disasters

    def rows(self, count):
        self.machine.sql(
            "CREATE TABLE IF NOT EXISTS lost_table(n int); TRUNCATE lost_table;"
            f"INSERT INTO lost_table SELECT generate_series(1, {count})")

    def mark(self, name):
        time.sleep(0.1)
        self.facts[name] = self.machine.sql("SELECT clock_timestamp()")
        time.sleep(0.1)

    def life(self):
        self.rows(1)
        self.mark("early")
        self.facts["xid"] = self.machine.sql("BEGIN; INSERT INTO lost_table VALUES (2); SELECT txid_current(); COMMIT")
        self.facts["lsn"] = self.machine.sql("SELECT pg_current_wal_insert_lsn()")
        self.machine.sql("SELECT pg_create_restore_point('before-upgrade')")
        self.machine.sql("INSERT INTO lost_table VALUES (3)")
        self.mark("late")
        self.settle()
        self.facts["backup"] = self.good_backups()[-1]

    def count(self, port=5432):
        return self.machine.sql("SELECT count(*) FROM lost_table", port)

    def has_rows(self, count):
        self.wait("the server is promoted", lambda: self.machine.sql("SELECT pg_is_in_recovery()") == "f")
        if self.count() != str(count):
            raise Failed(f"lost_table has {self.count()} rows instead of {count}")

    def three_rows(self):
        self.has_rows(3)

    def one_row(self):
        self.has_rows(1)

    def crash(self):
        pid = int(self.machine.path(f"{DATA}/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        time.sleep(2)
        self.machine.run("root", "pg_ctlcluster 15 main start")
        self.settle()

    def drop_table(self):
        self.rows(3)
        self.mark("late")
        self.machine.sql("DROP TABLE lost_table")
        self.settle()
        self.new_place()

    def table_is_back(self):
        self.machine.run("root", "runuser -u postgres -- psql -d postgres < /srv/work/lost_table.sql")
        self.has_rows(3)

    def corrupt(self):
        self.stop_copies()
        self.settle()
        name = self.machine.sql("CHECKPOINT; SELECT pg_relation_filepath('lost_table')").splitlines()[-1]
        with open(self.machine.path(f"{DATA}/{name}"), "r+b") as file:
            file.seek(4000)
            file.write(b"\x5a" * 512)

    def new_machine(self):
        self.settle()
        self.machine.run("root", "pg_dropcluster --stop 15 main")

    def empty_machine(self):
        self.new_machine()
        self.service.stop()
        self.repository_elsewhere()
        self.machine.run("root", "mv /etc/everpoint /etc/everpoint.aside")

    def configuration_is_back(self):
        self.machine.run("root", "mv /etc/everpoint.aside /etc/everpoint")
        self.service.start()
        self.archiver_is_back()

    def printed_commands(self):
        """Instead of the runbook: what the restore itself prints, pasted by root."""
        self.new_machine()
        said = self.machine.run("root", f"everpoint restore order-db {DATA} --replace-production")
        start = "start it with: "
        commands = [line.removeprefix(start) for line in said.splitlines() if line.startswith(("  ", start))]
        if len(commands) < 2:
            raise Failed(f"no commands were printed:\n{said}")
        self.machine.run("root", "\n".join(commands))

    def copy_has_three(self):
        port = self.machine.path("/srv/new/postmaster.pid").read_text().splitlines()[3]
        got = self.machine.run(
            "root", f"psql -XAtq -U postgres -h /srv/new -p {port} -d postgres -c 'SELECT count(*) FROM lost_table'")
        if got.strip() != "3":
            raise Failed(f"the copy has {got.strip()} rows instead of 3")

    def wrong_moment(self):
        self.rows(1)
        self.mark("early")
        self.rows(2)
        self.mark("late")
        self.machine.sql("DROP TABLE lost_table")
        self.settle()

    def wrong_moment_again(self):
        self.rows(1)
        self.mark("late")
        self.rows(5)
        self.settle()
        self.place_of_server()

    def key_is_lost(self):
        for path in self.machine.path("/etc/everpoint").glob("*.key*"):
            path.unlink()

    def archiver_is_back(self):
        """What `archive_command` could not store meanwhile it tries again."""
        if self.user == "postgres":
            self.wait("the server is promoted", lambda: self.machine.sql("SELECT pg_is_in_recovery()") == "f")
            self.machine.sql("SELECT pg_switch_wal()")
            self.wait("the archiver is back", lambda: self.machine.sql(
                "SELECT last_archived_time > last_failed_time FROM pg_stat_archiver") != "f", 180)

    # --- the end

    def service_goes_on(self):
        """The daemon backs up, expires, and what it has restores."""
        self.service.restart()
        self.machine.sql("CREATE TABLE IF NOT EXISTS goes_on(n int); INSERT INTO goes_on VALUES (1)")
        before = self.good_backups()
        self.post("backup/snapshot", '{"cluster": "order-db"}')
        self.wait("a backup by the service", lambda: len(set(self.good_backups()) - set(before)) == 1)
        self.wait("its expiry", lambda: self.done("expire"))
        self.settle()
        self.new_place()
        self.machine.run(self.typist, "everpoint restore order-db /srv/copy --start --port 6543", self.work(self.typist))
        wanted = self.machine.sql("SELECT count(*) FROM goes_on")
        got = self.machine.run("root", "psql -XAtq -U postgres -h /srv/copy -p 6543 -d postgres -c 'SELECT count(*) FROM goes_on'")
        if got.strip() != wanted:
            raise Failed(f"goes_on has {wanted} rows, the copy {got}")
        self.stop_copies()
        if self.user == "postgres":
            failed = self.machine.sql("SELECT archived_count, last_failed_time > last_archived_time FROM pg_stat_archiver")
            if failed.startswith("0|") or failed.endswith("|t"):
                raise Failed(f"archive_command: {failed}")

    def nothing_keeps_log(self):
        """After the end of protection, where the program can end it."""
        slots = self.machine.sql("SELECT slot_name FROM pg_replication_slots")
        if self.forgotten and (slots or "/usr/bin/everpoint" in self.machine.sql("SHOW archive_command")):
            raise Failed(f"the server still keeps log: {slots}")

    TOKEN = "Authorization: Bearer $(cat /etc/everpoint/admin.token)"

    def post(self, path, body):
        head = f"-H \"{self.TOKEN}\" -H 'Content-Type: application/json'"
        return self.machine.run(self.user, f"curl -sS --fail {head} -d '{body}' http://127.0.0.1:8432/{path}")

    def done(self, kind):
        said = self.machine.run(self.user, f"curl -sS --fail -H \"{self.TOKEN}\" http://127.0.0.1:8432/api/v1/jobs")
        return any((job["kind"], job["state"]) == (kind, "ok") for job in json.loads(said)["jobs"])
