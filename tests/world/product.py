"""What a box runs as its home service: the layers of each combination of daemon and distribution.

Knows how the project gets into a box: a wheel in a virtual environment of the box's own Python, as
an administrator would install it, then `homemgr setup`. Must not know how boxes boot.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

from .layer import REPOSITORY, Layer, cache_directory, debian_12, debian_sid, digest, one_at_a_time

PLACE = "/opt/homemgr"  # of the virtual environment in a box
BASES = {"debian12": debian_12, "sid": debian_sid}
PARTS_OF_WHEEL = ("homemgr", "units", "policy", "pyproject.toml", "README.md", "LICENSE")
PIP_TIMEOUT_S = 300

#: In the environment of a guest (guest.py), for each daemon and base: what a box lies on.
GIVEN = "HOMEMGR_TEST_LOWERS_{}_{}"


def lowers_of(daemon: str, base: str) -> list[str]:
    """What a box lies on, topmost first; in a guest, which cannot make it, what was made before."""
    given = os.environ.get(GIVEN.format(daemon, base))
    return given.split() if given else layers_of(daemon, base).lowers()


def given_to_guests() -> dict[str, str]:
    """What lies under boxes in there, where systemd-homed can have what encrypted volumes need."""
    given = {}
    for base, make in BASES.items():
        ours, theirs = (layers_of(daemon, base).lowers() for daemon in ("homemgr", "homed"))
        given[GIVEN.format("homemgr", base)] = " ".join(ours)
        given[GIVEN.format("homed", base)] = " ".join([with_volumes(make()).lowers()[0], *theirs])
    return given


@cache
def layers_of(daemon: str, base: str) -> Layer:
    """The topmost layer of a box: "homed", "homemgr", or "both" for homed with homemgr at hand."""
    below = BASES[base]()
    match daemon:
        case "homed":
            return reference(below)
        case "both":
            return installed(below)
        case "homemgr":
            return set_up(installed(below))
    raise ValueError(f"no such home service: {daemon}")


def reference(base: Layer) -> Layer:
    """systemd-homed as the distribution installs it, and sshd told of the keys it knows."""
    return Layer(
        name=f"homed-on-{base.name}",
        recipe="""
            printf '%s\\n' 'AuthorizedKeysCommand /usr/bin/userdbctl ssh-authorized-keys %u' \\
                'AuthorizedKeysCommandUser root' >/etc/ssh/sshd_config.d/50-userdb.conf
        """,
        above=(base,),
        on_host=base.on_host,
        size="64M",
    )


def with_volumes(base: Layer) -> Layer:
    """What systemd-homed needs for encrypted volumes, which it otherwise does without."""
    return Layer(
        name=f"volumes-on-{base.name}",
        recipe="""
            apt-get -q -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false update
            apt-get -q -y --no-install-recommends install libcryptsetup12 libfdisk1
            apt-get clean
            rm -rf /var/lib/apt/lists/*
        """,
        above=(base,),
        on_host=base.on_host,
        size="512M",
    )


def environment(base: Layer) -> Layer:
    """A virtual environment with what the project depends on; changes seldom."""
    version = python_version(base)
    needed = dependencies(version)
    wheels = download(needed, version)
    return Layer(
        name=f"environment-on-{base.name}",
        recipe=f"""
            /usr/bin/python3 -m venv {PLACE}
            tar -C /tmp -xf {_inside(wheels)}
            {PLACE}/bin/pip -q install --no-index --find-links /tmp/wheels {quoted(needed)}
        """,
        above=(base,),
        on_host=base.on_host,
        carries=(wheels,),
        size="512M",
    )


def installed(base: Layer) -> Layer:
    """The checkout as a wheel in that environment; nothing of the system changed yet."""
    below = environment(base)
    wheel = build_wheel()
    return Layer(
        name=f"homemgr-on-{base.name}",
        recipe=f"{PLACE}/bin/pip -q install --no-index --no-deps {_inside(wheel)}",
        above=(below, *below.above),
        on_host=base.on_host,
        carries=(wheel,),
        size="64M",
    )


def set_up(below: Layer) -> Layer:
    """The system told to use it."""
    return Layer(
        name=f"setup-of-{below.name}",
        recipe=f"{PLACE}/bin/homemgr setup",
        above=(below, *below.above),
        on_host=below.on_host,
        size="64M",
    )


def dependencies(version: str) -> list[str]:
    """What the project needs at run time on this version of Python; pip judges by its own."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    return sorted(
        f"{each.name}{each.specifier}"
        for each in requirements
        if each.marker is None or each.marker.evaluate(environment)
    )


def python_version(base: Layer) -> str:
    """The version of a base's own Python, looked up in its image without mounting it."""
    if base.on_host:
        return "3.11"  # Debian 12 has no other
    asked = subprocess.run(
        ["debugfs", "-R", "stat upper/usr/bin/python3", str(base.image())],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r'Fast link dest: "python(3\.\d+)"', asked.stdout)
    if found is None:
        raise RuntimeError(f"{base.name} has no python3: {asked.stdout}")
    return found[1]


def download(requirements: list[str], version: str) -> Path:
    """A tar archive of the wheels for one Python version; a box has no network to get them."""
    archive = cache_directory() / f"wheels-{digest(version, *requirements)}.tar"
    with one_at_a_time("wheels"), tempfile.TemporaryDirectory() as work:
        if not archive.exists():
            wheels = Path(work) / "wheels"
            options = ["--only-binary=:all:", "--python-version", version, "-d", str(wheels)]
            _pip("download", *options, *requirements)
            unfinished = shutil.make_archive(f"{work}/all", "tar", work, "wheels")
            shutil.move(unfinished, archive)
    return archive


def build_wheel() -> Path:
    """The project of this checkout, built from a copy so that nothing appears in the checkout."""
    wheel_cache = cache_directory() / f"project-{digest(*_content_of_project())}"
    with one_at_a_time("project"), tempfile.TemporaryDirectory() as work:
        if not wheel_cache.exists():
            source = Path(work) / "source"
            source.mkdir()
            (source / "README.md").touch()  # the build insists on one
            for part in PARTS_OF_WHEEL:
                _copy(REPOSITORY / part, source / part)
            _pip("wheel", "--no-deps", "-w", f"{work}/out", str(source))
            shutil.move(f"{work}/out", wheel_cache)
    return next(wheel_cache.glob("*.whl"))


def quoted(requirements: list[str]) -> str:
    """For the shell: requirements contain < and >."""
    return " ".join(f"'{requirement}'" for requirement in requirements)


def _inside(carried: Path) -> str:
    return f"/tmp/{carried.name}"


def _pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copy2(source, target)


def _content_of_project() -> list[str | bytes]:
    content: list[str | bytes] = []
    for part in PARTS_OF_WHEEL:
        top = REPOSITORY / part
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for found in files:
            if found.is_file() and "__pycache__" not in found.parts:
                content += [str(found.relative_to(REPOSITORY)), found.read_bytes()]
    return content
