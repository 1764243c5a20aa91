"""What a part needs to know of where it runs, and what it is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from model import Part


class Place(Protocol):
    """Where the parts of a topology run."""

    def address(self, part: Part) -> str:
        """The name or IP address under which other parts reach it."""

    def data(self, part: Part) -> str:
        """The folder it keeps its data in."""

    def file(self, part: Part, name: str) -> str:
        """Where a configuration file of it lies."""

    def mount(self, part: Part, name: str) -> str:
        """Where a folder or file of the project is found, by its path in the project."""

    def root(self) -> str:
        """Where the file system of the host itself is seen."""


@dataclass
class Settings:
    """What a part is started with, besides its program."""

    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    # Files to be written before it starts, by name.
    files: dict[str, str] = field(default_factory=dict)


def at(place: Place, part: Part) -> str:
    return f"{place.address(part)}:{part.port}"


def lines_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
