"""A receiving SMTP server on a real port: EHLO, STARTTLS, any number of messages; nothing is refused."""

import contextlib
import socket
import socketserver
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary


@dataclass(frozen=True)
class Message:
    """The envelope of one received message, and how its connection was secured."""

    sender: str
    recipients: tuple[str, ...]
    tls: bool
    sni: str | None


class SmtpServer:
    """`with SmtpServer("127.0.1.1", context=…) as mx: …; mx.messages`; STARTTLS is offered only with a context.

    Without a greeting, it accepts connections and says nothing.
    """

    def __init__(
        self, address: str, port: int = 25, context: ssl.SSLContext | None = None, greeting: str = "220 ready"
    ) -> None:
        self.context = context
        self.greeting = greeting
        self.greeted: list[str] = []  # What came after EHLO.
        self.messages: list[Message] = []
        self._server = _Listener((address, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def received(self, recipient: str) -> list[Message]:
        """What came for one recipient."""
        return [message for message in self.messages if recipient in message.recipients]


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 50

    def __init__(self, address: tuple[str, int], owner: SmtpServer) -> None:
        self.owner = owner
        super().__init__(address, _Dialogue)


class _Dialogue(socketserver.BaseRequestHandler):
    request: socket.socket
    server: _Listener

    def setup(self) -> None:
        self.owner = self.server.owner
        self.connection = self.request
        self.connection.settimeout(60)
        self.lines = self.connection.makefile("rb")
        self.tls = False
        self.sni: str | None = None

    def handle(self) -> None:
        # A client that dislikes our certificate breaks off: that is a case of the tests, no error.
        with contextlib.suppress(OSError):
            if self.owner.greeting:
                self._say(self.owner.greeting)
            while line := self.lines.readline():
                if not self._obey(line.decode().strip()):
                    break

    def finish(self) -> None:
        self.lines.close()
        self.connection.close()

    def _say(self, *lines: str) -> None:
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _obey(self, line: str) -> bool:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                self.owner.greeted.append(rest)
                offered = ["250-REQUIRETLS"] if self.tls else ["250-STARTTLS"] if self.owner.context else []
                self._say("250-mx", *offered, "250-SMTPUTF8", "250 8BITMIME")
            case "STARTTLS":
                self._say("220 go ahead")
                self._start_tls()
            case "MAIL":
                self.sender, self.recipients = _address(rest), []
                self._say("250 ok")
            case "RCPT":
                self.recipients.append(_address(rest))
                self._say("250 ok")
            case "DATA":
                self._say("354 go ahead")
                while self.lines.readline() not in (b".\r\n", b""):
                    pass
                self.owner.messages.append(Message(self.sender, tuple(self.recipients), self.tls, self.sni))
                self._say("250 received")
            case "QUIT":
                self._say("221 bye")
                return False
            case _:
                self._say("250 ok")
        return True

    def _start_tls(self) -> None:
        assert self.owner.context is not None
        self.owner.context.sni_callback = _note_sni
        self.lines.close()
        self.connection = secured = self.owner.context.wrap_socket(self.connection, server_side=True)
        self.lines = secured.makefile("rb")
        self.tls = True
        self.sni = _sni.get(secured)


# One context may serve several servers, and has one callback.
_sni: WeakKeyDictionary[ssl.SSLSocket | ssl.SSLObject, str | None] = WeakKeyDictionary()


def _note_sni(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    _sni[connection] = name


def _address(argument: str) -> str:
    return argument[argument.index("<") + 1 : argument.index(">")]
