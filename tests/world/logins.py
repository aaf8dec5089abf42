"""Every way into a machine that a person has: ssh in its methods, su, login, PAM itself, passwd.

Each returns what the person saw and the exit code. Knows how to drive the programs; must not judge
what came out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .terminal import Terminal

if TYPE_CHECKING:
    from .box import Box, Result

# Any prompt for the password that opens an account, of PAM modules and the fallback shell.
PASSWORD_PROMPT = r"(?:P|p)assword[^\n]{0,40}: (\(press TAB for no echo\) )?$"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

SSH = (
    *("ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null", "-o", "ServerAliveInterval=20"),
    *("-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=20"),
)
WRONG_PASSWORD = 5  # exit code of sshpass


def ssh(
    box: Box,
    user: str,
    password: str,
    command: str = "true",
    *,
    method: str = "password",
    check: bool = True,
    timeout: float = 60,
) -> Result:
    """One ssh connection with a password; `method` is password or keyboard-interactive."""
    argv = [*SSH, "-o", f"PreferredAuthentications={method}", f"{user}@localhost", command]
    return box.run(
        ["sshpass", "-e", *argv], env={"SSHPASS": password}, check=check, timeout=timeout
    )


def ssh_with_key(
    box: Box, user: str, key: str, command: str = "true", *, check: bool = True
) -> Result:
    """One ssh connection that offers nothing but a key."""
    only = ["-o", "PreferredAuthentications=publickey", "-o", "IdentitiesOnly=yes", "-i", key]
    return box.run([*SSH, *only, f"{user}@localhost", command], check=check)


def ssh_on_terminal(
    box: Box, user: str, *arguments: str, method: str = "password", command: str = ""
) -> Terminal:
    """An interactive ssh; the caller types."""
    argv = [*SSH, "-tt", "-o", f"PreferredAuthentications={method}", *arguments]
    return Terminal(box, [*argv, f"{user}@localhost", *([command] if command else [])])


def su(box: Box, user: str, password: str, command: str) -> Result:
    """`su -` from an unprivileged user, who is asked for the password."""
    with Terminal(box, [*NOBODY, "su", "-", user, "-c", command]) as terminal:
        terminal.answer(PASSWORD_PROMPT, password)
        return terminal.finish()


def login(box: Box, user: str, password: str, command: str) -> Result:
    """A console login: name, password, one command at the shell's prompt, exit."""
    with Terminal(box, ["login"]) as terminal:
        terminal.answer(r"login: $", user)
        terminal.answer(PASSWORD_PROMPT, password)
        terminal.answer(r"[$#] $", f"{command}; exit")
        return terminal.finish()


def pamtester(
    box: Box, user: str, password: str, *operations: str, service: str = "login"
) -> Result:
    """PAM without a login program around it; the password is answered to every question."""
    return box.run(
        ["pamtester", service, user, *operations], stdin=f"{password}\n" * 5, check=False
    )


def passwd(box: Box, user: str, old: str, new: str) -> Result:
    """The user changes the own password with passwd."""
    with Terminal(box, ["passwd"], user=user) as terminal:
        terminal.answer(r"(?i)new password[^\n]*: ?$", new)
        terminal.answer(r"(?i)(repeat|retype|again)[^\n]*: ?$", new)
        terminal.answer(PASSWORD_PROMPT, old)
        return terminal.finish()
