"""Pages of the site that are written from what they are about: the commands, the changelog, how to contribute.

A hook of MkDocs (mkdocs.yml): the pages are made while the site is built and lie in no folder. The package's modules
are copied to build/package first: the repository's root is the package, and all below it would be read.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMMANDS = """# Commands

From the commands themselves, as `--help` prints them. Exit codes: 0; 1 a failed run or check; 2 a mistake in what was
asked; 130 Ctrl-C. After `pgm --install-completion` Tab tells options, cached datasets, methods and runs.
"""
VALUES = {"int": "N", "list[int]": "N", "float": "X", "list[float]": "X", "path": "PATH", "list[path]": "PATH"}


def on_config(config: Any) -> Any:
    """Copy the package, and nothing else of the repository."""
    package = ROOT / "build" / "package"
    shutil.rmtree(package, ignore_errors=True)
    for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]:
        to = package.joinpath(*name.split("."))
        to.mkdir(parents=True)
        for module in ROOT.joinpath(*name.split(".")[1:]).glob("*.py"):
            shutil.copy(module, to)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages before MkDocs reads any."""
    from mkdocs.structure.files import File

    pages = {
        "cli.md": commands(),
        "changelog.md": moved(ROOT / "CHANGELOG.md"),
        "contributing.md": moved(ROOT / "CONTRIBUTING.md"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def moved(path: Path) -> str:
    """A page of the repository's root, with the links it needs beside docs/'s own pages."""
    return re.sub(r"\]\(docs/([^)]*)\)", r"](\1)", path.read_text(encoding="utf-8"))


def commands() -> str:
    """The page of all commands."""
    import typer
    from pgm.cli import app

    return "\n".join([COMMANDS, *section("pgm", typer.main.get_command(app))])


def section(name: str, command: Any) -> Iterator[str]:
    """A command's part of the page, and those of the commands below it."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield f"## {usage(name, command)}\n\n{paragraphs(command.help)}\n"
        rows = [option(one) for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        if rows:
            yield "\n".join(["| | | |", "|---|---|---|", *rows, ""])
        if command.epilog:
            yield f"```text\n{example(command.epilog)}\n```\n"
    for word, one in inner.items():
        yield from section(f"{name} {word}", one)


def example(epilog: str) -> str:
    """The lines of an epilog, without its word before the first."""
    return "\n".join(line.strip() for line in epilog.removeprefix("Example:").splitlines() if line.strip())


def paragraphs(text: str | None) -> str:
    """Help as Markdown."""
    return "\n".join(line.strip() for line in (text or "").strip().splitlines())


def usage(name: str, command: Any) -> str:
    """The command and its arguments."""
    words = [one for one in command.params if one.param_type_name == "argument"]
    shown = [f"{one.name.upper()}{' ...' if one.nargs == -1 else ''}" for one in words]
    return " ".join([name, *(word if one.required else f"[{word}]" for one, word in zip(words, shown, strict=True))])


def option(one: Any) -> str:
    """A row of the table: how it is written, what it is, its default."""
    if one.param_type_name == "argument":
        written = f"`{one.name.upper()}`"
    else:
        value = "" if one.is_flag else f" {one.metavar or VALUES.get(one.bare_type().lower(), 'TEXT')}"
        written = ", ".join(f"`{spelling}{value}`" for spelling in one.opts)
    notes = [f"`${one.envvar}`"] if isinstance(getattr(one, "envvar", None), str) else []
    if one.default not in (None, False, (), []) and not callable(one.default) and one.default is not ...:
        notes.append(f"`{one.default}`")
    return f"| {written} | {escaped(one.help or '')} | {', '.join(notes)} |"


def escaped(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
