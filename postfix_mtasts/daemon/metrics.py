"""The metrics of the daemon, as Prometheus reads them. The library prometheus_client makes the text, when it is asked.

No label has a domain: whoever sends mail, or is sent some, would choose how many there are. Facts that need the
database are at most a minute old, so that scraping often does not keep it from its work.
"""

import asyncio
import itertools
import math
import pathlib
import resource
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from postfix_mtasts import __version__
from postfix_mtasts.cache.counts import StoreStatus
from postfix_mtasts.cache.store import Store
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.tally import Histogram, Sources
from postfix_mtasts.sts.policy import Mode

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LOOK_AGAIN_AFTER = 60.0  # Seconds after the database was looked into.
PATIENCE = 3.0  # Seconds for the database and for the test queries. Prometheus waits ten.
_KIB = 1024
# What came of lookups in what the fleet shares, as a label says it, and as the fleet counts it.
_FLEET_RESULTS = {
    "found": "found",
    "nothing": "nothing",
    "not-understood": "not_understood",
    "unanswered": "unanswered",
}

Samples = Iterable[tuple[tuple[str, ...], float]]  # The values of the labels, and that of the sample.


class Metrics(Collector):
    """Makes the text of the metrics."""

    def __init__(self, lookup: Lookup, store: Store, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._lookup = lookup
        self._store = store
        self._sources = sources
        self._started_at = time.time()
        self._looking: asyncio.Task[StoreStatus] | None = None
        self._looked_at = -math.inf
        self._seen: StoreStatus | None = None
        self._answers = True

    async def text(self) -> bytes:
        """The metrics as they are now."""
        self._answers, _ = await asyncio.gather(self._sources.answers(PATIENCE), self._look())
        return generate_latest(self._registry)

    async def _look(self) -> None:
        """Look into the database, if it is time, and wait for that a while: it may be busy."""
        clock = asyncio.get_running_loop().time
        if not self._looking and clock() - self._looked_at >= LOOK_AGAIN_AFTER:
            self._looking = asyncio.create_task(self._store.status())
        if not self._looking:
            return
        looking = self._looking
        done, _ = await asyncio.wait([looking], timeout=PATIENCE)
        if done and looking is self._looking:
            self._looking, self._looked_at = None, clock()
            self._seen = looking.result()

    def collect(self) -> Iterator[Metric]:
        """All metrics. prometheus_client calls this."""
        yield self._gauge(
            "mtasts_build_info", "The version of the daemon, as a label.", [((__version__,), 1)], "version"
        )
        yield from self._queries()
        yield from self._policies()
        yield from self._settings()
        yield from self._fleet()
        yield from self._process()

    def _queries(self) -> Iterator[Metric]:
        tally = self._lookup.tally
        answers = [((answer,), count[0]) for answer, count in tally.answers.items()]
        about = "Replies to Postfix, by the level that it was told. The watchdog's own test queries are among notfound."
        yield self._counter("mtasts_queries_total", about, answers, "answer")
        yield self._histogram("mtasts_query_seconds", "What a query took whose reply was not at hand.", tally.waits)
        ended = sorted(tally.discoveries.items())
        about = "Discoveries of policies, by the stage that they ended in, and what came of them."
        yield self._counter("mtasts_discoveries_total", about, ended, "stage", "result")
        yield self._histogram("mtasts_discovery_seconds", "What a discovery took.", tally.discovery_seconds)
        yield self._gauge("mtasts_under_way", "Discoveries that are under way.", [((), self._lookup.under_way)])
        about = "Whether a test query on each socket for Postfix was answered just now."
        yield self._gauge("mtasts_answering", about, [((), float(self._answers))])

    def _policies(self) -> Iterator[Metric]:
        counts = self._seen.counts if self._seen else None
        live = [((mode.value,), counts.live.get(mode, 0)) for mode in Mode] if counts else []
        yield self._gauge("mtasts_policies", "Policies in the database that are valid, by mode.", live, "mode")
        about = "Of them, those that could not be renewed when it was tried last."
        yield self._gauge("mtasts_policies_not_renewed", about, [((), counts.not_renewed)] if counts else [])
        about = "When the first policy that could not be renewed expires. Without one, there is no sample."
        yield self._time(
            "mtasts_policy_earliest_expiry_timestamp_seconds", about, counts.first_ends_at if counts else None
        )
        about = "Whether the database could not be read or written lately."
        yield self._gauge("mtasts_database_trouble", about, [((), float(self._store.has_trouble))])

    def _settings(self) -> Iterator[Metric]:
        exceptions, since = self._sources.exceptions(), self._sources.withheld_since()
        yield self._gauge("mtasts_exceptions", "Exceptions that apply.", [((), exceptions.count)])
        about = "When the first exception ends. Without one, there is no sample."
        yield self._time("mtasts_exception_earliest_end_timestamp_seconds", about, exceptions.earliest_end)
        about = "Whether Postfix is told to enforce policies: 0 in shadow mode."
        yield self._gauge("mtasts_enforcing", about, [((), float(since is None))])
        about = "Since when shadow mode is on. Without it, there is no sample."
        yield self._time("mtasts_shadow_start_timestamp_seconds", about, since)

    def _fleet(self) -> Iterator[Metric]:
        """Without a fleet, none of them has a sample."""
        fleet = self._sources.fleet()
        about = "Whether the server works on which relays share what they know."
        yield self._gauge("mtasts_fleet_working", about, [((), float(fleet["works"]))] if fleet else [])
        about = "Times that this server failed. While it does not work, it is tried every half a minute."
        yield self._counter("mtasts_fleet_failures_total", about, [((), fleet["failures"])] if fleet else [])
        looked = [((label,), fleet[name]) for label, name in _FLEET_RESULTS.items()] if fleet else []
        about = "How often this relay looked for what others know of a domain, by what came of it."
        yield self._counter("mtasts_fleet_lookups_total", about, looked, "result")
        about = "How often this relay shared what it knows of a domain."
        yield self._counter("mtasts_fleet_shared_total", about, [((), fleet["shared"])] if fleet else [])
        trips = SummaryMetricFamily("mtasts_fleet_trip_seconds", "What round trips to this server took.")
        if fleet:
            trips.add_metric((), fleet["trips"], fleet["seconds"])
        yield trips

    def _process(self) -> Iterator[Metric]:
        """The metrics of every process, by the names that all programs have for them.

        prometheus_client has a collector for them, which reads /proc/stat. The service does not see that file.
        """
        memory = dict(line.split(":", 1) for line in _lines("/proc/self/status") if ":" in line)
        sizes = {key: int(memory.get(key, "0").split()[0]) * _KIB for key in ("VmSize", "VmRSS")}
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        about = "Total user and system CPU time spent in seconds."
        yield self._counter("process_cpu_seconds_total", about, [((), time.process_time())])
        about = "Start time of the process since unix epoch in seconds."
        yield self._time("process_start_time_seconds", about, self._started_at)
        for name, about, value in (
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", sizes["VmSize"]),
            ("process_resident_memory_bytes", "Resident memory size in bytes.", sizes["VmRSS"]),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir()),
            ),
            ("process_max_fds", "Maximum number of open file descriptors.", most),
        ):
            yield self._gauge(name, about, [((), value)])

    def _gauge(self, name: str, about: str, samples: Samples, *labels: str) -> Metric:
        made = GaugeMetricFamily(name, about, labels=labels)
        for values, value in samples:
            made.add_metric(values, value)
        return made

    def _time(self, name: str, about: str, at: float | None) -> Metric:
        return self._gauge(name, about, [] if at is None else [((), at)])

    def _counter(self, name: str, about: str, samples: Samples, *labels: str) -> Metric:
        made = CounterMetricFamily(name, about, labels=labels)
        for values, value in samples:
            made.add_metric(values, value)
        return made

    def _histogram(self, name: str, about: str, seen: Histogram) -> Metric:
        bounds = [*map(str, seen.bounds), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(seen.counts), strict=True))
        made = HistogramMetricFamily(name, about)
        made.add_metric((), buckets, seen.sum)
        return made


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text().splitlines()
    except OSError:
        return []
