"""What an agent remembers, also when it is killed at the worst moment or finds somebody else's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nvi.agent.state import StateError, StateFile
from nvi.model import Endpoint, read_address, read_mac

WEB1 = Endpoint("web1", "acme", "web", read_mac("02:00:00:00:00:01"), (read_address("10.0.0.1"),), "h1")
WEB2 = Endpoint("web2", "acme", "web", read_mac("02:00:00:00:00:02"), (read_address("fd00::2"),), "h1")


def opened(path: Path | None) -> StateFile:
    state = StateFile(path)
    state.open()
    return state


def test_endpoints_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "h1.json"
    state = opened(path)
    state.put(WEB1, 16)
    state.put(WEB2, 17)
    state.put(WEB2, 18)
    state.remove("web1")
    state.remove("never-known")
    assert opened(path).endpoints == {"web2": (WEB2, 18)}


def test_the_epoch_grows_at_each_start_and_when_the_file_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "h1.json"
    first = opened(path).epoch
    assert opened(path).epoch == first + 1
    assert json.loads(path.read_text())["epoch"] == first + 1
    path.unlink()
    assert opened(path).epoch >= first


def test_the_epoch_fits_the_high_half_of_an_election_id(tmp_path: Path) -> None:
    assert 0 < opened(tmp_path / "h1.json").epoch < 1 << 63


def test_people_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "h1.json"
    opened(path).put(WEB1, 16)
    (endpoint,) = json.loads(path.read_text())["endpoints"]
    assert (endpoint["mac"], endpoint["address"]) == ("02:00:00:00:00:01", "10.0.0.1")


def test_an_endpoint_of_both_families_is_remembered_with_both_addresses(tmp_path: Path) -> None:
    path = tmp_path / "h1.json"
    both = Endpoint("web3", "acme", "web", WEB1.mac, (*WEB1.addresses, *WEB2.addresses), "h1")
    opened(path).put(both, 16)
    assert opened(path).endpoints == {"web3": (both, 16)}
    (endpoint,) = json.loads(path.read_text())["endpoints"]
    assert (endpoint["address"], endpoint["address6"]) == ("10.0.0.1", "fd00::2")


def test_nothing_is_kept_without_a_path() -> None:
    state = opened(None)
    state.put(WEB1, 16)
    assert state.endpoints == {"web1": (WEB1, 16)}
    assert state.epoch > 0


GOOD = '"schema": 1, "epoch": 3'


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ("", "not usable"),
        ("[]", "not usable"),
        ("\x00" * 40, "not usable"),
        ('{"schema": 1, "epoch":', "not usable"),
        ('{"name": "other"}', "schema is None"),
        ('{"schema": 2}', "schema is 2, and this agent knows only 1"),
        (f'{{{GOOD}, "endpoints": [], "more": 1}}', "unknown field `more`"),
        (f'{{{GOOD}, "endpoints": [{{"name": "web1"}}]}}', r"missing required field .* `\$\.endpoints\[0\]`"),
    ],
)
def test_a_file_that_is_not_ours_is_named_and_left_alone(tmp_path: Path, contents: str, reason: str) -> None:
    path = tmp_path / "h1.json"
    path.write_text(contents)
    with pytest.raises(StateError, match=reason) as caught:
        opened(path)
    assert str(path) in str(caught.value)
    assert "move it away" in str(caught.value)
    assert path.read_text() == contents


def test_a_bad_address_in_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h1.json"
    opened(path).put(WEB1, 16)
    path.write_text(path.read_text().replace("10.0.0.1", "10.0.0.256"))
    with pytest.raises(StateError, match=r"address: '10.0.0.256' is not an IP address"):
        opened(path)


def test_a_change_that_cannot_be_written_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "h1.json"
    state = opened(path)
    state.put(WEB1, 16)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=f"cannot write the state file {path}: No space left"):
        state.put(WEB2, 17)
    assert state.endpoints == {"web1": (WEB1, 16)}
    assert path.read_bytes() == before


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot write the state file .*: No such file or directory"):
        opened(tmp_path / "none" / "h1.json")
