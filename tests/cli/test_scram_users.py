"""Users of SCRAM are kept in a file: their keys, not their passwords."""

from __future__ import annotations

import json
from pathlib import Path

from headwater.kafka.sasl import SCRAM, read_users, scram_entry
from tests.cli.conftest import Headwater


def test_a_user_is_in_the_file_by_its_keys_and_only_its_owner_reads_it(hw: Headwater, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    assert 0 == hw("auth", "scram-user", "ann", "--file", path, stdin=b"pencil\n").code
    assert 0 == hw("auth", "scram-user", "bob", "--file", path, "--iterations", "8192", stdin=b"crayon").code
    users = read_users(str(path))
    assert {"ann": {*SCRAM}, "bob": {*SCRAM}} == {user: set(known) for user, known in users.items()}
    assert 8192 == users["bob"]["SCRAM-SHA-256"].iterations
    entry = scram_entry("SCRAM-SHA-512", "pencil", salt=users["ann"]["SCRAM-SHA-512"].salt)
    assert entry == json.loads(path.read_text())["ann"]["SCRAM-SHA-512"]
    assert "pencil" not in path.read_text()
    assert 0o600 == path.stat().st_mode & 0o777
    assert [path] == list(tmp_path.glob("*.json*"))


def test_a_user_is_taken_out_again(hw: Headwater, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    hw("auth", "scram-user", "ann", "--file", path, stdin=b"pencil\n")
    assert 0 == hw("auth", "scram-user", "ann", "--file", path, "--remove").code
    assert {} == read_users(str(path))
    assert 1 == hw("auth", "scram-user", "ann", "--file", path, "--remove").code


def test_what_makes_no_sense_leaves_the_file_alone(hw: Headwater, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    for words, password in ((("ann",), b"\n"), (("ann", "--iterations", "1"), b"p\n"), (("*",), b"p\n")):
        assert 0 != hw("auth", "scram-user", *words, "--file", path, stdin=password).code
    assert not path.exists()
    path.write_text("no json")
    assert 0 != hw("auth", "scram-user", "ann", "--file", path, stdin=b"p\n").code
    assert "no json" == path.read_text()
