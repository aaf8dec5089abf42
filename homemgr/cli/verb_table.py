"""THE tables of the command line: its verbs, and the options that all of them understand.

One row per verb: its module below `homemgr.cli.verbs`, its words, what it does. The options
of a verb are a table in its module. Help, completion and manual pages are made of these.
"""

from __future__ import annotations

from homemgr.cli.arguments import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: Understood with every verb, wherever they stand.
COMMON = (
    Option("help", "h", "", "Show this help"),
    Option("version", "", "", "Show the version"),
    Option("no-pager", "", "", "Accepted for compatibility: output is never paged"),
    Option("no-legend", "", "", "Show no header and footer"),
    Option("no-ask-password", "", "", "Ask for nothing, neither passwords nor authorization"),
    Option("json", "", "pretty|short|off", "Print JSON"),
    Option("", "j", "", "Same as --json=pretty on a terminal, --json=short otherwise"),
    Option("host", "H", "[USER@]HOST", "Not built: run homemgr through ssh instead"),
    Option("machine", "M", "CONTAINER", "Not built: run homemgr inside the container instead"),
)


#: Modules of verbs that homectl does not have.
_OUR_OWN = frozenset(
    {"setup", "unsetup", "demo", "extension", "migrate", "export", "import_home", "convert"}
    | {"transfers", "origins", "transfer", "check", "repair", "slot", "usage"}
    | {"completion", "man", "apply", "snapshot"}
)


class Verb:
    """One row of the table of verbs: its module, its words, what it does."""

    __slots__ = ("exit_code", "fewest", "help", "module", "most", "usage")

    def __init__(self, module: str, words: tuple[int, int], usage: str, text: str) -> None:
        """``words`` is how few and how many words may follow the verb."""
        self.module = module
        self.fewest, self.most = words
        self.usage = usage
        self.help = text
        # homectl answers a wrong command line with 1; verbs of our own follow the custom.
        self.exit_code = 2 if module in _OUR_OWN else 1


#: As many words as anybody likes.
MANY = 1 << 20

