"""Two servers, one of which follows the other, and three sentinels that watch them, with the users of contrib/valkey.

They are on ports of the namespace that no client gets. Each sentinel knows of all others, as if it had run before.
"""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from postfix_mtasts.config_fleet import FleetPlace
from tests.world.ca import Ca
from tests.world.fleet import ACL, HERE, PASSWORD, Program, Shared, with_password

NAME = "policies"
FIRST = 6381  # Of five ports.
DOWN_AFTER = 2.0  # Seconds that a server does not answer.
_PATIENCE = 60.0  # Seconds for a fail-over, on a busy machine.
_QUORUM = 2
_REPLICATION = ("--tls-replication", "yes", "--masteruser", "replica", "--masterauth", PASSWORD)
# A replica waits five seconds for others that may come, too.
_AT_ONCE = ("--repl-diskless-sync-delay", "0")


class Sentinels:
    """`with Sentinels(folder, ca) as sentinels: …`."""

    def __init__(self, folder: Path, ca: Ca, first: int = FIRST, program: Program = HERE) -> None:
        self.ca = ca
        self._folder = folder
        self._program = program
        self._stack = ExitStack()
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self._ports, self._sentinel_ports = range(first, first + 2), range(first + 2, first + 5)
        follows = ("--replicaof", f"127.0.0.1 {first}")
        more = with_password(ACL.with_name("replication.acl"))
        self.servers = [
            Shared(folder / str(port), ca, *_REPLICATION, *_AT_ONCE, *options, program=program, port=port)
            for port, options in zip(self._ports, ((), follows), strict=True)
        ]
        for server in self.servers:
            with (server.folder / "users.acl").open("a") as file:
                file.write(more)

    @property
    def place(self) -> FleetPlace:
        """Where the server is, for a relay."""
        sentinels = tuple(("127.0.0.1", port) for port in self._sentinel_ports)
        return FleetPlace(None, sentinels, NAME, tls=True, ca_file=str(self.ca.file), user="mtasts", password=PASSWORD)

    @property
    def config(self) -> dict[str, object]:
        """The table [fleet] of a relay."""
        ours = {"sentinels": [f"127.0.0.1:{port}" for port in self._sentinel_ports], "name": NAME}
        return {name: value for name, value in self.servers[0].config.items() if name != "url"} | ours

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._wait_until(self._is_followed)
            stack.callback(self._kill_sentinels)
            for number, port in enumerate(self._sentinel_ports):
                self._start_sentinel(number, port)
            self._wait_until(lambda: self._named() == self.servers[0])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def master(self) -> Shared:
        """The server that all sentinels name, as soon as they do."""
        self._wait_until(lambda: self._named() is not None)
        named = self._named()
        assert named
        return named

    def other(self, server: Shared) -> Shared:
        """The other one of the two."""
        return self.servers[1 - self.servers.index(server)]

    def wait_for(self, server: Shared) -> None:
        """Until all sentinels name a server, and it takes what is written."""
        self._wait_until(lambda: self._named() == server and self._role(server) == "master")

    def fail_over(self) -> None:
        """Have the other server take the place of the one that runs; return when that one follows it."""
        old = self.master()
        self._wait_until(lambda: self._fails_over(old))
        self.wait_for(self.other(old))
        self._wait_until(lambda: self._role(old) == "slave")

    def _fails_over(self, old: Shared) -> bool:
        """Whether a sentinel begins with it: not before all know that the other server is fit for it."""
        with self._sentinel(self._sentinel_ports[0]) as sentinel:
            try:
                return bool(sentinel.execute_command("SENTINEL", "FAILOVER", NAME))
            except redis.ResponseError:
                return self._named() == self.other(old)

    def replicated(self, server: Shared) -> None:
        """Return when the other one has all that was written to a server."""
        with server.admin() as admin:
            # Valkey waits only for what was written over the same connection, and for all that was written before it.
            self._wait_until(lambda: admin.set("mark", "") and admin.wait(1, 100) == 1)

    def _named(self) -> Shared | None:
        found = set()
        for port in self._sentinel_ports:
            with self._sentinel(port) as sentinel:
                try:
                    answer = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                except redis.RedisError:
                    return None
            found.add(int(answer[1]))
        return self.servers[self._ports.index(found.pop())] if len(found) == 1 else None

    def _is_followed(self) -> bool:
        with self.servers[0].admin() as admin:
            replicas = admin.role()[2]
            return [int(port) for _, port, _ in replicas] == [self._ports[1]]

    def _role(self, server: Shared) -> str:
        with server.admin() as admin:
            try:
                role: bytes = admin.role()[0]
            except redis.RedisError:
                return ""
        return role.decode()

    def _sentinel(self, port: int) -> Any:
        who: Any = {"username": "admin", "password": "admin"}
        return redis.Redis("127.0.0.1", port, **who, ssl=True, ssl_ca_certs=str(self.ca.file))

    def _start_sentinel(self, number: int, port: int) -> None:
        folder = self._folder / f"sentinel{number}"
        folder.mkdir()
        (folder / "users.acl").write_text(
            with_password(ACL.with_name("sentinel.acl")) + "user admin on >admin allchannels +@all\n"
        )
        certificate = str(self.ca.issue("localhost", "127.0.0.1").file)
        others = [(other, one) for other, one in enumerate(self._sentinel_ports) if one != port]
        lines = [
            *(f"port 0\ntls-port {port}", "bind 127.0.0.1", f"dir {folder}", f"aclfile {folder / 'users.acl'}"),
            *(f"tls-cert-file {certificate}", f"tls-key-file {certificate}", f"tls-ca-cert-file {self.ca.file}"),
            *("tls-auth-clients no", "tls-replication yes", f"sentinel myid {_id(number)}"),
            f"sentinel monitor {NAME} 127.0.0.1 {self._ports[0]} {_QUORUM}",
            f"sentinel down-after-milliseconds {NAME} {round(DOWN_AFTER * 1000)}",
            f"sentinel failover-timeout {NAME} 5000",
            *(f"sentinel auth-user {NAME} sentinel", f'sentinel auth-pass {NAME} "{PASSWORD}"'),
            *("sentinel sentinel-user sentinel", f'sentinel sentinel-pass "{PASSWORD}"'),
            f"sentinel known-replica {NAME} 127.0.0.1 {self._ports[1]}",
            *(f"sentinel known-sentinel {NAME} 127.0.0.1 {one} {_id(other)}" for other, one in others),
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        program, words = self._program.command
        with (folder / "log").open("wb") as log:
            command = [*words, str(folder / "sentinel.conf"), "--sentinel"]
            self._sentinels.append(subprocess.Popen(command, executable=program, stdout=log))

    def _kill_sentinels(self) -> None:
        for process in self._sentinels:
            process.kill()
            process.wait()

    def _wait_until(self, holds: Any) -> None:
        end = time.monotonic() + _PATIENCE
        while not holds():
            logs = sorted(self._folder.glob("*/log"))
            assert time.monotonic() < end, "\n".join(log.read_text()[-2000:] for log in logs)
            time.sleep(0.05)


def _id(number: int) -> str:
    return f"{number:040x}"
