"""Keeps the house tidy: what no linter sees, and what would otherwise be found missing only in a wheel."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "lib"
FOLDERS = [".ci", "functions", "infra", "lib", "scripts", "tests"]
LINES_MAX = 600  # lines of one file in lib/: what a reader holds in mind


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def module_of(path: Path) -> str:
    """``lib/log/keys.py`` -> ``headwater.log.keys``; a package's ``__init__.py`` -> the package."""
    parts = path.relative_to(LIB).with_suffix("").parts
    return ".".join(["headwater", *(part for part in parts if part != "__init__")])


def lib_files() -> list[Path]:
    return sorted(LIB.rglob("*.py"))


def text_files() -> Iterator[tuple[str, str]]:
    """Path and text of every file that people wrote."""
    candidates = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    candidates += [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".lock", ".yaml"}]
    for path in sorted(candidates):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text()
        except UnicodeDecodeError:
            continue  # corpora and other bytes


def lines_with(pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if found.search(line)
    ]


# -- the package --------------------------------------------------------------------------------------


def test_pyproject_lists_every_package() -> None:
    folders = sorted(module_of(path) for path in LIB.rglob("__init__.py"))
    assert folders == pyproject()["tool"]["setuptools"]["packages"]


def test_every_folder_with_modules_is_a_package() -> None:
    assert [] == sorted({str(path.parent) for path in lib_files() if not (path.parent / "__init__.py").exists()})


def test_types_travel_with_the_package() -> None:
    assert ["py.typed"] == pyproject()["tool"]["setuptools"]["package-data"]["headwater"]
    assert (LIB / "py.typed").exists()


@pytest.mark.parametrize("module", [module_of(path) for path in lib_files() if path.stem != "__main__"])
def test_every_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)


def test_layers_name_every_module_of_the_top_level() -> None:
    (contract,) = [c for c in pyproject()["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    named = sorted(name for layer in contract["layers"] for name in re.split(r" *[|:] *", layer))
    modules = {path.stem for path in LIB.glob("*.py") if path.stem != "__init__"}
    packages = {path.parent.name for path in LIB.glob("*/__init__.py")}
    assert sorted(modules | packages) == named
    assert contract["exhaustive"]


def test_the_lock_holds_every_dependency_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = {normal(line.split("==")[0]) for line in lock.splitlines() if "==" in line}
    project = pyproject()["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {normal(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in wanted}
    assert set() == names - pins - {"headwater"}
    assert [] == re.findall(r"^-.*|.* @ .*|.*://.*|.*file:.*", lock, re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# -- the text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", lib_files(), ids=module_of)
def test_a_file_stays_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_nothing_is_left_to_do() -> None:
    assert [] == lines_with(r"\b(FIX" r"ME|TO" r"DO|XX" r"X)\b")


def test_nothing_refers_to_a_place_outside_of_the_repository() -> None:
    assert [] == lines_with(r"shared/(DESIGN|STYLE|FACTS)" r"\.md|(?<![\w.])/(work|root|home)" r"/\w")


def test_no_test_waits_for_the_clock_on_the_wall() -> None:
    # Helpers that start a server have to wait for its port; they are named so.
    tests = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "server" not in path.stem]
    assert [] == [f"{path.relative_to(ROOT)}:{line}" for path in tests for line in sleeps(path)]


def sleeps(path: Path) -> list[int]:
    """Lines that call or import ``time.sleep``."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and any(n.name == "sleep" for n in node.names))
    ]


# -- the scripts --------------------------------------------------------------------------------------


def scripts() -> list[Path]:
    return [path for folder in (".ci", "scripts") for path in sorted((ROOT / folder).iterdir()) if path.is_file()]


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_a_script_can_be_run(path: Path) -> None:
    text = path.read_text()
    if text.startswith("#!"):
        assert os.access(path, os.X_OK), f"chmod +x {path.relative_to(ROOT)}"
    if path.suffix == ".sh" or "bash" in text.splitlines()[0]:
        subprocess.run(["bash", "-n", str(path)], check=True)
