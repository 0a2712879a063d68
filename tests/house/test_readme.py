"""Holds README.md to its word: every command in its ``bash`` blocks exists, with the options it is given.

The same goes for the commands that scripts/demo recommends at its end. Its Python programs are run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="README.md is not written yet")


def commands() -> list[list[str]]:
    """The words of every simple command in the blocks, without ``$`` and assignments."""
    if not README.exists():
        return []
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^cat <<NEXT\n(.*?)^NEXT", (ROOT / "scripts" / "demo").read_text(), re.MULTILINE | re.DOTALL)
    return [words for block in blocks for words in simple_commands(block)]


def programs() -> list[str]:
    """The ``python`` blocks, each a whole program."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def simple_commands(block: str) -> list[list[str]]:
    found: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("|&;"):
                found.append(words)
                words = []
            elif words or not re.match(r"\w+=", word):
                words.append(word)
    return [words for words in found if words]


def ids(words: list[str]) -> str:
    return " ".join(words)[:60]


def test_the_quickstart_is_two_commands() -> None:
    assert {"scripts/demo", "scripts/test"} <= {words[0] for words in commands()}


@pytest.mark.parametrize("words", [w for w in commands() if "scripts/" in " ".join(w[:2])], ids=ids)
def test_a_script_in_the_readme_exists(words: list[str]) -> None:
    script = next(word for word in words if "scripts/" in word)
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("words", [w for w in commands() if w[0].endswith("headwater")], ids=ids)
def test_a_command_in_the_readme_exists(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    general = help_of([], monkeypatch, capsys)
    words = words[1:]
    while words and words[0].startswith("--") and words[0] != "--help":  # `headwater --store URL topic list`
        assert words[0].split("=")[0] in general
        words = words[1 if "=" in words[0] else 2 :]
    plain = next((at for at, word in enumerate(words) if word.startswith(("-", "<", ">"))), len(words))
    text = help_of(words[:plain], monkeypatch, capsys)
    options = [word.split("=")[0] for word in words if re.match(r"--\w", word)]
    assert [] == [option for option in options if option not in text and option not in general]


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.count("\n"))
def test_a_program_in_the_readme_runs(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout


def help_of(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``headwater WORDS --help`` prints. A word that is no command fails."""
    from headwater.cli.main import main

    monkeypatch.setattr(sys, "argv", ["headwater", *words, "--help"])
    try:
        status = main()
    except SystemExit as exit_:
        status = exit_.code
    printed = capsys.readouterr()
    assert status in (None, 0), printed.err
    return printed.out
