"""Samples and native histograms to Prometheus as k6 sends them: remote write, which is protobuf in snappy."""

from __future__ import annotations

import struct
import urllib.request

# A series: its labels, and its value, or the count of a native histogram's observations.
Series = tuple[dict[str, str], float, bool]


def send(url: str, series: list[Series], millis: int) -> None:
    body = b"".join(message(1, of_series(*one, millis)) for one in series)
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
    request = urllib.request.Request(f"{url}/api/v1/write", data=uncompressed(body), headers=headers)
    urllib.request.urlopen(request, timeout=5).close()


def of_series(labels: dict[str, str], value: float, is_histogram: bool, millis: int) -> bytes:
    # Sorted, or they are refused.
    told = b"".join(message(1, message(1, name.encode()) + message(2, text.encode())) for name, text in sorted(labels.items()))
    if is_histogram:
        return told + message(4, histogram(int(value), millis))
    return told + message(2, double(1, value) + integer(2, millis))


def histogram(count: int, millis: int) -> bytes:
    """`count` observations, all of them between 31 and 62 ms: bucket -4 of schema 0, whose buckets double."""
    span = integer(1, zigzag(-4)) + integer(2, 1)
    return (
        integer(1, count)
        + double(3, count * 0.05)
        + integer(4, zigzag(0))
        + double(5, 1e-128)
        + integer(6, 0)
        + message(11, span)
        + message(12, varint(zigzag(count)))
        + integer(15, millis)
    )


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def integer(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def message(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


def uncompressed(body: bytes) -> bytes:
    """The snappy format without any compression: the length, then literals of up to 65,536 bytes."""
    out = bytearray(varint(len(body)))
    for start in range(0, len(body), 65_536):
        piece = body[start : start + 65_536]
        # 61 in the upper six bits: two bytes of length follow.
        out += bytes([61 << 2]) + struct.pack("<H", len(piece) - 1) + piece
    return bytes(out)
