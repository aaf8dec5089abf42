"""What a record says of the file server that its home lies on: effective values, typed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr.errors import InvalidRecord

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord


class Share(NamedTuple):
    """A home on a file server; names as in the fields of the record."""

    host: str
    name: str
    #: Below the top of the share; empty if the share is the home.
    directory: str
    user: str
    domain: str | None
    mount_options: tuple[str, ...]

    @property
    def unc(self) -> str:
        """What is mounted."""
        return f"//{self.host}/{self.name}"

    @property
    def service(self) -> str:
        """All of it, as people name it."""
        return f"{self.unc}/{self.directory}".rstrip("/")


def share_of(effective: EffectiveRecord) -> Share:
    """Where the home is. Raises InvalidRecord if it cannot be found by what the record says."""
    service = cast("str | None", effective.get("cifsService"))
    if service is None:
        raise InvalidRecord(
            ".cifsService: a home with storage cifs needs the share it lies on, such as"
            " --cifs-service=//host/share/directory."
        )
    parts = service[2:].split("/")
    is_plain = len(parts) > 1 and all(part not in ("", ".", "..") for part in parts)
    if service[:2] != "//" or not is_plain or "\\" in service:
        raise InvalidRecord(
            f".cifsService: expected //host/share or //host/share/directory, found {service!r}."
        )
    options = cast("str | None", effective.get("cifsExtraMountOptions")) or ""
    return Share(
        parts[0],
        parts[1],
        "/".join(parts[2:]),
        cast("str | None", effective.get("cifsUserName")) or effective.name,
        cast("str | None", effective.get("cifsDomain")),
        tuple(option for option in options.split(",") if option),
    )
