"""A DNS server with data of our own, over UDP and TCP, that answers as a recursive resolver does.

    with DnsServer() as dns:
        dns.add("mta-sts.example.com", "A", "127.0.0.1")
        dns.add_txt("_mta-sts.example.com", b"v=STSv1; id=1;")
        dns.set_behaviour("_mta-sts.example.net", Behaviour(rcode="SERVFAIL"))
        …                                       # ask dns.address, dns.port
        assert dns.queries == [Query("_mta-sts.example.com", "TXT", "udp")]

Answers hold the whole chain of CNAME and DNAME, wildcards are expanded, names without the type asked for (empty
non-terminals too) are told apart from names that do not exist, negative answers carry a SOA, and an answer that does
not fit a datagram is truncated. Signatures (RRSIG) in the data go with the records they cover, asked for or not.
"""

import abc
import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.DNAME
import dns.rdtypes.ANY.TXT
import dns.rrset

Transport = Literal["udp", "tcp"]


class Query(NamedTuple):
    """A question as received: the name in its case, without the final dot."""

    name: str
    rdtype: str
    transport: Transport


@dataclass(frozen=True)
class Behaviour:
    """How a name answers: with this rcode (and extended DNS error), to queries with EDNS with that one, not at all,
    `delay` seconds later, after `release`, with nothing but the TC bit over UDP, or with these bytes.

    `raw` makes what is sent of a query: datagrams, or pieces of a TCP stream with their lengths. Between two of them
    `interval` seconds pass. Datagrams come from the address and port `source` if there is one; `closes` ends the TCP
    connection after them."""

    rcode: str | None = None
    ede: int | None = None
    without_edns: str | None = None
    silent: bool = False
    delay: float = 0.0
    release: concurrent.futures.Future[None] | None = None
    truncate: bool = False
    garbage: bytes | None = None
    raw: Callable[[bytes, Transport], Sequence[bytes]] | None = None
    interval: float = 0.0
    source: tuple[str, int] | None = None
    closes: bool = False


GOOD = Behaviour()
_CHAIN_LIMIT = 16
_WHOLE: dict[str, Any] = {"max_size": 65535, "want_shuffle": False}  # Records in the order in which they were added.


