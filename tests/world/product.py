"""What a box runs as its home service: the layers of each combination of daemon and distribution.

Knows how the project gets into a box: a wheel in a virtual environment of the box's own Python, as
an administrator would install it, then `homemgr setup`. Must not know how boxes boot.
"""

from __future__ import annotations

from .layer import Layer, debian_12, debian_sid

# The drop-in that Debian's systemd-homed does not ship: sshd finds keys in the user database.
REFERENCE_SSHD = "/etc/ssh/sshd_config.d/50-userdb.conf"


def reference(base: Layer) -> Layer:
    """systemd-homed as the distribution installs it."""
    return Layer(
        name=f"homed-on-{base.name}",
        recipe=f"""
            printf '%s\\n' 'AuthorizedKeysCommand /usr/bin/userdbctl ssh-authorized-keys %u' \\
                'AuthorizedKeysCommandUser root' >{REFERENCE_SSHD}
        """,
        above=(base,),
        on_host=base.on_host,
        size="64M",
    )


BASES = {"debian12": debian_12, "sid": debian_sid}


def layers_of(daemon: str, base: str) -> Layer:
    """The topmost layer of a box."""
    below = BASES[base]()
    if daemon == "homed":
        return reference(below)
    raise ValueError(f"there is no world of {daemon} on {base}")
