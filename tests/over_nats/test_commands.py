"""`nvi nats config` and `nvi nats prepare`: from a topology to a server that its agents can use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nvi.agent.hostfile import read_host_file
from nvi.directory.nats import NatsDirectory
from nvi.model import Host
from nvi.nats.connection import Connection
from nvi.nats.layout import Layout

from .farm import Nats

TWO_HOSTS = Path(__file__).parents[2] / "topologies" / "two-hosts.yaml"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nvi.cli", "nats", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


async def test_what_is_written_and_prepared_is_what_agents_need(nats: Nats, tmp_path: Path) -> None:
    nats.kill()
    made = tmp_path / "made"
    listen = f"127.0.0.1:{nats.port}"
    done = run("config", str(TWO_HOSTS), str(made), "--server", nats.url, "--listen", listen)
    assert done.returncode == 0, done.stderr
    files = {path.name: path for path in made.iterdir()}
    assert set(files) == {"nats.conf", "_operator.nk", "h1.nk", "h2.nk", "h1.yaml", "h2.yaml"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in files.values())
    keys = {name: path.read_text() for name, path in files.items() if path.suffix == ".nk"}
    assert run("config", str(TWO_HOSTS), str(made), "--server", nats.url, "--listen", listen).returncode == 0
    assert {name: files[name].read_text() for name in keys} == keys, "keys that are there stay"

    prepare = ("prepare", str(TWO_HOSTS), "--server", nats.url, "--key", str(files["_operator.nk"]))
    absent = run(*prepare)
    assert absent.returncode == 1
    assert f"NATS at {nats.url}: nothing listens there; start that server" in absent.stderr
    (made / "here.conf").write_text(files["nats.conf"].read_text().replace("/var/lib/nats", str(tmp_path / "store")))
    nats.start(made / "here.conf")
    for _ in range(2):
        done = run(*prepare)
        assert done.returncode == 0, done.stderr

    file = read_host_file(files["h1.yaml"])
    assert file.nats.servers == (nats.url,)
    config = file.agent()
    assert config.host == Host("h1", "lab", (bytes([172, 16, 0, 1]),))
    layout = Layout("two-hosts")
    here = nats.config("h1")
    here = type(here)(here.servers, nkey=str(files["h1.nk"]))
    connection = Connection(here, "h1", layout.inbox("h1"))
    connection.start()
    directory = NatsDirectory(connection, layout)
    await directory.publish_host(config.host)
    tenant = await directory.tenant("red")
    assert tenant is not None and "net" in tenant.networks
    await directory.stop()
    await connection.stop()