class LoopServer(abc.ABC):
    """A server that runs from `__enter__` to `__exit__` in an event loop and thread of its own.

    An error in what it runs is a defect of the test world: `__exit__` raises it.
    """

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    @abc.abstractmethod
    async def _listen(self) -> Sequence[asyncio.BaseTransport | asyncio.Server]:
        """Start to listen, set `port`; what to close at the end."""

    def _spawn(self, work: Coroutine[None, None, None], connection: asyncio.StreamWriter | None = None) -> None:
        """Run until done or the server stops, also if it stops at once; then the connection is closed."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if connection:
            task.add_done_callback(lambda _: connection.transport.abort())

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._loop.create_future()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._errors.append(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        try:
            listeners = await self._listen()
        except OSError as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        await self._stopped.wait()
        for listener in listeners:
            listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class DnsServer(LoopServer):
    """Serves from `__enter__` to `__exit__`; the methods may be called from any thread.

    `queries` is what was asked, and `payloads` the UDP payload size that each query offers; 0 is one without EDNS.
    `negative_ttl` is the TTL of the SOA beside negative answers where the data has none;
    None leaves the SOA out. Answers made of names below the zones in `authenticated` carry the AD bit where the query
    asks for it.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(address, port)
        self.queries: list[Query] = []
        self.payloads: list[int] = []
        self.negative_ttl: int | None = 60
        self.authenticated: set[str] = set()
        self._lock = threading.Lock()
        self._data: dict[dns.name.Name, list[dns.rrset.RRset]] = {}
        self._behaviours: dict[tuple[dns.name.Name, str | None], Behaviour] = {}

    def add(self, owner: str, rdtype: str, *rdatas: str, ttl: int = 300) -> None:
        """Add records in presentation format to those that `owner` has."""
        for rdata in rdatas:
            self._add(owner, dns.rdata.from_text("IN", rdtype, rdata), ttl)

    def add_text(self, text: str, origin: str) -> None:
        """Add records, each in a line of its own as `owner type data`, with names that may be relative to `origin`."""
        base = dns.name.from_text(origin)
        for line in text.splitlines():
            owner, rdtype, rdata = line.split(maxsplit=2)
            name = dns.name.from_text(owner, base)
            self._add(name.to_text(), dns.rdata.from_text("IN", rdtype, rdata, base, relativize=False), 300)

    def add_txt(self, owner: str, *strings: bytes, ttl: int = 300) -> None:
        """Add one TXT record made of these strings."""
        self._add(owner, dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings), ttl)

    def add_octets(self, owner: str, rdtype: str, octets: bytes, ttl: int = 300) -> None:
        """Add a record of any form, also a wrong one."""
        self._add(owner, dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), octets), ttl)

    def remove(self, owner: str, rdtype: str | None = None) -> None:
        """Remove the records of `owner`, or those of one type."""
        name = dns.name.from_text(owner)
        with self._lock:
            rest = [r for r in self._data.pop(name, []) if rdtype and r.rdtype != dns.rdatatype.from_text(rdtype)]
            if rest:
                self._data[name] = rest

    def below(self, zone: str) -> list[dns.rrset.RRset]:
        """The records of a name and of all names below it."""
        top = dns.name.from_text(zone)
        with self._lock:
            found = [rrset for name, rrsets in self._data.items() if name.is_subdomain(top) for rrset in rrsets]
            return [dns.rrset.from_rdata_list(rrset.name, rrset.ttl, list(rrset)) for rrset in found]

    def set_behaviour(self, owner: str, behaviour: Behaviour, rdtype: str | None = None) -> None:
        """Let `owner` behave so, for all types or one; "." stands for all names."""
        with self._lock:
            self._behaviours[dns.name.from_text(owner), rdtype] = behaviour

    # Data

    def _add(self, owner: str, rdata: dns.rdata.Rdata, ttl: int) -> None:
        name = dns.name.from_text(owner)
        with self._lock:
            rrsets = self._data.setdefault(name, [])
            for rrset in rrsets:
                if (rrset.rdtype, rrset.covers) == (rdata.rdtype, rdata.covers()):
                    rrset.add(rdata, ttl)
                    return
            rrsets.append(dns.rrset.from_rdata(name, ttl, rdata))

    def _find(self, name: dns.name.Name) -> list[dns.rrset.RRset] | None:
        """What `name` has, by itself or by a wildcard; None if it does not exist."""
        if name in self._data:
            return self._data[name]
        if name == dns.name.root or self._exists(name):
            return []
        encloser = name.parent()
        while not self._exists(encloser) and encloser != dns.name.root:
            encloser = encloser.parent()
        wild = self._data.get(dns.name.Name((b"*", *encloser.labels)))
        if wild is None:
            return None
        return [dns.rrset.from_rdata_list(name, rrset.ttl, list(rrset)) for rrset in wild]

    def _exists(self, name: dns.name.Name) -> bool:
        return any(owner.is_subdomain(name) for owner in self._data)

    # Answers

    def answer(self, query: dns.message.Message) -> tuple[dns.message.Message, Behaviour]:
        """The full answer, and how the name at the end of the chain behaves. A subclass may have data of its own."""
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        names = [question.name]
        with self._lock:
            for _ in range(_CHAIN_LIMIT):
                behaviour = self._behaviour(names[-1], dns.rdatatype.to_text(question.rdtype))
                if behaviour.without_edns is not None and query.edns >= 0:
                    response.set_rcode(dns.rcode.from_text(behaviour.without_edns))
                    response.use_edns(False)
                    return response, behaviour
                if behaviour.rcode is not None:
                    response.set_rcode(dns.rcode.from_text(behaviour.rcode))
                    if behaviour.ede is not None and query.edns >= 0:
                        error = dns.edns.EDEOption(dns.edns.EDECode(behaviour.ede))
                        response.use_edns(payload=1232, options=[error])
                    return response, behaviour
                target = self._follow(response, names[-1], question.rdtype)
                if target is None:
                    if (query.ednsflags & dns.flags.DO or query.flags & dns.flags.AD) and all(
                        any(name.is_subdomain(dns.name.from_text(zone)) for zone in self.authenticated)
                        for name in names
                    ):
                        response.flags |= dns.flags.AD
                    return response, behaviour
                names.append(target)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response, GOOD

    def _behaviour(self, name: dns.name.Name, rdtype: str) -> Behaviour:
        for key in ((name, rdtype), (name, None), (dns.name.root, rdtype), (dns.name.root, None)):
            if key in self._behaviours:
                return self._behaviours[key]
        return GOOD

    def _follow(
        self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.name.Name | None:
        """Put what `name` has into the response; the next name if it is an alias."""
        rrsets = self._find(name)
        if rrsets is None:
            rrsets = self._renamed(response, name)
        found = [rrset for rrset in rrsets if rdtype in {rrset.rdtype, rrset.covers}]
        alias = [rrset for rrset in rrsets if rrset.rdtype == dns.rdatatype.CNAME]
        response.answer.extend(found or alias)
        if found:
            return None
        for rrset in alias:
            for rdata in rrset:
                assert isinstance(rdata, dns.rdtypes.ANY.CNAME.CNAME)
                target: dns.name.Name = rdata.target
                return target
        self._deny(response, name)
        return None

    def _renamed(self, response: dns.message.Message, name: dns.name.Name) -> list[dns.rrset.RRset]:
        """The CNAME that a DNAME above the missing `name` makes (RFC 6672); without one, the name is denied."""
        ancestor = name
        while ancestor != dns.name.root:
            ancestor = ancestor.parent()
            for rrset in self._data.get(ancestor, []):
                for rdata in rrset:
                    if isinstance(rdata, dns.rdtypes.ANY.DNAME.DNAME):
                        response.answer.append(rrset)
                        target = name.relativize(ancestor).derelativize(rdata.target)
                        return [dns.rrset.from_text(name, rrset.ttl, "IN", "CNAME", target.to_text())]
        response.set_rcode(dns.rcode.NXDOMAIN)
        return []

    def _deny(self, response: dns.message.Message, name: dns.name.Name) -> None:
        ancestor = name
        while ancestor != dns.name.root:
            response.authority.extend(r for r in self._data.get(ancestor, []) if r.rdtype == dns.rdatatype.SOA)
            if response.authority:
                return
            ancestor = ancestor.parent()
        if self.negative_ttl is not None:
            zone = dns.name.Name(name.labels[-3:])
            soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {self.negative_ttl}"
            response.authority.append(dns.rrset.from_text(zone, self.negative_ttl, "IN", "SOA", soa))

    # Transport

    async def _listen(self) -> Sequence[asyncio.BaseTransport | asyncio.Server]:
        udp, tcp = bind(self.address, self.port)
        self.port = udp.getsockname()[1]
        transport, _ = await self._loop.create_datagram_endpoint(lambda: _Udp(self._udp), sock=udp)
        return transport, await asyncio.start_server(lambda r, w: self._spawn(self._tcp(r, w), w), sock=tcp)

    def _udp(self, wire: bytes, peer: tuple[Any, ...], transport: asyncio.DatagramTransport) -> None:
        async def reply() -> None:
            answers, behaviour = await self._reply(wire, "udp")
            with contextlib.ExitStack() as stack:
                send: Callable[[bytes, tuple[Any, ...]], object] = transport.sendto
                if behaviour.source:
                    other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    other.bind(behaviour.source)
                    send = other.sendto
                for answer in answers:
                    send(answer, peer)
                    if behaviour.interval:
                        await self._sleep(behaviour.interval)

        self._spawn(reply())

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            behaviour = GOOD
            while not behaviour.closes:
                length = int.from_bytes(await reader.readexactly(2), "big")
                answers, behaviour = await self._reply(await reader.readexactly(length), "tcp")
                for answer in answers:
                    writer.write(answer)
                    await writer.drain()
                    if behaviour.interval:
                        await self._sleep(behaviour.interval)

    async def _reply(self, wire: bytes, transport: Transport) -> tuple[Sequence[bytes], Behaviour]:
        """What answers a query, when it is time; nothing for silence. And how the name behaves."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return (), GOOD
        name = question.name.to_text(omit_final_dot=True)
        self.queries.append(Query(name, dns.rdatatype.to_text(question.rdtype), transport))
        self.payloads.append(query.payload)
        response, behaviour = self.answer(query)
        if behaviour.delay:
            await self._sleep(behaviour.delay)
        if behaviour.release:
            await asyncio.wait([asyncio.wrap_future(behaviour.release)])
        if behaviour.raw:
            return behaviour.raw(wire, transport), behaviour
        if behaviour.silent:
            return (), behaviour
        answer = response.to_wire(**_WHOLE)
        if behaviour.garbage is not None:
            answer = behaviour.garbage
        elif transport == "udp" and (behaviour.truncate or len(answer) > max(512, query.payload)):
            response = dns.message.make_response(query, recursion_available=True)
            response.flags |= dns.flags.TC
            answer = response.to_wire()
        return ([answer] if transport == "udp" else [framed(answer)]), behaviour


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, tuple[Any, ...], asyncio.DatagramTransport], None]) -> None:
        self._received = received

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # As documented.
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._received(data, addr, self._transport)


def framed(message: bytes) -> bytes:
    """A message with its length, as it goes over TCP (RFC 1035, 4.2.2)."""
    return len(message).to_bytes(2, "big") + message


def bind(address: str, port: int = 0) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port; with port 0 the kernel's choice for one may be taken for the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for attempt in range(10):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((address, port))
            tcp.bind((address, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == 9:
                raise
        else:
            return udp, tcp
    raise AssertionError
