"""buildah with a store of its own, in the cache: nothing of it is left outside, neither files nor mounts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from testbed.lab.progress import TestbedError, say

from . import archive

# Where builds in the image look for certificates, and what in the environment may name the machine's own bundle.
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Lines of a build that tell how far it is; the others matter only if it fails.
_PROGRESS = ("STEP ", "Downloading ", "Prepared ", "Installed ", "Bytecode ", "COMMIT ")
_INDEX_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")
# A container that runs a command carries the number of the process that started it.
_RUNNING = "falcon-run-"


def _is_running(container: str) -> bool:
    number = container.removeprefix(_RUNNING)
    return number != container and Path("/proc", number).exists()


class Buildah:
    """Builds Dockerfiles without privileges beyond root's, networks of its own or a daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder / "tmp"

    def clean(self) -> None:
        """Remove what an interrupted build left behind."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        listed = json.loads(self._run("containers", "--json").stdout) or []
        names = [container["containername"] for container in listed]
        if left := [name for name in names if not _is_running(name)]:
            self._run("rm", *left)
        if len(left) == len(names):
            shutil.rmtree(self._temporary)
            self._temporary.mkdir()

    def has(self, image: str) -> bool:
        """Say whether the store holds the image."""
        return self._run("images", "--quiet", image, check=False).returncode == 0

    def build(self, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str]) -> None:
        """Build a Dockerfile, showing what the build says."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        text = dockerfile.read_text()
        given = [name for name in _INDEX_VARIABLES if os.environ.get(name) and f"ARG {name}\n" in text]
        options += [f"--build-arg={name}={os.environ[name]}" for name in given]
        bundle = next((path for name in _CERTIFICATE_VARIABLES if (path := os.environ.get(name))), _CERTIFICATES)
        if Path(bundle).is_file():
            options.append(f"--volume={bundle}:{_CERTIFICATES}:ro")
        options += ["--pull-never", f"--tag={image}", f"--file={dockerfile}"]
        command = self._command("bud", *options, str(context))
        last: deque[str] = deque(maxlen=60)
        with subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line)
                if any(sign in line for sign in _PROGRESS):
                    say(f"  {line.strip()[:110]}")
        if process.returncode:
            raise TestbedError(f"{dockerfile} does not build:\n{''.join(last)}")

    def run(self, image: str, command: Sequence[str], mounts: Mapping[Path, str]) -> int:
        """Run a command in a container of the image, without a network but for loopback; return its exit status.

        It starts in the first of the mounts, which are read-only, and its container is gone afterwards.
        """
        container = f"{_RUNNING}{os.getpid()}"
        options = [f"--volume={path}:{place}:ro" for path, place in mounts.items()]
        options += [f"--workingdir={place}" for place in list(mounts.values())[:1]]
        self._run("from", "--pull-never", f"--name={container}", image)
        try:
            inside = shlex.join(self._command("run", *options, container, "--", *command))
            done = subprocess.run(
                ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {inside}"],
                env=self._environment,
                check=False,
            )
        finally:
            self._run("rm", container, check=False)
        return done.returncode

    def export(self, image: str, reference: str, path: Path, left_out: Mapping[str, int]) -> None:
        """Write the image as an OCI archive that names it `reference`, without the layers in `left_out`."""
        with tempfile.TemporaryDirectory(dir=self._temporary) as temporary:
            place = Path(temporary)
            if left_out:
                blobs = archive.pretend(place, left_out)
                self._run("push", "--quiet", image, f"oci:{place}")
                manifest = archive.manifest(place)
            else:
                # into an OCI layout buildah compresses, which takes minutes for 2.5 GB; into a directory it need not
                self._run("push", "--quiet", "--disable-compression", image, f"dir:{place}")
                blobs, manifest = place, (place / "manifest.json").read_bytes()
            archive.write(blobs, manifest, reference, path, left_out)

    def remove_others(self, repository: str, keep: str) -> None:
        """Remove the repository's images but one."""
        images = json.loads(self._run("images", "--json", f"--filter=reference={repository}").stdout)
        names = [name for image in images for name in image.get("names") or []]
        for name in names:
            if name.startswith(f"{repository}:") and name != keep:
                self._run("rmi", name, check=False)  # it stays while a command of another checkout runs in it

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._command(*arguments), env=self._environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise TestbedError(f"buildah {arguments[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return done

    def _command(self, *arguments: str) -> list[str]:
        # a mount namespace for each command: what it mounts goes when it ends, whichever way
        return ["unshare", "--mount", *self._buildah(self._driver), *arguments]

    def _buildah(self, driver: str) -> list[str]:
        places = [f"--root={self.folder / f'storage-{driver}'}", f"--runroot={self.folder / 'run'}"]
        return ["buildah", *places, f"--storage-driver={driver}"]

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self._temporary)}

    @cached_property
    def _driver(self) -> str:
        """Overlay where the file system below allows it; vfs copies every layer in full, but works everywhere."""
        if shutil.which("buildah") is None:
            raise TestbedError("buildah is not installed; testbed/packages installs it.")
        probe = ["unshare", "--mount", *self._buildah("overlay"), "info"]
        works = subprocess.run(probe, env=self._environment, capture_output=True, check=False).returncode == 0
        return "overlay" if works else "vfs"
