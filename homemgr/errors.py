"""Every failure this project reports: class, D-Bus error name, advice.

One table. The classes are named as the suffix of their D-Bus error name, so
that a reader of the bus, the log and the code sees one word. Translation to a
wire happens at three places only: bus dispatch, worker main, command line main.
Names and errnos follow systemd-homed 262 (``org.freedesktop.home1(5)``).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # typing would cost every start of the command line 5 ms
if TYPE_CHECKING:
    from typing import ClassVar

HOME1 = "org.freedesktop.home1."
HOMEMGR1 = "org.homemgr1."
HOMEMGR1_ERROR = HOMEMGR1 + "Error."
DBUS = "org.freedesktop.DBus.Error."
SYSTEM = "System.Error."


class HomeError(Exception):
    """A failure that is somebody's answer: it says what, about which object, and what to do.

    The message never carries a secret. ``bus_name`` is what D-Bus clients act on.
    """

    bus_name: ClassVar[str] = DBUS + "Failed"
    #: One sentence of advice, shown by the command line under the message.
    hint: ClassVar[str] = ""
    #: Monotonic time (s) before which the caller is not told: slows down guessing.
    answer_at: float = 0.0

    def __init__(self, message: str = "") -> None:
        """Take the sentence shown to the caller; the class's first docstring line if empty."""
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])

    @property
    def message(self) -> str:
        """The sentence shown to the caller."""
        return str(self.args[0])


# --- look-up and registration -------------------------------------------------


class NoSuchHome(HomeError):
    """No home area is known under this name or id."""

    bus_name = HOME1 + "NoSuchHome"
    hint = "See `homemgr list` for the home areas of this machine."


class UserNameExists(HomeError):
    """The user name is already taken on this machine."""

    bus_name = HOME1 + "UserNameExists"
    hint = "Choose another user name, or remove the account or group of that name first."


class UIDInUse(HomeError):
    """The uid is already taken on this machine."""

    bus_name = HOME1 + "UIDInUse"
    hint = "Leave the uid out to have a free one chosen."


class TooManyHomes(HomeError):
    """No free uid is left in the configured range."""

    bus_name = SYSTEM + "ENOSPC"
    hint = "Widen UIDRange= in homemgr.conf."


class UnrecognizedHomeFormat(HomeError):
    """The file is no home area."""

    bus_name = HOME1 + "UnrecognizedHomeFormat"


# --- state ----------------------------------------------------------------------


class HomeExists(HomeError):
    """The home area exists already."""

    bus_name = HOME1 + "HomeExists"


class HomeAlreadyActive(HomeError):
    """The home area is already active."""

    bus_name = HOME1 + "HomeAlreadyActive"


class HomeAlreadyFixated(HomeError):
    """The home area is already known to this machine."""

    bus_name = HOME1 + "HomeAlreadyFixated"


class HomeUnfixated(HomeError):
    """The home area was found on disk but never used on this machine."""

    bus_name = HOME1 + "HomeUnfixated"
    hint = "Activate it once with its password."


class HomeNotActive(HomeError):
    """The home area is not active."""

    bus_name = HOME1 + "HomeNotActive"


class HomeAbsent(HomeError):
    """The files of the home area are not there."""

    bus_name = HOME1 + "HomeAbsent"
    hint = "Attach the disk that holds it, or restore its image path."


class HomeBusy(HomeError):
    """The home area is in use."""

    bus_name = HOME1 + "HomeBusy"
    hint = "End the programs that use it and try again."


class HomeLocked(HomeError):
    """The home area is locked."""

    bus_name = HOME1 + "HomeLocked"


class HomeNotLocked(HomeError):
    """The home area is not locked."""

    bus_name = HOME1 + "HomeNotLocked"


class HomeNotReferenced(HomeError):
    """No session holds the home area."""

    bus_name = HOME1 + "HomeNotReferenced"


class HomeInUse(HomeError):
    """The image of the home area is in use by somebody else."""

    bus_name = HOME1 + "HomeInUse"


class TooManyOperations(HomeError):
    """Too many operations wait for this home area."""

    bus_name = HOME1 + "TooManyOperations"