VERBS = {
    "list": Verb("list", (0, 0), "", "List home areas"),
    "activate": Verb("activate", (1, MANY), "USER...", "Activate a home area"),
    "deactivate": Verb("deactivate", (1, MANY), "USER...", "Deactivate a home area"),
    "deactivate-all": Verb("deactivate_all", (0, 0), "", "Deactivate all active home areas"),
    "with": Verb("with_home", (1, MANY), "USER [COMMAND...]", "Run a command with a home area"),
    "authenticate": Verb("authenticate", (0, MANY), "[USER...]", "Check credentials"),
    "inspect": Verb("inspect", (0, MANY), "[USER...]", "Show a home area"),
    "create": Verb("create", (0, 1), "USER", "Create a home area"),
    "update": Verb("update", (0, 1), "[USER]", "Change a home area's user record"),
    "passwd": Verb("passwd", (0, 1), "[USER]", "Change the password of a home area"),
    "slot": Verb(
        "slot",
        (1, 3),
        "list|add|replace|remove|test USER [NAME]",
        "Passwords and recovery keys of a home area, by name",
    ),
    "snapshot": Verb(
        "snapshot",
        (1, MANY),
        "create|list|diff|restore|remove|mount|unmount USER [NAME]",
        "States of a home area that can be had again",
    ),
    "resize": Verb("resize", (1, 2), "USER [SIZE]", "Give a home area another size"),
    "usage": Verb("usage", (0, MANY), "[USER...]", "What home areas take of their disks"),
    "rebalance": Verb("rebalance", (0, 0), "", "Share free space out among home areas"),
    "lock": Verb("lock", (1, MANY), "USER...", "Make an active home area unreadable"),
    "unlock": Verb("unlock", (1, MANY), "USER...", "Make a locked home area readable again"),
    "lock-all": Verb("lock_all", (0, 0), "", "Lock all home areas that can be locked"),
    "remove": Verb("remove", (1, MANY), "USER...", "Remove a home area and its files"),
    "migrate": Verb(
        "migrate", (1, 2), "USER [[LOGIN@]HOST]", "Move a home area to another machine, or from one"
    ),
    "convert": Verb(
        "convert", (0, 1), "[USER]", "Give a home area another storage or place, or make one"
    ),
    "export": Verb("export", (2, 2), "USER FILE|-", "Write a home area to a file"),
    "import": Verb("import_home", (1, 1), "FILE|-", "Make a home area of an exported file"),
    "transfers": Verb(
        "transfers", (0, 2), "[list|forget USER]", "Home areas on their way, or gone"
    ),
    "origins": Verb(
        "origins", (0, 2), "[list|trust|forget FINGERPRINT]", "Machines that may send home areas"
    ),
    "transfer": Verb(
        "transfer", (2, 2), "receive|send USER", "The other end of migrate, run through ssh"
    ),
    "register": Verb("register", (0, MANY), "[FILE...]", "Register users by their records alone"),
    "unregister": Verb("unregister", (1, MANY), "USER...", "Forget users, leave their files alone"),
    "adopt": Verb("adopt", (1, MANY), "PATH...", "Take in home areas that lie on disk"),
    "list-signing-keys": Verb("list_signing_keys", (0, 0), "", "List keys that records count by"),
    "get-signing-key": Verb("get_signing_key", (0, MANY), "[NAME...]", "Print public signing keys"),
    "add-signing-key": Verb("add_signing_key", (0, MANY), "[FILE...]", "Accept a signing key"),
    "remove-signing-key": Verb(
        "remove_signing_key", (1, MANY), "NAME...", "Accept a signing key no longer"
    ),
    "check": Verb("check", (0, MANY), "[USER...]", "Look what is wrong with home areas"),
    "repair": Verb("repair", (0, MANY), "[USER...]", "Mend what is wrong with home areas"),
    "extension": Verb(
        "extension",
        (1, MANY),
        "list|status|enable|disable|refresh|diff|discard|trust|distrust [ARGUMENT...]",
        "Extensions merged into home areas",
    ),
    "apply": Verb(
        "apply",
        (1, MANY),
        "FILE...",
        "Make home areas as files declare them, print differences",
    ),
    "firstboot": Verb(
        "firstboot", (0, 0), "", "Make users of credentials, or ask for the first one"
    ),
    "completion": Verb(
        "completion", (1, 1), "bash|zsh|fish", "Print what completes command lines in a shell"
    ),
    "man": Verb("man", (0, 1), "[PAGE]", "Print a manual page, without PAGE that of homemgr"),
    "setup": Verb("setup", (0, 0), "", "Put units and policy in place, displace systemd-homed"),
    "unsetup": Verb("unsetup", (0, 0), "", "Take units and policy away, give systemd-homed back"),
    "demo": Verb("demo", (0, 0), "", "Show it all on a private bus, leave nothing behind"),
}


#: Modules of verbs that also work on an image, for what needs no running system.
_ON_IMAGES = frozenset(
    {"list", "inspect", "authenticate", "create", "update", "passwd", "remove", "apply", "check"}
    | {"repair", "register", "unregister", "adopt", "list_signing_keys", "get_signing_key"}
    | {"add_signing_key", "remove_signing_key"}
)
ROOT = Option("root", "", "DIR", "Work on the image whose root directory is DIR, without a service")


def options_of(verb: Verb) -> tuple[Option, ...]:
    """The options of a verb, without those of all."""
    own: tuple[Option, ...] = load(verb.module).OPTIONS
    return (*own, ROOT) if verb.module in _ON_IMAGES else own


def load(name: str) -> ModuleType:
    """The module of a verb: it has OPTIONS and run(arguments)."""
    # importlib would be one more module to load; the name comes from our own table.
    return __import__(f"homemgr.cli.verbs.{name}", fromlist=["run"])
