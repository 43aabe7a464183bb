"""A Debian 12 with a stock PostgreSQL, made by debootstrap and kept in the cache by what it is made of."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

RELEASE = "bookworm"
PACKAGES = ("postgresql", "systemd", "curl", "openssl", "age", "zstd", "procps")
# Nothing starts by itself when a package is installed.
POLICY = "#!/bin/sh\nexit 101\n"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def mirror():
    """The archive that this machine's apt uses, if it has this release, else Debian's own."""
    asked = os.environ.get("DEBIAN_MIRROR")
    if asked:
        return asked
    try:
        lines = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        lines = []
    sites = [site for site, _, codename in (line.partition(" ") for line in lines) if codename == RELEASE]
    return sites[0] if sites else "http://deb.debian.org/debian"


def make(cache):
    """The directory of the finished system; made if it is not in the cache."""
    recipe = "\n".join([RELEASE, *PACKAGES, POLICY])
    place = Path(cache) / "debian" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    # Two runs at once would make the same: the second waits and finds it.
    with open(place.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return place if (place / "etc/trial-is-complete").exists() else new(place, recipe)


def new(place, recipe):
    if shutil.which("debootstrap") is None:
        print("debian-trial: installing debootstrap", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"], check=True)
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    print(f"debian-trial: making Debian {RELEASE} from {mirror()}: some minutes, once", flush=True)
    log = place.with_suffix(".log")
    with open(log, "w") as out:
        try:
            fill(unfinished, out)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"debian-trial: {' '.join(error.cmd[:2])} failed; what it said is in {log}") from error
    (unfinished / "etc/trial-is-complete").write_text(recipe)
    unfinished.rename(place)
    return place


def fill(place, out):
    keyring = ["--keyring", KEYRING] if os.path.exists(KEYRING) else []
    bootstrap = ["debootstrap", "--variant=minbase", *keyring, RELEASE, str(place), mirror()]
    subprocess.run(bootstrap, stdout=out, stderr=out, check=True)
    policy = place / "usr/sbin/policy-rc.d"
    policy.write_text(POLICY)
    policy.chmod(0o755)
    if os.path.exists("/etc/resolv.conf"):
        shutil.copyfile("/etc/resolv.conf", place / "etc/resolv.conf")
    install = (
        f"mount --bind /dev {place}/dev && mount -t proc proc {place}/proc && exec chroot {place} env"
        " DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 apt-get install -y --no-install-recommends " + " ".join(PACKAGES)
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", install], stdout=out, stderr=out, check=True)
    subprocess.run(["chroot", str(place), "apt-get", "clean"], stdout=out, stderr=out, check=True)