class Cancelled(HomeError):
    """The operation was called off before it was done."""

    bus_name = HOMEMGR1 + "Cancelled"


# --- credentials ------------------------------------------------------------------


class BadPassword(HomeError):
    """The password does not unlock this home area."""

    bus_name = HOME1 + "BadPassword"


class BadPasswordAndNoToken(HomeError):
    """The password does not unlock this home area and no security token is plugged in."""

    bus_name = HOME1 + "BadPasswordAndNoToken"


class BadRecoveryKey(HomeError):
    """The recovery key does not unlock this home area."""

    bus_name = HOME1 + "BadRecoveryKey"


class AuthenticationFailed(HomeError):
    """The credentials do not unlock this home area, and no more are asked for."""

    bus_name = HOMEMGR1_ERROR + "AuthenticationFailed"


class HomeCantAuthenticate(HomeError):
    """The user record holds nothing to authenticate with."""

    bus_name = HOME1 + "HomeCantAuthenticate"
    hint = "Give the user a password."


class TokenPinNeeded(HomeError):
    """The security token needs its PIN."""

    bus_name = HOME1 + "TokenPinNeeded"


class TokenProtectedAuthenticationPathNeeded(HomeError):
    """The security token asks its user for the PIN itself."""

    bus_name = HOME1 + "TokenProtectedAuthenticationPathNeeded"


class TokenUserPresenceNeeded(HomeError):
    """The security token has to be touched."""

    bus_name = HOME1 + "TokenUserPresenceNeeded"


class TokenUserVerificationNeeded(HomeError):
    """The security token has to recognise its user."""

    bus_name = HOME1 + "TokenUserVerificationNeeded"


class TokenActionTimeout(HomeError):
    """Nobody did on the security token what it waited for."""

    bus_name = HOME1 + "TokenActionTimeout"
    hint = "Try again, and touch the token once it blinks."


class TokenPinLocked(HomeError):
    """The PIN of the security token is locked."""

    bus_name = HOME1 + "TokenPinLocked"
    hint = "Take the token out and plug it in again, or unlock it with its own tools."


class BadPin(HomeError):
    """The PIN of the security token is wrong."""

    bus_name = HOME1 + "BadPin"


class BadPinFewTriesLeft(HomeError):
    """The PIN of the security token is wrong, and only a few tries are left."""

    bus_name = HOME1 + "BadPinFewTriesLeft"


class BadPinOneTryLeft(HomeError):
    """The PIN of the security token is wrong, and only one try is left."""

    bus_name = HOME1 + "BadPinOneTryLeft"


#: What security tokens answer, the one that counts most first.
TOKEN_FAILURES = (
    BadPinOneTryLeft,
    BadPinFewTriesLeft,
    BadPin,
    TokenPinLocked,
    TokenActionTimeout,
    TokenProtectedAuthenticationPathNeeded,
    TokenUserPresenceNeeded,
    TokenUserVerificationNeeded,
    TokenPinNeeded,
    BadPasswordAndNoToken,
)


class LowPasswordQuality(HomeError):
    """The password is too weak."""

    bus_name = HOME1 + "LowPasswordQuality"
    hint = "Choose a longer password, or create the user with --enforce-password-policy=no."


class NoSuchSlot(HomeError):
    """The home area has no slot of this name."""

    bus_name = HOMEMGR1_ERROR + "NoSuchSlot"
    hint = "See `homemgr slot list` for the slots there are."


class SlotExists(HomeError):
    """The home area has this slot already."""

    bus_name = HOMEMGR1_ERROR + "SlotExists"
    hint = "Choose another name, or use `homemgr slot replace`."


class LastSlot(HomeError):
    """Nothing that works would be left to unlock the home area."""

    bus_name = HOMEMGR1_ERROR + "LastSlot"


class NoSuchSnapshot(HomeError):
    """The home area has no snapshot of this name."""

    bus_name = HOMEMGR1_ERROR + "NoSuchSnapshot"
    hint = "See `homemgr snapshot list` for the snapshots there are."


class AuthenticationLimitHit(HomeError):
    """Too many attempts to log in."""

    bus_name = HOME1 + "AuthenticationLimitHit"


