"""A system bus of our own: the policy of distributions, and the one we ship."""

from __future__ import annotations

import subprocess
from pathlib import Path

_POLICY = Path(__file__).resolve().parents[2] / "policy" / "org.homemgr.conf"

#: Users who may call the service, uids of homes among them.
STRANGERS = range(60111, 60121)

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus.Introspectable"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
    <allow own="org.freedesktop.login1"/>
    <allow send_destination="org.freedesktop.login1"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <include>{policy}</include>
</busconfig>
"""


class Bus:
    """A dbus-daemon; `close` ends it."""

    def __init__(self, directory: Path) -> None:
        """Start it; its socket is there when this returns."""
        directory.mkdir(exist_ok=True)
        path, configuration, passwd = (directory / name for name in ("bus", "bus.conf", "passwd"))
        self.address = f"unix:path={path}"
        configuration.write_text(_CONFIGURATION.format(socket=path, policy=_POLICY))
        # A bus talks to users with an account only. It alone shall know these: to the service
        # under test their names and uids are free.
        accounts = [f"stranger{uid}:x:{uid}:{uid}::/:/bin/false" for uid in STRANGERS]
        passwd.write_text("\n".join([Path("/etc/passwd").read_text().rstrip(), *accounts, ""]))
        script = 'mount --bind "$0" /etc/passwd && exec dbus-daemon "$@"'
        options = ["--nofork", "--nopidfile", "--print-address", f"--config-file={configuration}"]
        namespace = ["unshare", "--mount", "--propagation=private"]
        self._daemon = subprocess.Popen(
            [*namespace, "sh", "-c", script, str(passwd), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline()
        self._daemon.stdout.close()

    def close(self) -> None:
        """End the bus."""
        self._daemon.kill()
        self._daemon.wait()
