"""Where underlay packets go: the next hop towards another host's underlay address.

The data plane writes both MACs into a packet itself, so the agent has to know them as the host's kernel would. A
next hop is not for ever: routers are replaced, routes change. Whoever asked for one is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Protocol

from msgspec import Struct
from pyroute2.netlink import NLM_F_CREATE, NLM_F_DUMP, rtnl
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import ndmsg as nd
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ..model import Address, Mac, read_address, read_mac, show_address
from .netlink import Message, RouteSocket

RESOLVE_TIMEOUT = 1.3
"""Seconds within which a neighbour must answer. The kernel asks it at 0 and, should that be lost, at 1 s."""

CONFIRM_INTERVAL = 10.0
"""Seconds after which the kernel is made to ask each neighbour in use whether it is still there. The kernel would
not do that by itself: it does not see the packets that go there. Also how often lost next hops are looked for."""

SETTLE_TIME = 0.02
"""Seconds for which further changes are awaited before what they concern is looked up again: routes come in bursts."""

_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_NEIGH
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV4_RULE
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV6_ROUTE
    | rtnl.RTMGRP_IPV6_RULE
)

_MAC_IS_VALID = nd.NUD_REACHABLE | nd.NUD_STALE | nd.NUD_DELAY | nd.NUD_PROBE | nd.NUD_PERMANENT | nd.NUD_NOARP
_ROUTE_UNICAST = rtnl.rt_type["unicast"]
_WHY_NOT = {
    rtnl.rt_type["local"]: "it is an address of this host itself; correct what the directory says of the peer",
    rtnl.rt_type["broadcast"]: "it is a broadcast address; correct what the directory says of the peer",
    rtnl.rt_type["multicast"]: "it is a multicast address; correct what the directory says of the peer",
}


class NextHop(Struct, frozen=True, gc=False):
    """How packets to an underlay address leave this host."""

    source: Address
    """The host's own underlay address to use."""
    source_mac: Mac
    """Of the host's underlay interface."""
    destination_mac: Mac
    """Of the router or neighbour that comes next."""
    mtu: int = 1500
    """Of the interface, or of the route if it has a smaller one: bytes of an IP packet."""


class NoRoute(Exception):
    """Packets to an underlay address cannot leave this host. The text names the address, the cause and the remedy."""


class Underlay(Protocol):
    """What an agent asks of the underlay."""

    on_change: Callable[[Address], None]
    """Called from the event loop with each address whose next hop has become another one, or none (then `next_hop`
    raises NoRoute), or has come back. It must not block."""

    async def next_hop(self, destination: Address) -> NextHop:
        """The next hop towards an underlay address, which is watched from now on. Raises NoRoute, within 1.3 s."""

    def forget(self, destination: Address) -> None:
        """Watch this address no more: nothing in use goes there."""


class _Neighbour(Struct, frozen=True):
    """A neighbour as the kernel knows it."""

    mac: Mac
    learnt: bool
    """By ARP or neighbour discovery, so it can be asked again; otherwise somebody has set it."""


class _Watched(Struct):
    """An address that somebody uses."""

    via: Address | None
    """The router, or the address itself; None without a route."""
    told: NextHop | None
    """What its users know. None: that there is none."""