# --- records ------------------------------------------------------------------------


class BadSignature(HomeError):
    """The user record is not signed by a key this machine accepts."""

    bus_name = HOME1 + "BadSignature"
    hint = "Accept the key of who signed it: homectl add-signing-key, or homemgr origins trust."
    #: PEM of the unknown key that made the signature, if the signature names it.
    public_key: str = ""


class RecordMismatch(HomeError):
    """The user record is not that of this home area."""

    bus_name = HOME1 + "RecordMismatch"


class RecordDowngrade(HomeError):
    """The user record is older than the one it should replace."""

    bus_name = HOME1 + "RecordDowngrade"
    hint = "Fetch the current record and apply the change to that."


class RecordSigned(HomeError):
    """The user record is signed by another machine and cannot be changed here."""

    bus_name = HOME1 + "RecordSigned"
    hint = "Change it on the machine that signed it."


class NoPrivateKey(HomeError):
    """This machine has no private key to sign records with."""

    bus_name = HOME1 + "NoPrivateKey"


class NoSuchKey(HomeError):
    """No signing key of this name is known."""

    bus_name = HOME1 + "NoSuchKey"


# --- space --------------------------------------------------------------------------


class NoDiskSpace(HomeError):
    """Not enough space on disk."""

    bus_name = HOME1 + "NoDiskSpace"
    hint = "Free some space; nothing was changed."


class BadHomeSize(HomeError):
    """The size is out of range for this home area."""

    bus_name = HOME1 + "BadHomeSize"


class RebalanceNotNeeded(HomeError):
    """No home area shares its space out by weight."""

    bus_name = HOME1 + "RebalanceNotNeeded"


# --- extensions -----------------------------------------------------------------------


class ExtensionNotUsable(HomeError):
    """The extension cannot be used."""

    bus_name = HOMEMGR1 + "ExtensionNotUsable"


class NoSuchExtension(ExtensionNotUsable):
    """No extension of this name is on this machine."""

    bus_name = HOMEMGR1 + "NoSuchExtension"
    hint = "See `homemgr extension list` for what there is."


class ExtensionDoesNotFit(ExtensionNotUsable):
    """The extension was made for another system."""

    bus_name = HOMEMGR1 + "ExtensionDoesNotFit"


class ExtensionDamaged(ExtensionNotUsable):
    """The extension is damaged."""

    bus_name = HOMEMGR1 + "ExtensionDamaged"
    hint = "Install it again; nothing was taken from it."


class ExtensionNotTrusted(ExtensionNotUsable):
    """The extension is not trusted on this machine."""

    bus_name = HOMEMGR1 + "ExtensionNotTrusted"


# --- transfers --------------------------------------------------------------------------


class StreamError(HomeError):
    """The data of a transfer are malformed, damaged, or not what was announced."""

    bus_name = HOMEMGR1_ERROR + "StreamError"
    hint = "Nothing was made of it; run the same command again, or fetch the export again."


class UntrustedOrigin(HomeError):
    """The home comes from a machine, or is signed by a key, that nobody accepted here yet."""

    bus_name = HOMEMGR1_ERROR + "UntrustedOrigin"
    hint = "Compare the fingerprints with those of the origin, then accept them with --trust."


class WrongReceiver(HomeError):
    """The home was sent to somebody else than who received it."""

    bus_name = HOMEMGR1_ERROR + "WrongReceiver"
    hint = "Nothing was made of it; let the machine that has the home send it here itself."


class AlteredContent(HomeError):
    """What arrived is not what its origin signed."""

    bus_name = HOMEMGR1_ERROR + "AlteredContent"
    hint = "Nothing was made of it; fetch it again from where it comes."


class HomeMoved(HomeError):
    """The home area was moved to another machine."""

    bus_name = HOMEMGR1_ERROR + "HomeMoved"
    hint = "Log in there, or take it back with `homemgr migrate --undo`."


class TransferBusy(HomeError):
    """Another transfer of this home area is under way."""

    bus_name = HOMEMGR1_ERROR + "TransferBusy"
    hint = "Wait for it, or continue it with the command that began it."


