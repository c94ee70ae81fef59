"""A request on the control socket: what is asked, and about what (`daemon.control`)."""

import json
from typing import Any

from postfix_mtasts.cache.exceptions import parsed
from postfix_mtasts.config import ConfigError, ExceptionSetting
from postfix_mtasts.sts.domain import PolicyDomain, PolicyDomainError, next_hop

MAX_REQUEST = 4096  # Octets of its line.

About = PolicyDomain | ExceptionSetting | str | None  # What a request is about.


class RequestError(ValueError):
    """The request is not valid. The message says why."""


def parse_request(line: bytes) -> tuple[str, About]:
    """Return the request in a line, and what it is about. Raises RequestError."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected a JSON object on one line of at most {MAX_REQUEST} bytes") from error
    match request:
        case {"request": "list" | "brief" | "status" | "exceptions" | "shadow" | "fleet" as name}:
            return name, None
        case {"request": "except" as name}:
            return name, _exception({key: value for key, value in request.items() if key != "request"})
        case {"request": "unexcept" as name, "domain": str(domain)}:
            return name, domain.lower()
        case {"request": "forget everywhere" | "refresh everywhere" as name, "domain": str(domain)}:
            return name, _domain(domain)
        case {"request": "show" | "explain" | "forget" | "refresh" as name, "domain": str(domain)}:
            return name, _domain(domain)
    alone = '"list", "brief", "status", "exceptions", "shadow" or "fleet"'
    with_domain = '"show", "explain", "forget", "refresh", "except" or "unexcept" with a "domain"'
    raise RequestError(f'expected "request" to be {alone}, or {with_domain}')


def _exception(fields: dict[str, Any]) -> ExceptionSetting:
    try:
        return parsed(fields, "except")
    except ConfigError as error:
        raise RequestError(str(error)) from error


def _domain(text: str) -> PolicyDomain:
    try:
        return next_hop(text.encode("utf-8", "surrogatepass")).domain
    except PolicyDomainError as error:
        raise RequestError(f"{text!a} cannot have a policy: {error}") from error
