"""Ask for d0.test to d9.test without a pause, over a new connection each time and over ones that are kept, as smtp(8)
keeps them. After SIGTERM, prints how many were answered, what failed, and the longest wait.

A kept connection that ends before anything of an answer has come is opened anew and asked once more, as Postfix does.
"""

import collections
import itertools
import signal
import socket
import threading
import time

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
counts: collections.Counter[str] = collections.Counter()
longest: dict[str, float] = collections.defaultdict(float)


def connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", 8461), timeout=60)


def ask(client: socket.socket, domain: str) -> bytes:
    text = f"postfix {domain}".encode()
    client.sendall(b"%d:%s," % (len(text), text))
    reply = b""
    while not reply.endswith(b","):
        data = client.recv(4096)
        if not data:
            raise ConnectionError("partial reply" if reply else "closed")
        reply += data
    return reply


def work(kind: str) -> None:
    client = None
    for number in itertools.cycle(range(10)):
        if stop.is_set():
            return
        begin = time.monotonic()
        try:
            for attempt in (1, 2):
                try:
                    if client is None or kind == "new":
                        client = connect()
                    reply = ask(client, f"d{number}.test")
                    break
                except ConnectionError:
                    client = None
                    if kind == "new" or attempt == 2:
                        raise
                    counts[f"{kind}: reconnected"] += 1
            ok = reply.split(b":", 1)[1].startswith(b"OK secure match=mx.good.test")
            counts[f"{kind}: answered" if ok else f"{kind}: FAILED: {reply[:60]!r}"] += 1
        except OSError as error:
            counts[f"{kind}: FAILED: {error}"] += 1
            client = None
        longest[kind] = max(longest[kind], time.monotonic() - begin)


threads = [threading.Thread(target=work, args=(kind,)) for kind in ("new", "new", "kept", "kept")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for name, count in sorted(counts.items()):
    print(f"{count:8} {name}")  # noqa: T201
print("longest wait:", ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in sorted(longest.items())))  # noqa: T201
