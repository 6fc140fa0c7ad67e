"""What an agent says to the agents of other hosts. It believes nothing that it can check itself."""

from __future__ import annotations

from dataclasses import replace

from ..directory import DirectoryError
from ..keys import KEY_FIRST, KEY_LAST, Exhausted, Pair, Path
from ..model import ConnectionId, Flow, Protocol, SegmentEnd, show_address
from ..offers import VERSION, Accept, Ask, Offer, Reason, Refuse, Release, Released, Reply, Request
from ..packets import ECHO_PORT
from ..policy import judge
from ..switch import DropReason, SwitchError
from .connecting import plausible
from .connections import Connection, Link
from .joining import Call, Denied, Joiner, ingress_key
from .local import Local, Refused
from .underlay import NoRoute


class Answerer:
    """Answers offers, questions and releases for one host."""

    def __init__(self, local: Local, joiner: Joiner) -> None:
        """Start with nothing to answer."""
        self._local = local
        self._joiner = joiner
        self._joining: set[ConnectionId] = set()

    async def answer(self, sender: str, request: Request) -> Reply:
        """What we say to the agent of the host `sender`, which the transport has authenticated."""
        local = self._local
        if request.version != VERSION:
            return self._refuse(Reason.VERSION, f"host {local.host.name} speaks version {VERSION} of the offers")
        if not local.ready:
            return self._refuse(Reason.BUSY, f"host {local.host.name} does not have its switch at the moment")
        try:
            match request:
                case Offer():
                    return await self._answer_offer(sender, request)
                case Ask():
                    return self._answer_ask(sender, request)
                case Release():
                    return await self._answer_release(sender, request)
        except Denied as refusal:
            reason = Reason.DENIED if refusal.reason is DropReason.DENIED else Reason.EXHAUSTED
            return self._refuse(reason, str(refusal))
        except Exhausted as error:
            return self._refuse(Reason.EXHAUSTED, str(error))
        except NoRoute as error:
            return self._refuse(Reason.UNREACHABLE, str(error))
        except (Refused, SwitchError, DirectoryError) as error:
            return self._refuse(Reason.BUSY, f"host {local.host.name}: {error}")

    def _refuse(self, reason: Reason, text: str) -> Refuse:
        self._local.events[f"offers refused {reason}"] += 1
        return Refuse(reason, text)

    async def _answer_offer(self, sender: str, offer: Offer) -> Reply:
        local = self._local
        held = local.connections.get(offer.connection)
        if offer.connection in self._joining:
            return self._refuse(Reason.BUSY, "an offer for this connection is being answered")
        of_sender = held is not None and held.link is not None and held.link.peer == sender
        if held is not None and of_sender and offer.stamp < held.stamp:
            return self._refuse(Reason.STALE, f"a later offer has the stamp {held.stamp}")
        crosses = held is None and offer.peer_port is None and offer.connection in self._joiner.waiting
        if crosses and local.host.name < sender:
            return self._refuse(Reason.CROSSED, f"the offer of {local.host.name} goes first")
        self._joining.add(offer.connection)
        try:
            return await self._join(sender, offer, held)
        finally:
            self._joining.discard(offer.connection)

    async def _join(self, sender: str, offer: Offer, held: Connection | None) -> Reply:
        local = self._local
        host = await local.directory.host(sender)
        if host is None or not plausible(offer.end, host):
            return self._refuse(Reason.FORGED, f"{show_address(offer.end.address)} is not an address of host {sender}")
        call = await self._check(sender, offer, held)
        if isinstance(call, Refuse):
            return call
        hop = await local.underlay.next_hop(offer.end.seen_address)
        held = local.connections.get(offer.connection)  # it may have come about meanwhile
        if held is not None and held.link is not None and held.link.yours == offer.end:
            pair = held.link.pair
        else:
            pair = self._choose(Path(hop.source, offer.end.seen_address, call.flow.protocol), offer, call)
            if not (local.keys.take(pair) if offer.peer_port is None else local.keys.resume(pair)):
                return self._refuse(Reason.TAKEN, f"the keys {pair.local} and {pair.peer} are not free together")
        mine = SegmentEnd(local.host.name, local.host.site, hop.source, hop.source, pair.local)
        connection = await self._joiner.join_across(call, Link(sender, mine, offer.end, pair), hop)
        connection.stamp = offer.stamp
        local.events["offers accepted"] += 1
        return Accept(mine, call.initiator, call.first_ttl)

    async def _check(self, sender: str, offer: Offer, held: Connection | None) -> Call | Refuse:
        """Judge an offer by what we know ourselves: our endpoint, the directory, the policy, our memory."""
        local = self._local
        identity = offer.connection
        tenant = await local.directory.tenant(identity.tenant)
        near_end, far_end = identity.low, identity.high
        if (identity.tenant, near_end.address) not in local.by_address:
            near_end, far_end = far_end, near_end
        near = local.by_address.get((identity.tenant, near_end.address))
        if tenant is None or near is None or offer.initiator not in (near_end, far_end):
            return self._refuse(Reason.UNKNOWN, f"host {local.host.name} has no end of this connection")
        far = await local.directory.endpoint(identity.tenant, far_end.address)
        if far is None or far.host != sender:
            return self._refuse(Reason.FORGED, f"host {sender} has no endpoint {show_address(far_end.address)}")
        if not local.is_here(near):
            return self._refuse(Reason.UNKNOWN, f"endpoint {near.endpoint.name} has just gone")
        flow = identity.flow_from(near_end)
        call = Call(identity, tenant, near, far, flow, offer.initiator, offer.first_ttl, offer.resumes)
        if held is not None:
            call = replace(call, initiator=held.initiator, first_ttl=held.first_ttl)
        opener, opened = (near.endpoint, far) if call.opened_here else (far, near.endpoint)
        verdict = judge(tenant, opener, opened, flow.protocol, identity.other(call.initiator).port)
        if not verdict.allowed:
            return self._refuse(Reason.DENIED, verdict.rule)
        if held is None:
            if call.resumes and flow.protocol != Protocol.TCP and offer.peer_port is None:
                return self._refuse(Reason.DENIED, "an answer to nothing that is remembered")
            self._joiner.check_room(near.endpoint)
        return call

    def _choose(self, path: Path, offer: Offer, call: Call) -> Pair:
        """The keys of the segment that a peer offers. Raises Exhausted, or Denied if what it offers is no key."""
        theirs = offer.end.port
        if path.protocol == Protocol.ICMP:
            # Both directions of an echo carry the one identifier, which is the initiator's key.
            ours_given, theirs_right = (None, theirs == ECHO_PORT) if call.opened_here else (ECHO_PORT, _is_key(theirs))
        else:
            ours_given, theirs_right = None, _is_key(theirs)
        ours_given = ours_given or offer.peer_port
        if not theirs_right or (ours_given is not None and not _is_key(ours_given) and ours_given != ECHO_PORT):
            raise Denied(DropReason.DENIED, f"{theirs} is not a key")
        return Pair(path, self._local.keys.pick(path, theirs) if ours_given is None else ours_given, theirs)

    def _answer_ask(self, sender: str, ask: Ask) -> Reply:
        local = self._local
        flow = Flow(ask.mine.address, ask.yours.address, ask.protocol, ask.mine.port, ask.yours.port)
        held = local.connections.at(ingress_key(flow))
        if held is None or held.link is None or held.link.peer != sender:
            return self._refuse(Reason.UNKNOWN, "no such segment")
        mine, theirs = held.link.mine, held.link.yours.port
        return Offer(VERSION, local.stamp(), held.id, held.initiator, held.first_ttl, mine, theirs, resumes=True)

    async def _answer_release(self, sender: str, release: Release) -> Reply:
        host = await self._local.directory.host(sender)
        if host is None or not plausible(release.mine, host):
            return self._refuse(Reason.FORGED, f"the segment released is not one of host {sender}")
        path = Path(release.yours.address, release.mine.address, release.connection.protocol)
        await self._joiner.released(sender, release.connection, Pair(path, release.yours.port, release.mine.port))
        return Released()


def _is_key(port: int) -> bool:
    return KEY_FIRST <= port <= KEY_LAST
