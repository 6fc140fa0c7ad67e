"""What the listing commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any


def as_json(view: dict[str, Any]) -> None:
    """Print a view as it is."""
    print(json.dumps(view, indent=2))


def hosts(view: dict[str, Any]) -> None:
    """`nvi hosts`."""
    rows = []
    for host in view["hosts"]:
        external = host["external"]
        outside = "-" if external is None else external["address"]
        if external is not None and external["public"] != external["address"].partition("/")[0]:
            outside += f" (outside: {external['public']})"
        underlay = ", ".join(host["underlay"])
        rows.append((host["name"], host["site"], underlay, outside, ", ".join(host["endpoints"]) or "-"))
    _table(("host", "site", "underlay", "external", "endpoints"), rows, "there are no hosts")


def endpoints(view: dict[str, Any]) -> None:
    """`nvi endpoints`."""
    columns = ("name", "tenant", "network", "addresses", "mac", "host", "port")
    rows = (
        [", ".join(each) if isinstance(each := endpoint[column], list) else str(each) for column in columns]
        for endpoint in view["endpoints"]
    )
    _table(("endpoint", *columns[1:]), rows, "there are no endpoints; 'nvi endpoint add' adds one")


def services(view: dict[str, Any]) -> None:
    """`nvi services`."""
    rows = (
        (
            f"{each['public']}:{each['external_port']}",
            each["protocol"],
            each["via"],
            f"{each['endpoint'] or '?'} ({each['address']}:{each['port']})",
            each["tenant"],
        )
        for each in view["services"]
    )
    _table(("published at", "protocol", "via", "served by", "tenant"), rows, "nothing is published")


def policies(view: dict[str, Any]) -> None:
    """`nvi policies`: in the order in which they decide."""
    rows = []
    for tenant, policy in view["tenants"].items():
        rows += [(tenant, pair["action"], " - ".join(pair["endpoints"]), "") for pair in policy["pairs"]]
        for rule in policy["rules"]:
            what = " ".join([rule["protocol"] or "any protocol", ",".join(map(str, rule["ports"]))]).strip()
            rows.append((tenant, f"rule {rule['number']}: {rule['action']}", f"{rule['from']} -> {rule['to']}", what))
        rows.append((tenant, "allow", "within a network", ""))
        rows += [(tenant, "allow", f"within group {name}", ", ".join(of)) for name, of in policy["groups"].items()]
        rows.append((tenant, "deny", "everything else", ""))
    _table(("tenant", "what", "whom", ""), rows, "there are no tenants")


def trace(view: dict[str, Any]) -> None:
    """`nvi trace`: hop by hop, then what comes of it."""
    for hop in view["hops"]:
        print(f"{hop['host']}: {hop['does']}")
    rule = f" ({view['rule']})" if view["rule"] else ""
    print(f"{view['verdict']}: {view['reason']}{rule}")


def check(view: dict[str, Any]) -> None:
    """`nvi check`: what is wrong, and a verdict in one sentence."""
    for each in view["problems"]:
        wanted = f"{each['expected']} should answer" if each["expected"] else "nobody should answer"
        got = f"{each['answered']} did" if each["answered"] else "nobody did"
        print(f"{each['source']} asked {each['address']} ({each['destination']}): {wanted}, {got}; {each['policy']}")
    some = "" if view["tried"] == view["possible"] else f" (of {view['possible']}, chosen by chance)"
    if view["problems"]:
        print(
            f"{len(view['problems'])} of {view['tried']} questions{some} went wrong: 'nvi status' shows what is amiss"
        )
    else:
        print(
            f"all is well: {view['tried']} questions{some}, of which {view['reached']} were answered by whom they "
            f"should, and {view['isolated']} by nobody, as the policy wants it"
        )


def connections(view: dict[str, Any]) -> None:
    """`nvi connections`: a few lines for each, which fit a terminal of 80 columns."""
    if not view["connections"]:
        print("there are no connections: no switch holds anything about another host")
    for each in view["connections"]:
        ends = " -> ".join(_overlay_end(each[end]) for end in ("initiator", "responder"))
        print(f"{each['tenant']} {each['protocol']}: {ends}")
        for segment in each["segments"]:
            outside = None in (segment["from"]["host"], segment["to"]["host"])
            print(f"    on the {'outside' if outside else 'underlay'}: {_segment(segment)}")
        if not each["segments"]:
            print("    within one host")
        for host, use in each["hosts"].items():
            print(f"    at {host}: {use['packets']} packets, {use['bytes']} bytes, idle {use['idle_seconds']:.1f} s")


def status(view: dict[str, Any]) -> None:
    """`nvi status`."""
    print(f"farm {view['farm']}, target {view['target']}")
    if nats := view.get("nats"):
        print("NATS servers: " + ", ".join(map(_state, nats)))
    _table(
        ("host", "switch", "agent", "entries", "dropped packets"),
        (
            (
                name,
                _state(host["switch"]),
                _state(host["agent"]),
                ", ".join(f"{table} {count}" for table, count in host["entries"].items()) or "-",
                "\n".join(
                    f"{where}: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items())
                    for where, reasons in host["drops"].items()
                    if reasons
                )
                or "-",
            )
            for name, host in view["hosts"].items()
        ),
        "there are no hosts",
    )


def _state(process: dict[str, Any]) -> str:
    text = str(process["state"]) + (f" (pid {process['pid']})" if process.get("pid") else "")
    if process["state"] in ("running", "primary") or not process.get("message"):
        return text
    return f"{text}\n{process['message']}"


def _overlay_end(end: dict[str, Any]) -> str:
    return f"{end['endpoint'] or 'outside'} {end['address']}:{end['port']}"


def _segment(segment: dict[str, Any]) -> str:
    ends = segment["from"], segment["to"]
    return " - ".join(f"{end['host'] or 'outside'} {end['address']}:{end['port']}" for end in ends)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == "port" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not table.row_count:
        print(nothing)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width to keep to
    console.print(table)