class KernelUnderlay:
    """An Underlay that follows the routes and neighbours of a host's kernel.

    The kernel's neighbours are mirrored, and kept honest while in use. Routes are asked for, and asked for again
    after each change of any: which addresses a change concerns, only the kernel's own look-up can tell.
    """

    def __init__(self, netns: str | None, interface: str) -> None:
        """`netns`: path of the host's network namespace (None: the process's own); `interface`: has its addresses."""
        self.on_change = lambda _: None
        self._netns = netns
        self._interface = interface
        self._index = 0
        self._mac: Mac | None = None
        self._mtu = 1500
        self._neighbours: dict[Address, _Neighbour] = {}
        self._asked: dict[Address, asyncio.Future[None]] = {}
        self._watched: dict[Address, _Watched] = {}
        self._valid: dict[Address, NextHop] = {}
        self._suspects: set[Address] = set()
        self._suspicion = asyncio.Event()
        self._route_changes = 0
        self._lookups: dict[Address, asyncio.Task[NextHop]] = {}
        self._events_lost = False
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: RouteSocket | None = None

    on_change: Callable[[Address], None]
    """See Underlay."""

    async def start(self) -> None:
        """Begin to follow the kernel. Raises OSError with a sentence if that cannot be; it may be tried again.

        The interface need not be there yet.
        """
        self._socket = await RouteSocket.open(self._netns, _GROUPS, self._on_event, self._on_loss)
        try:
            await self._learn_everything()
        except (NetlinkError, OSError) as error:
            self._socket.close()
            where = self._netns or "of this process"
            raise OSError(f"the network namespace {where} does not tell its neighbours: {error.args[-1]}") from None
        self._tasks = [asyncio.create_task(self._verify()), asyncio.create_task(self._confirm())]

    async def close(self) -> None:
        """Follow the kernel no more."""
        tasks = [*self._tasks, *self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def next_hop(self, destination: Address) -> NextHop:
        """See Underlay."""
        hop = self._valid.get(destination)
        if hop is not None:
            return hop
        # One look-up for all who ask; it goes on when one of them is cancelled.
        return await asyncio.shield(self._look_up(destination))

    def forget(self, destination: Address) -> None:
        """See Underlay."""
        self._watched.pop(destination, None)
        self._valid.pop(destination, None)

    # Looking up

    def _look_up(self, destination: Address) -> asyncio.Task[NextHop]:
        """The look-up of a destination that is under way, or a new one."""
        task = self._lookups.get(destination)
        if task is None:
            task = self._lookups[destination] = asyncio.create_task(self._update(destination))
            task.add_done_callback(lambda done: self._looked_up(destination, done))
        return task

    def _looked_up(self, destination: Address, task: asyncio.Task[NextHop]) -> None:
        del self._lookups[destination]
        if not task.cancelled():
            task.exception()  # retrieved, whether or not anybody still waits

    async def _update(self, destination: Address) -> NextHop:
        """Find the next hop, remember it, and tell those who know another one."""
        changes = self._route_changes
        via: Address | None = None
        try:
            source, via, mtu = await self._route(destination)
            mac = await self._neighbour_mac(via)
            # From here to the end nothing waits, so what was learnt last is what counts.
            hop = NextHop(source, self._own_mac(destination), mac, min(mtu, self._mtu))
        except NoRoute:
            watched = self._watched.get(destination)
            if watched is not None:
                watched.via = via
                self._tell(destination, watched, None)
            raise
        watched = self._watched.setdefault(destination, _Watched(via, hop))
        watched.via = via
        if changes == self._route_changes:
            self._valid[destination] = hop
        else:  # perhaps of an older routing table
            self._suspect([destination])
        self._tell(destination, watched, hop)
        return hop

    def _tell(self, destination: Address, watched: _Watched, hop: NextHop | None) -> None:
        if watched.told != hop:
            watched.told = hop
            self.on_change(destination)

    async def _route(self, destination: Address) -> tuple[Address, Address, int]:
        """(the host's address to use, address of the router or neighbour that comes next, MTU) of a destination."""
        show = show_address(destination)
        self._own_mac(destination)
        question = rtmsg()
        question["family"] = AF_INET if len(destination) == 4 else AF_INET6
        question["dst_len"] = 8 * len(destination)
        question["attrs"] = [("RTA_DST", show)]
        try:
            (route,) = await self._request(rtnl.RTM_GETROUTE, question)
        except (NetlinkError, OSError) as error:
            reason = error.args[-1]
            raise NoRoute(f"no route to {show}: {reason}; add one through {self._interface}") from None
        if route["type"] != _ROUTE_UNICAST:
            why = _WHY_NOT.get(route["type"], f"the kernel holds it for unreachable; add one through {self._interface}")
            raise NoRoute(f"no route to {show}: {why}")
        if route.get_attr("RTA_OIF") != self._index:
            raise NoRoute(
                f"no route to {show} through {self._interface}: the kernel's route leads through another interface "
                f"(index {route.get_attr('RTA_OIF')}); correct the route"
            )
        source = route.get_attr("RTA_PREFSRC")
        if source is None:
            raise NoRoute(f"no route to {show}: {self._interface} has no address of that family; add one")
        other_family = route.get_attr("RTA_VIA")  # a router with an IPv6 address for an IPv4 destination (RFC 5549)
        via = other_family["addr"] if other_family else route.get_attr("RTA_GATEWAY") or show
        metrics = route.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        return read_address(source), read_address(via), mtu or self._mtu

    async def _neighbour_mac(self, via: Address) -> Mac:
        """The MAC of a neighbour, which the kernel is made to ask for if it does not know it."""
        neighbour = self._neighbours.get(via)
        if neighbour is not None:
            return neighbour.mac
        reason: str | None = None
        if via in self._asked:
            await asyncio.shield(self._asked[via])
        else:
            reason = await self._ask(via)
        neighbour = self._neighbours.get(via)
        if neighbour is None:
            raise NoRoute(
                f"the underlay neighbour {show_address(via)} on {self._interface} "
                f"{reason or f'does not answer within {RESOLVE_TIMEOUT} s'}; check that it is up and on the same link"
            )
        return neighbour.mac

    async def _ask(self, via: Address) -> str | None:
        """Make the kernel ask a neighbour for its MAC; return once that is decided, with what went wrong, if known."""
        answer = self._asked[via] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                await self._request(rtnl.RTM_NEWNEIGH, self._about(via, flags=nd.NTF_USE), NLM_F_CREATE)
                await asyncio.shield(answer)
        except TimeoutError:
            return None
        except (NetlinkError, OSError) as error:
            return f"cannot be asked for its MAC: {error.args[-1]}"
        finally:
            if not answer.done():
                answer.set_result(None)
            del self._asked[via]
        return None

    def _own_mac(self, destination: Address) -> Mac:
        """The interface's MAC. Raises NoRoute."""
        if self._mac is None:
            raise NoRoute(
                f"no route to {show_address(destination)}: there is no interface {self._interface} "
                f"{f'in {self._netns}' if self._netns else 'on this host'}; check that the host's switch is up"
            )
        return self._mac

    def _about(self, via: Address, state: int = nd.NUD_NONE, flags: int = 0) -> Message:
        """A message about a neighbour on the underlay."""
        message = nd.ndmsg()
        message["family"] = AF_INET if len(via) == 4 else AF_INET6
        message["ifindex"] = self._index
        message["state"] = state
        message["flags"] = flags
        message["attrs"] = [("NDA_DST", show_address(via))]
        return message

    async def _request(self, kind: int, message: Message, flags: int = 0) -> list[Message]:
        if self._socket is None:
            raise OSError("the underlay is not followed yet; call start() first")
        return await self._socket.request(kind, message, flags)

    # What the kernel says

    async def _learn_everything(self) -> None:
        """Ask for the interface and all its neighbours."""
        question = ifinfmsg()
        question["attrs"] = [("IFLA_IFNAME", self._interface)]
        try:
            (link,) = await self._request(rtnl.RTM_GETLINK, question)
        except NetlinkError:  # not there (yet): its arrival is an event
            self._forget_interface()
            return
        self._on_link(link)
        for message in await self._request(rtnl.RTM_GETNEIGH, nd.ndmsg(), NLM_F_DUMP):
            self._on_neighbour(message)

    def _on_loss(self) -> None:
        """Events were lost: mistrust everything, and ask again."""
        self._events_lost = True
        self._routes_changed()

    def _on_event(self, message: Message) -> None:
        match message["header"]["type"]:
            case rtnl.RTM_NEWNEIGH | rtnl.RTM_DELNEIGH:
                self._on_neighbour(message)
            case rtnl.RTM_NEWLINK | rtnl.RTM_DELLINK:
                self._on_link(message)
            case _:  # routes, rules, addresses
                self._routes_changed()

    def _on_link(self, message: Message) -> None:
        if message["family"] != AF_UNSPEC:
            return  # bridges speak of their ports in the same words
        ours = message["index"] == self._index
        if message.get_attr("IFLA_IFNAME") == self._interface and message["header"]["type"] == rtnl.RTM_NEWLINK:
            if not ours:
                self._neighbours.clear()
            self._index = message["index"]
            mac = message.get_attr("IFLA_ADDRESS")
            self._mac = read_mac(mac) if mac else None
            self._mtu = message.get_attr("IFLA_MTU") or self._mtu
        elif ours:  # removed, or renamed
            self._forget_interface()
        # IPv4 routes go away with an interface that goes down, and the kernel does not say so (fib_sync_down_dev).
        self._routes_changed()

    def _forget_interface(self) -> None:
        self._index, self._mac = 0, None
        self._neighbours.clear()
        self._routes_changed()

    def _on_neighbour(self, message: Message) -> None:
        if message["ifindex"] != self._index or message["family"] not in (AF_INET, AF_INET6):
            return
        address, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
        if address is None:
            return
        via = read_address(address)
        known = self._neighbours.get(via)
        deleted = message["header"]["type"] == rtnl.RTM_DELNEIGH
        if mac and message["state"] & _MAC_IS_VALID and not deleted:
            learnt = not (message["state"] & (nd.NUD_PERMANENT | nd.NUD_NOARP) or message["flags"] & nd.NTF_EXT_LEARNED)
            neighbour = self._neighbours[via] = _Neighbour(read_mac(mac), learnt)
            changed = known is None or known.mac != neighbour.mac
            self._decide(via)
        else:
            changed = self._neighbours.pop(via, None) is not None
            if message["state"] & nd.NUD_FAILED and not deleted:
                self._decide(via)
        if changed:
            self._suspect([destination for destination, watched in self._watched.items() if watched.via == via])

    def _decide(self, via: Address) -> None:
        """Whether the neighbour answers is known now."""
        answer = self._asked.get(via)
        if answer is not None and not answer.done():
            answer.set_result(None)

    # Keeping what is in use true

    def _routes_changed(self) -> None:
        self._route_changes += 1
        self._suspect(self._watched)

    def _suspect(self, destinations: Iterable[Address]) -> None:
        """Look these up again, soon, or at once when somebody asks."""
        self._suspects.update(destinations)
        for destination in destinations:
            self._valid.pop(destination, None)
        self._suspicion.set()

    async def _verify(self) -> None:
        """Look up again what is suspect."""
        while True:
            await self._suspicion.wait()
            await asyncio.sleep(SETTLE_TIME)
            self._suspicion.clear()
            if self._events_lost:
                self._events_lost = False
                self._neighbours.clear()
                try:
                    await self._learn_everything()
                except (NetlinkError, OSError):  # the answer was lost as well
                    self._events_lost = True
                    self._suspicion.set()
                    continue
            suspects, self._suspects = self._suspects, set()
            for destination in suspects:
                if destination in self._watched:
                    self._look_up(destination)
                await asyncio.sleep(0)  # thousands must not hold up the loop

    async def _confirm(self) -> None:
        """Make the kernel ask the neighbours in use, one after the other, and look for the ones that are lost."""
        while True:
            self._suspect([destination for destination, watched in self._watched.items() if watched.told is None])
            vias = {watched.via for watched in self._watched.values() if watched.via is not None}
            for via in vias:
                await asyncio.sleep(CONFIRM_INTERVAL / len(vias))
                neighbour = self._neighbours.get(via)
                if neighbour is not None and neighbour.learnt:
                    with suppress(NetlinkError, OSError):  # gone meanwhile, which is an event
                        await self._request(rtnl.RTM_NEWNEIGH, self._about(via, state=nd.NUD_PROBE))
            if not vias:
                await asyncio.sleep(CONFIRM_INTERVAL)
