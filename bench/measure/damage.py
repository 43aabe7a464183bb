"""Pages that differ from the backup."""

import random
from pathlib import Path

PAGE = 8192
MARK = b"differs from the backup!"


def relation_files(data):
    """Files of tables and indexes."""
    for path in sorted(Path(data).glob("base/*/*")):
        if path.is_file() and path.name.split(".")[0].isdigit() and path.stat().st_size >= PAGE:
            yield path


def pages(data, one_in, seed):
    """Changes one in so many pages at random places; returns how many."""
    choice, changed = random.Random(seed), 0
    for path in relation_files(data):
        count = path.stat().st_size // PAGE
        chosen = [number for number in range(count) if choice.randrange(one_in) == 0]
        if not chosen:
            continue
        with open(path, "r+b") as file:
            for number in chosen:
                file.seek(number * PAGE + PAGE // 2)
                file.write(MARK)
        changed += len(chosen)
    return changed


def left(data):
    """How many pages still hold what `pages` wrote."""
    return sum(path.read_bytes().count(MARK) for path in relation_files(data))
