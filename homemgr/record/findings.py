"""What can be wrong with a home area: one stable code for each, what it means, what to do.

The table that `homemgr check` and `homemgr repair` speak by. Pure: who finds and mends is
in ``work.check`` (what lies on disk) and ``daemon.inspection`` (what the service keeps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.jsontext import JsonObject


class Kind(NamedTuple):
    """One row of the table."""

    what: str
    advice: str
    #: What a repair does where it can; empty if that is for people.
    repair: str = ""


_LOG_IN: Final = "Log in once with the password; the copy in the home then takes its place."

CODES: Final[Mapping[str, Kind]] = {
    # -- the host copy of the record
    "record-missing": Kind(
        "There is no host copy of the user record.", _LOG_IN, "writes it as the service has it"
    ),
    "record-unreadable": Kind(
        "The host copy is no user record.",
        _LOG_IN,
        "keeps it aside and writes it as the service has it",
    ),
    "record-signature": Kind(
        "The host copy is not signed by a key that is accepted here.",
        "Accept the key, or log in once with the password if the copy in the home is good.",
        "keeps it aside and writes it as the service has it",
    ),
    "record-mode": Kind(
        "Others than root may read or write the host copy, which holds password hashes.",
        "Change the passwords if somebody may have read it.",
        "makes it root's with mode 0600",
    ),
    # -- the record in the home
    "inside-missing": Kind(
        "The home holds no user record.",
        "Log in once, or restore it.",
        "writes the host copy there",
    ),
    "inside-hostile": Kind(
        "What lies in the place of the home's record is no file of the home's owner.",
        "See who put it there; the next login does what a repair does.",
        "renames it to .identity.kept-* and writes the host copy there",
    ),
    "inside-unreadable": Kind(
        "The file in the place of the home's record is no user record.",
        "Log in once, or restore it.",
        "keeps it aside and writes the host copy there",
    ),
    "inside-signature": Kind(
        "The home's record is not signed by a key that is accepted here.",
        "If it was changed on a machine you trust, accept its key; else delete it and log in.",
        "keeps it aside and writes the host copy there, unless another machine made a newer one",
    ),
    "inside-other-user": Kind(
        "The home's record is that of somebody else.",
        "See whose files these are, and rename the directory to that name.",
    ),
    "inside-older": Kind(
        "The home's record is older than the host copy, or another of the same time.",
        "The next login writes it anew.",
        "keeps it aside and writes the host copy there",
    ),
    "inside-newer": Kind(
        "The home's record is newer than the host copy.",
        "Log in once with the password that it holds.",
    ),
    "inside-mode": Kind(
        "Others may read the home's record, which holds password hashes.",
        "Change the passwords if somebody may have read it.",
        "gives it mode 0600",
    ),
    # -- how the home lies on disk
    "image-missing": Kind(
        "The files of the home are not there.", "Attach the disk that holds them."
    ),
    "image-type": Kind(
        "What lies in the place of the home is no directory, or no file, as its storage wants.",
        "Move it away, restore the home.",
    ),
    "image-owner": Kind(
        "The top directory of the home does not belong to nobody (65534), or a file to root.",
        "Find out who changed it; a home of root cannot be opened.",
        "gives it to nobody, if it is root's and the record in it is nobody's",
    ),
    "image-key": Kind(
        "No password can unlock the home: none of its key slots can be read.",
        "Restore the attributes trusted.fscrypt_slot* of its top directory, or the LUKS header.",
    ),
    "image-format": Kind(
        "The image holds no home that could be opened, or only a part of one.",
        "Restore the image; its partitions and file system are what `fdisk` and `fsck` look at.",
    ),
    "base-unsafe": Kind(
        "Others than root can change where the path of the home leads.",
        "Take write permission for others from the directory that is named.",
    ),
    "base-mode": Kind(
        "The base directory lets others in, who could reach nobody's files.",
        "See what they did there.",
        "makes it root's with mode 0700",
    ),
    "mountpoint-blocked": Kind(
        "The place where the home is shown is not an empty directory.",
        "Move away what is in it.",
        "renames it to *.kept-* beside it",
    ),
    "mount-foreign": Kind(
        "Something that is not the home is mounted where it is shown.", "Unmount it."
    ),
    "marker-stale": Kind(
        "Files of sessions that are over are left in the runtime directory.",
        "Nothing depends on them.",
        "deletes them",
    ),
    # -- what is in it
    "files-owner": Kind(
        "Files in the home belong to ids that it does not show; the user cannot use them.",
        "Give them to nobody (65534), if they are the user's.",
    ),
    "files-unread": Kind(
        "The files of the home could not all be looked at.", "See the reason; check again."
    ),
    "extension-traces": Kind(
        "A session that ended with the power left traces of extensions in the home.",
        "The next login cleans them up.",
        "cleans them up",
    ),
    "blobs-missing": Kind(
        "There is no directory for public files of the user.",
        "Restart the service.",
        "makes it",
    ),
    "blobs-public": Kind(
        "Public files that the record names are missing or others than it says.",
        "Set the picture again.",
        "copies them from the home, where it has them",
    ),
    "blobs-inside": Kind(
        "Files that the record names are missing in the home or others than it says.",
        "Set the picture again.",
        "copies the public ones, if the home has none at all",
    ),
    # -- the machine
    "key-missing": Kind(
        "A half of the machine's signing key is missing.",
        "Restore it from a backup before the service is started again.",
        "writes it as the service has it",
    ),
    "key-unreadable": Kind(
        "The file of a signing key holds none, or the key of the machine is another by now.",
        "Restore it from a backup, or delete it.",
        "keeps it aside and writes it as the service has it, if it is the machine's own",
    ),
    "key-mode": Kind(
        "Others than root may read a private or write a public signing key.",
        "If it was readable, make a new one.",
        "takes their permissions away, if it is root's",
    ),
    "leftover-tree": Kind(
        "A killed operation left files.",
        "The next start of the service deletes them.",
        "deletes them, as the operation meant to or would have",
    ),
    "leftover-transfer": Kind(
        "Files of a home that moved are there, and no transfer tells of them.",
        "See what they are; delete or rename them.",
    ),
    "leftover-room": Kind(
        "Files of a home that was converted are there, and no conversion tells of them.",
        "See whose home it is: what is in there may be the only copy; move it back or delete it.",
    ),
    "unchecked": Kind("It could not be checked.", "See the reason; check again."),
}


class Finding(NamedTuple):
    """Something that is wrong: a code of the table, with what, and what in particular."""

    code: str
    #: Path of what it is about.
    subject: str
    detail: str = ""
    can_repair: bool = False
    #: What a repair did; empty if nothing.
    done: str = ""
    #: Why a repair failed.
    failed: str = ""

    def to_json(self, user: str = "") -> JsonObject:
        """As it travels and as programs are given it."""
        kind = CODES[self.code]
        return {
            "code": self.code,
            "user": user,
            "object": self.subject,
            "what": kind.what,
            "detail": self.detail,
            "advice": kind.advice,
            "can_repair": self.can_repair,
            "repair": kind.repair if self.can_repair else "",
            "done": self.done,
            "failed": self.failed,
        }
