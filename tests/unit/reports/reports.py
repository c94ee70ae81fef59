"""Reports for tests: one that is right, and how to spoil it."""

import copy
import json
from typing import Any

RIGHT: dict[str, Any] = {
    "organization-name": "Company-X",
    "date-range": {"start-datetime": "2026-03-09T00:00:00Z", "end-datetime": "2026-03-09T23:59:59Z"},
    "contact-info": "tlsrpt@company-x.example",
    "report-id": "5065427c@company-x.example",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: testing", "mx: *.company-y.example", "max_age: 86400"],
                "policy-domain": "company-y.example",
                "mx-host": ["*.company-y.example"],
            },
            "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
            "failure-details": [
                {
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "2001:db8:abcd:0013::1",
                    "receiving-mx-hostname": "mx2.company-y.example",
                    "receiving-mx-helo": "mx2",
                    "receiving-ip": "203.0.113.56",
                    "failed-session-count": 200,
                    "additional-information": "https://company-x.example/info",
                    "failure-reason-code": "NO_STARTTLS",
                }
            ],
        }
    ],
}
POLICY, SUMMARY = ("policies", 0, "policy"), ("policies", 0, "summary")
DETAILS = ("policies", 0, "failure-details")
FAILURE = (*DETAILS, 0)
GONE = object()


def spoiled(path: tuple[str | int, ...], value: object) -> bytes:
    """The right report with another value at a path, or without it if the value is GONE."""
    report = copy.deepcopy(RIGHT)
    place: Any = report
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(report).encode()
