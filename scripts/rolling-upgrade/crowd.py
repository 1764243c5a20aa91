"""A steady crowd for scripts/rolling-upgrade.sh: crowd.py HOST:PORT RESULT-FILE

Makes two coupons, one with plenty and one that is soon sold out, and lets a new user ask for one of them RATE times a second, each once, on
CLIENTS connections, until SIGTERM. No request is repeated meanwhile. Then every user asks once more: whoever was promised a coupon must be
told the same again, and nobody may be left without a final answer. Writes the ids of the coupons into RESULT-FILE; exit code 1 when a
request was lost, a promise broken, or more than one in a hundred told to ask again. Needs nothing but Python.
"""

import base64
import collections
import hashlib
import hmac
import http.client
import json
import os
import signal
import sys
import threading
import time
import uuid

RATE = float(os.environ.get("RATE", "200"))
CLIENTS = int(os.environ.get("CLIENTS", "32"))
SECRET = os.environ["JWT_SECRET"].encode()
PLENTY, FEW = 10_000_000, 100
# More than any answer may take; who is silent for longer has not answered.
PATIENCE = 5.0
# Of the service, and for good.
FINAL = {"202 ACCEPTED", "200 ALREADY_ISSUED", "409 SOLD_OUT"}
# Of the service: ask again.
NOT_YET = {"503 UNAVAILABLE"}


def token(user, admin=False):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": user, "exp": int(time.time()) + 3600}
    if admin:
        claims["admin"] = True
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(SECRET, signed, hashlib.sha256).digest())).decode()


class Client:
    """One connection, kept open; what breaks is told, not repeated."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=PATIENCE)

    def call(self, path, user, body=None, admin=False, method="POST", credential=None):
        """The kind of answer in two words, and its body. Another credential than the user's own is sent as it is."""
        headers = {"Authorization": credential or f"Bearer {token(user, admin)}", "Content-Type": "application/json"}
        try:
            self.connection.request(method, path, body=json.dumps(body) if body else None, headers=headers)
            response = self.connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            return f"no answer: {type(error).__name__}", {}
        except ValueError:
            return f"{response.status} without a body of the service", {}
        if response.status == 503 and not response.headers.get("Retry-After"):
            return "503 without Retry-After", answer
        return f"{response.status} {answer.get('result') or answer.get('code') or ''}".strip(), answer


def create(client, name, stock):
    coupon = str(uuid.uuid4())
    body = {"coupon_id": coupon, "name": name, "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 1}, "total_quantity": stock}
    kind, answer = client.call("/api/v1/coupons", "upgrade-admin", body, admin=True)
    if not kind.startswith("20"):
        sys.exit(f"crowd: the coupon was not made: {kind} {answer}")
    return coupon


def main():
    address, result_file = sys.argv[1:]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    run = uuid.uuid4().hex[:8]
    admin = Client(address)
    coupons = [create(admin, "Plenty", PLENTY), create(admin, "Few", FEW)]
    with open(result_file, "w", encoding="ascii") as out:
        out.writelines(f"{coupon}\n" for coupon in coupons)

    answers = {}
    times = []
    begin = time.monotonic() + 0.2

    def ask(client, number):
        path = f"/api/v1/coupons/{coupons[number % 2]}/issue"
        return client.call(path, f"{run}-{number}")

    def keep_asking(first):
        client = Client(address)
        number = first
        while not stopping.is_set():
            due = begin + number / RATE
            # Behind time after a slow answer it does not wait: the rate holds over all.
            if stopping.wait(max(0.0, due - time.monotonic())):
                return
            sent = time.monotonic()
            answers[number] = ask(client, number)
            times.append(time.monotonic() - sent)
            number += CLIENTS

    crowd = [threading.Thread(target=keep_asking, args=(first,), daemon=True) for first in range(CLIENTS)]
    for thread in crowd:
        thread.start()
    stopping.wait()
    for thread in crowd:
        thread.join()

    kinds = collections.Counter(kind for kind, _ in answers.values())
    lost = sum(count for kind, count in kinds.items() if kind not in FINAL | NOT_YET)
    times.sort()
    print(f"  {'requests':<44} {len(answers)}")
    for kind, count in kinds.most_common():
        print(f"    {kind:<42} {count}")
    if times:
        p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
        print(f"  {'longest wait for an answer, and the 99th %':<44} {times[-1] * 1000:.0f} ms, {p99 * 1000:.0f} ms")
    print(f"  {'lost: no answer, or none of the service':<44} {lost}")

    # Again, now that all is quiet.
    broken, open_ends, winners = [], 0, [set(), set()]
    for number, (kind, answer) in sorted(answers.items()):
        again, told = ask(admin, number)
        if again not in FINAL:
            open_ends += 1
        promised, holds = (answer.get("issue_id"), answer.get("sequence")), (told.get("issue_id"), told.get("sequence"))
        if promised != (None, None) and promised != holds:
            broken.append(f"user {number} was promised {promised} and is told {again} {holds}")
        if holds[1] is not None:
            if holds[1] in winners[number % 2]:
                broken.append(f"sequence {holds[1]} was given twice")
            winners[number % 2].add(holds[1])
    few = min(FEW, sum(number % 2 for number in answers))
    if len(winners[1]) != few:
        broken.append(f"{len(winners[1])} users hold the coupon of which there are {FEW}")
    print(f"  {'asked again: promises broken':<44} {len(broken)}")
    print(f"  {'asked again: still without a final answer':<44} {open_ends}")
    for line in broken[:5]:
        print(f"    {line}")
    # An answer, but not the one that a balancer is there for: an upgrade that one user in a hundred notices was none.
    put_off = sum(kinds[kind] for kind in NOT_YET)
    if put_off * 100 > len(answers):
        print(f"  {put_off} of {len(answers)} were told to ask again: more than one in a hundred")
    sys.stdout.flush()
    sys.exit(1 if lost or broken or open_ends or put_off * 100 > len(answers) or not answers else 0)


if __name__ == "__main__":
    main()
