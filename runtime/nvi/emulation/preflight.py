"""What a farm needs of the machine, checked before anything is started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from ..topology import Topology

# Program, the Debian package that has it.
_PROGRAMS = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "mnexec": "mininet",
    "setpriv": "util-linux",
    "bash": "bash",
    "ifconfig": "net-tools",  # Mininet insists on it
}

# Tried in a namespace that is gone afterwards: (shell command, what it shows, what to do).
_KERNEL = (
    ("ip link add name a type veth peer name b", "veth pairs", "load the kernel module veth: modprobe veth"),
    ("ip link add name c type bridge", "bridges", "load the kernel module bridge: modprobe bridge"),
    (
        "ip rule add pref 10 iif lo lookup main",
        "policy routing",
        "use a kernel with CONFIG_IP_MULTIPLE_TABLES, as Debian's is",
    ),
    (
        "echo 20000-20001 > /proc/sys/net/ipv4/ip_local_reserved_ports",
        "settings in /proc/sys/net",
        "in a container, run it with --privileged",
    ),
)


_IPV6 = Path("/proc/net/if_inet6")
_TRANSLATION = ("nft add table ip a", "nftables", "load the kernel module nf_tables: modprobe nf_tables")


def check(topology: Topology) -> list[str]:
    """What is missing for a farm, each with its remedy. Empty if it can run here."""
    if os.geteuid() != 0:
        return ["a farm needs root, for its network namespaces: run it with sudo"]
    missing = [
        f"the program {program!r} is missing: apt-get install {package}"
        for program, package in {**_PROGRAMS, **({"nft": "nftables"} if _translates(topology) else {})}.items()
        if shutil.which(program) is None
    ]
    if importlib.util.find_spec("mininet") is None:
        missing.append(
            "the Python module 'mininet' is missing: run 'make setup', or apt-get install mininet and make Debian's "
            "/usr/lib/python3/dist-packages/mininet importable here"
        )
    return missing or _check_kernel(topology)


def _translates(topology: Topology) -> bool:
    """Whether there is a 1:1 NAT."""
    return any(host.external is not None and host.external.translated for host in topology.hosts.values())


def _check_kernel(topology: Topology) -> list[str]:
    result = _in_namespace("true")
    if result.returncode:
        remedy = "in a container, run it with --privileged"
        if not _root_is_mounted(Path("/proc/self/mountinfo").read_text()):
            remedy = (
                "the root of this chroot is no mount point, so no mounts of ours stay private; outside of it, "
                "'mount --bind DIRECTORY DIRECTORY', then chroot into that"
            )
        return [f"no network namespace can be made ({_reason(result)}): {remedy}"]
    missing = []
    if topology.uses_ipv6 and not _IPV6.exists():
        missing.append("the kernel has no IPv6: boot it without ipv6.disable=1, or use a topology without IPv6")
    for command, feature, remedy in (*_KERNEL, *([_TRANSLATION] if _translates(topology) else [])):
        result = _in_namespace(command)
        if result.returncode:
            missing.append(f"the kernel does not let us use {feature} ({_reason(result)}): {remedy}")
    return missing


def _root_is_mounted(mounts: str) -> bool:
    """Whether `/` is a mount point, given proc(5)'s mountinfo. In a plain chroot it is not."""
    return any(line.split()[4] == "/" for line in mounts.splitlines())


def _in_namespace(command: str) -> subprocess.CompletedProcess[str]:
    # As Mininet does it, which mounts a /sys of its own: where that fails, Mininet itself would wait for ever.
    return subprocess.run(["mnexec", "-n", "sh", "-c", command], capture_output=True, text=True, check=False)


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    lines = (result.stderr or result.stdout).strip().splitlines()
    return lines[-1] if lines else f"status {result.returncode}"
