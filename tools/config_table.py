"""Write docs/config.md: every key of a config, its type, its default and what it means, taken from the code.

    python tools/config_table.py [--check]

With ``--check`` nothing is written; the exit code is 1 where the page is not what the code says.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pellucid.config import GROUPS, SessionSettings, installed, keys_of

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """\
# Every key of a config

*Made from the code by `python tools/config_table.py`; `pellucid list` says the same of what is installed on your \
computer, plugins included.*

A config is a TOML file: one `[source]`, any number of `[[stages]]` and `[[sinks]]`, `[session]`, and `plugins`, a \
list of [files of your own](../README.md#your-own-parts). `kind` names a part; every other key is one of those below. \
A key that is left out has its default, and one that does not exist is refused with the nearest that does. Paths are \
seen from the config's folder.

Every stage takes as well: `reads` and `writes` (names of planes; left out, each reads what the one before wrote, the \
first `raw`, and the last writes `restored`), `channels` and `cameras` (lists of names: it works on those streams \
only), and `on` (false: frames pass it by; [can be changed while it runs](controls.md)).
"""
TITLES = {"sources": "[source]", "stages": "[[stages]]", "engines": "engine of a stage", "sinks": "[[sinks]]"}


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = page()
    if given.check:
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE.name} is not what the code says. Type: python tools/config_table.py")
        return
    PAGE.write_text(text, encoding="utf-8", newline="\n")


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for group in GROUPS:
        parts.append(f"\n## {TITLES[group]}\n")
        for kind, entry in installed(group).items():
            if entry.value.startswith("pellucid."):
                parts += section(f'`kind = "{kind}"`', entry.load())
    parts.append("\n## [session]\n")
    parts += section("", SessionSettings)
    return "\n".join(parts) + "\n"


def section(title: str, part: type) -> Iterator[str]:
    """Yield the lines of one part.

    Raises
    ------
    SystemExit
        Where a key has no word of explanation.
    """
    doc = inspect.getdoc(part) or ""
    if title:
        yield f"\n### {title}\n"
        yield plain(doc.partition("\n\n")[0].replace("\n", " ")) + "\n"
    rows = keys_of(part)
    if not rows:
        yield "No keys.\n"
        return
    told: dict[str, str] = {}
    for base in reversed(part.__mro__):  # what a class says of a key is said anew where it means something else
        told |= parameters(inspect.cleandoc(base.__doc__ or ""))
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    for key, kind, default in rows:
        if key not in told:
            sys.exit(f"{part.__module__}.{part.__name__}: its docstring does not say what {key} is")
        yield f"| `{key}` | {code(kind)} | {code(default)} | {plain(told[key])} |"


def parameters(doc: str) -> dict[str, str]:
    """Return what the section Parameters of a numpy docstring says of each name."""
    found = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", doc, re.S | re.M)
    told: dict[str, str] = {}
    names: list[str] = []
    for line in (found.group(1) if found else "").splitlines():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(":")[0].split(",")]
            told |= dict.fromkeys(names, "")
        elif line.strip():
            told |= {name: f"{told[name]} {line.strip()}".strip() for name in names}
    return {name: text for name, text in told.items() if text}


def code(text: str) -> str:
    """Return a text as code within a table."""
    return text if text == "required" else "`" + text.replace("|", "\\|") + "`"


def plain(text: str) -> str:
    """Return a docstring's text as Markdown within a table."""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"`pellucid\.([\w.]+)`", lambda m: f"`{m.group(0)[1:-1]}`", text)
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


if __name__ == "__main__":
    main()
