"""Runs the examples of README and docs: Python blocks, tables in TOML, and commands with their output."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from strangle_mw.config import load


def enter(namespace):
    """Work in a folder of the document's own; `strangle.toml` of one block is there for the next."""
    folder = tempfile.TemporaryDirectory()
    namespace.update(folder=folder, before=Path.cwd())
    os.chdir(folder.name)


def leave(namespace):
    os.chdir(namespace["before"])
    namespace["folder"].cleanup()


def evaluate_toml(example):
    """A table in the docs must load, and is the `strangle.toml` of the commands below it."""
    Path("strangle.toml").write_text(example.parsed)
    load("strangle.toml")


def evaluate_console(example):
    """Each `$ command` must print what stands below it."""
    for block in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = block.partition("\n")
        program, *arguments = command.split()
        assert program == "strangle", f"only strangle commands are run, not {program}"
        done = subprocess.run(
            [sys.executable, "-m", "strangle_mw.cli", *arguments], capture_output=True, text=True, check=False
        )
        found = done.stdout + done.stderr
        if found.strip() != expected.strip():
            return f"$ {command}\nexpected:\n{expected}\nfound:\n{found}"
    return None


class TomlParser(CodeBlockParser):
    language = "toml"

    def evaluate(self, example):
        return evaluate_toml(example)


class ConsoleParser(CodeBlockParser):
    language = "console"

    def evaluate(self, example):
        return evaluate_console(example)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), TomlParser(), ConsoleParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md", "SECURITY.md"],
    setup=enter,
    teardown=leave,
).pytest()