class TransferInterrupted(HomeError):
    """The transfer was cut off before its end."""

    bus_name = HOMEMGR1_ERROR + "TransferInterrupted"
    hint = "Run the same command again: it goes on where it was cut off."


# --- generic bus errors ---------------------------------------------------------------


class InvalidArgs(HomeError):
    """The request is malformed."""

    bus_name = DBUS + "InvalidArgs"


class InvalidRecord(InvalidArgs):
    """The user record is malformed; the message begins with the JSON path of the culprit."""


class UIDNotAllowed(HomeError):
    """The uid is outside what a home area may use."""

    bus_name = DBUS + "BadAddress"


class AccessDenied(HomeError):
    """The caller may not do this."""

    bus_name = DBUS + "AccessDenied"


class InteractiveAuthorizationRequired(HomeError):
    """An administrator has to confirm this."""

    bus_name = DBUS + "InteractiveAuthorizationRequired"


class NotSupported(HomeError):
    """This machine or file system cannot do it."""

    bus_name = DBUS + "NotSupported"


class FileNotFound(HomeError):
    """The file does not exist."""

    bus_name = DBUS + "FileNotFound"


class UnsafePath(HomeError):
    """The path could be changed by somebody who is not root."""

    bus_name = SYSTEM + "EPERM"
    hint = "Use a directory that only root can change, all the way from / down."


class HostileHome(HomeError):
    """The home area holds something that must not be there."""

    bus_name = SYSTEM + "EBADMSG"


class DamagedFileSystem(HomeError):
    """The file system in the image has errors that nobody mends without being asked."""

    bus_name = SYSTEM + "EUCLEAN"
    hint = (
        "Nothing was mounted: copy the image, attach the copy with its partitions (losetup), open"
        " the partition if it is encrypted (cryptsetup), and mend what is in it (e2fsck)."
    )


class PathExists(HomeError):
    """The target exists already."""

    bus_name = SYSTEM + "EEXIST"


class WorkerDied(HomeError):
    """The process that did the work died before it told how far it came."""

    hint = "See the log of the service; what was done is seen with `homemgr inspect`."


class SystemFailure(HomeError):
    """A system call failed; the wire name carries the errno, as sd-bus does it."""

    def __init__(self, error: OSError, doing: str = "") -> None:
        """Wrap ``error``; ``doing`` says what was attempted on which object."""
        # Where a program or the kernel said more about it, that is its text.
        text = (error.strerror or os.strerror(error.errno)) if error.errno else str(error)
        super().__init__(f"{doing}: {text}" if doing else text)
        self.number = error.errno or errno.EIO

    @property
    def wire_name(self) -> str:
        """``System.Error.EXXX`` for the wrapped errno."""
        return SYSTEM + errno.errorcode.get(self.number, "EIO")


def _subclasses(cls: type[HomeError]) -> list[type[HomeError]]:
    return [cls, *(s for c in cls.__subclasses__() for s in _subclasses(c))]


#: All failures by class name: how a worker's failure travels to the daemon.
BY_CLASS: dict[str, type[HomeError]] = {c.__name__: c for c in _subclasses(HomeError)}

#: First class declared for each D-Bus error name: how the command line finds advice.
BY_BUS_NAME: dict[str, type[HomeError]] = {
    c.bus_name: c for c in reversed(_subclasses(HomeError)) if c is not SystemFailure
}


def bus_name_of(error: HomeError) -> str:
    """The D-Bus error name to answer with."""
    return error.wire_name if isinstance(error, SystemFailure) else error.bus_name


def from_os_error(error: OSError, doing: str) -> HomeError:
    """Turn a failed system call into the answer for it: ``doing`` names the step and object."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _noted(NoDiskSpace(f"{doing}: {os.strerror(error.errno)}."), error)
    if error.errno == errno.EBUSY:
        return _noted(HomeBusy(f"{doing}: {os.strerror(error.errno)}."), error)
    return _noted(SystemFailure(error, doing), error)


def _noted(made: HomeError, error: OSError) -> HomeError:
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made


def with_notes(error: HomeError) -> str:
    """What a failure says, and what was noted on its way about where it was."""
    return " ".join((error.message, *(f"({note})" for note in getattr(error, "__notes__", ()))))
