"""The blocks of code of the documents, each with its heading, its number below it, and who types it."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENTS = ("GUIDE", "RUNBOOKS")
# What somebody types, or puts into a file of Everpoint or of its service.
LANGUAGES = ("sh", "sql", "toml", "ini")
WHO = {
    "# as root": ("root", "root", "root"),
    "# as postgres": ("postgres", "postgres", "postgres"),
    "# as root or postgres": ("root", "postgres", "root"),
}


@dataclass(frozen=True)
class Block:
    document: str
    heading: str
    number: int
    language: str
    text: str

    @property
    def id(self):
        return (self.document, self.heading, self.number)

    @property
    def name(self):
        return f"{self.document}: {self.heading} {self.number}"

    def user(self, typist):
        """Who types it in the pass of `typist`: root, postgres, or else a user of the service's own."""
        first = self.text.splitlines()[0].split(",")[0] if self.text else ""
        which = {"root": 0, "postgres": 1}.get(typist, 2)
        return WHO[first][which] if first in WHO else typist


def blocks(root):
    """All blocks of the documents, in their order."""
    return [block for name in DOCUMENTS for block in of(name, (Path(root) / "docs" / f"{name}.md").read_text())]


def of(document, text):
    found, heading, fence, number = [], "", None, 0
    for line in text.splitlines():
        opened = re.match(r"^```(\w*)$", line)
        if fence is not None:
            if line == "```":
                number += 1
                if fence in LANGUAGES:
                    found.append(Block(document, heading, number, fence, "\n".join(lines)))
                fence = None
            else:
                lines.append(line)
        elif opened:
            fence, lines = opened[1] or "none", []
        elif re.match(r"^#{1,4} ", line):
            heading, number = line.lstrip("# "), 0
    return found


def strange(root):
    """Blocks that would not be seen as what they are."""
    found = []
    for name in DOCUMENTS:
        for number, line in enumerate((Path(root) / "docs" / f"{name}.md").read_text().splitlines(), 1):
            fence = re.match(r"^\s*(```|~~~)(.*)$", line)
            if fence and not (line.startswith("```") and fence[2] in ("", *LANGUAGES)):
                found.append(f"docs/{name}.md:{number}: {line.strip()}: only ```{', ```'.join(LANGUAGES)} at the begin of a line")
    return found
