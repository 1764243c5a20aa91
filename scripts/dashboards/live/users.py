"""Users for scripts/dashboards-check.sh: users.py HOST:PORT, until SIGTERM. Every kind of answer comes, again and again.

Exit code 1 when a kind of answer was another one than it should be, or never came: then the metrics would not be those of a real event.
"""

from __future__ import annotations

import collections
import signal
import sys
import threading
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "rolling-upgrade"))

from crowd import Client, create  # noqa: E402

PLENTY, FEW = 1_000_000, 5
# A round every so often; each is some ten requests.
PAUSE_SECONDS = 0.1
FAR_AWAY = "2099-01-01T00:00:00Z"


def changed(client: Client, coupon: str, change: dict[str, object]) -> str:
    kind, answer = client.call(f"/api/v1/coupons/{coupon}", "check-admin", change, admin=True, method="PATCH")
    if not kind.startswith("200"):
        sys.exit(f"users: the coupon was not changed: {kind} {answer}")
    return coupon


def main() -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    client = Client(sys.argv[1])
    plenty, few = create(client, "Plenty", PLENTY), create(client, "Few", FEW)
    paused = changed(client, create(client, "Paused", FEW), {"status": "PAUSED"})
    closed = changed(client, create(client, "Closed", FEW), {"status": "CLOSED"})
    not_open = changed(client, create(client, "Later", FEW), {"opens_at": FAR_AWAY})
    for number in range(FEW):
        client.call(f"/api/v1/coupons/{few}/issue", f"early-{number}")
    run = uuid.uuid4().hex[:8]
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    number = 0
    while not stopping.wait(PAUSE_SECONDS):
        number += 1
        user = f"{run}-{number}"
        asks = [
            ("202 ACCEPTED", plenty, user),
            ("200 ALREADY_ISSUED", plenty, user),
            ("202 ACCEPTED", plenty, f"{user}-b"),
            ("409 SOLD_OUT", few, user),
            ("409 NOT_OPEN", not_open, user),
            ("409 PAUSED", paused, user),
            ("409 CLOSED", closed, user),
            ("404 COUPON_NOT_FOUND", str(uuid.uuid4()), user),
        ]
        for expected, coupon, asking in asks:
            seen[expected, client.call(f"/api/v1/coupons/{coupon}/issue", asking)[0]] += 1
        seen["401 UNAUTHENTICATED", client.call(f"/api/v1/coupons/{plenty}/issue", user, credential="Bearer a.b.c")[0]] += 1
        for path in (f"/api/v1/coupons/{plenty}/issue", "/api/v1/me/coupons", "/api/v1/coupons?limit=5"):
            client.call(path, user, method="GET")
    told = [f"{count} times {told or 'nothing'} instead of {expected}" for (expected, told), count in seen.items() if told != expected]
    for line in told:
        print(f"users: {line}", file=sys.stderr)
    print(f"users: {number} rounds")
    sys.exit(1 if told or number == 0 else 0)


main()
