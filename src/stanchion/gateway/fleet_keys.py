"""What all replicas of a fleet share and none may change: one folder, mounted read-only into each.

```
FLEET_DIR/*.pem        the public keys that switches, keys and admissions are signed with
FLEET_DIR/key-pepper   the secret of the keyed hashes of virtual keys
FLEET_DIR/ids.key      the secret of keyed ids, and of what waits for people
```

Where a fleet's folder is set, only its public keys are trusted: neither the database nor a replica's own
state can bring in another one. The private key is never in it.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from stanchion.core.errors import UsageError
from stanchion.core.signatures import key_id, public_pem
from stanchion.gateway.control_keys import load_signing_key, write_private
from stanchion.gateway.key_state import Pepper, load_pepper, pepper_path

IDS_KEY_FILE = "ids.key"
PEPPER_FILE = "key-pepper"
_MAX_BYTES = 10_000


def export_fleet(state_dir: Path, folder: Path) -> list[Path]:
    """Write what the replicas need, made from this host's keys, which are made when absent; the files.

    Doing it again after `switch keys --new` adds the new public key; what is there stays.

    Raises:
        UsageError: when the folder holds another fleet's secrets, or cannot be written.
    """
    key = load_signing_key(state_dir).public_key()
    load_pepper(state_dir, create=True)
    ids = state_dir / IDS_KEY_FILE
    try:
        if not ids.exists():
            write_private(ids, secrets.token_hex(32).encode())
        wanted = {
            folder / f"{key_id(key)}.pem": public_pem(key),
            folder / PEPPER_FILE: pepper_path(state_dir).read_bytes(),
            folder / IDS_KEY_FILE: ids.read_bytes(),
        }
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, data in wanted.items():
            if not path.exists():
                write_private(path, data)
            elif path.read_bytes() != data:
                raise UsageError(
                    f"{path} is of another fleet: it is not what this host has.",
                    hint="Choose another folder, or export from the host that made this one.",
                )
    except OSError as error:
        raise UsageError(f"the fleet's folder {folder} cannot be written: {error.strerror}.") from error
    return list(wanted)


def fleet_pepper(folder: Path) -> Pepper:
    """The pepper of the fleet.

    Raises:
        UsageError: when it is not there, cannot be read, or others can read it.
    """
    try:
        return Pepper(bytes.fromhex(read_secret(folder / PEPPER_FILE).decode("ascii").strip()))
    except ValueError as error:
        raise UsageError(f"the pepper in {folder} is no hexadecimal number.") from error


def read_secret(path: Path) -> bytes:
    """A secret of the fleet, which its group may read as mounted secrets are, and nobody else.

    Raises:
        UsageError: when it is not there, cannot be read, or everybody can read it.
    """
    try:
        if stat.S_IMODE(os.stat(path).st_mode) & stat.S_IRWXO:
            raise UsageError(f"{path} can be read by everybody.", hint=f"Make it private: chmod 440 {path}")
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Make it where the admin plane runs: stanchion switch keys --export FOLDER",
        ) from error
