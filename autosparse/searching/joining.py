"""A Ray cluster of others: joined with its token where it asks for one, and left again.

The token is looked for where Ray looks: in `RAY_AUTH_TOKEN`, in the file that `RAY_AUTH_TOKEN_PATH`
names, in `~/.ray/auth_token`. A cluster is asked without one first: one that lets anybody in has no
need to be told a secret, and could not call back a process that asks for tokens itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autosparse.local_ray import own_terminate_handler, reread_environment  # sets what Ray reads first

# isort: split
import ray
from ray._private import services
from ray._raylet import AuthenticationTokenLoader, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from autosparse.errors import ConfigError, MissingDependency
from autosparse.searching.cluster import check_address

_MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"
_FILE = "RAY_AUTH_TOKEN_PATH"
# Of whoever listens at an address and never answers as a cluster does.
_PATIENCE = {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "2"}

_set_here: list[str] = []


def join(address: str | None) -> None:
    """Joins a cluster, with its token if it asks for one.

    Args:
        address: ``host:port``, or ``auto``.

    Raises:
        ConfigError: the address is none of a cluster, or it asks for another token than there is.
        MissingDependency: no cluster answers there.
    """
    check_address(address)
    try:
        _let_in(address)
        with own_terminate_handler():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConfigError, MissingDependency):
        leave()
        raise
    except Exception as error:  # Ray raises many kinds here; all mean that there is no Ray
        leave()
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingDependency(
            f"a Ray cluster must answer at {address}, but got: {words[-1]}; start one by `ray start "
            "--head`"
        ) from error


def leave() -> None:
    """Leaves the cluster that was joined; what was set for it in the environment goes."""
    ray.shutdown()
    while _set_here:
        os.environ.pop(_set_here.pop(), None)
    reread_environment()


def _let_in(address: str | None) -> None:
    """Finds out how a cluster lets this process in, and sees to it that Ray does so.

    Raises:
        ConfigError: it does not, or it lets anybody in although this process shall have a token.
        MissingDependency: it is no cluster.
    """
    mode = os.environ.get(_MODE, "").lower()
    at = services.canonicalize_bootstrap_address_or_die(address or "auto")
    if _is_let_in(at, "disabled"):
        if mode == "token":
            raise ConfigError(
                f"the Ray cluster at {address} must ask for a token where {_MODE} is token, but it "
                f"lets anybody in; leave {_MODE} out, or start the cluster with {_MODE}=token"
            )
        return
    if mode in ("", "token") and _has_token() and _is_let_in(at, "token"):
        if not mode:
            os.environ[_MODE] = "token"
            _set_here.append(_MODE)
        reread_environment()
        return
    raise ConfigError(
        f"the Ray cluster at {address} must be given its token, but got {_given()}; put what `ray "
        f"get-auth-token` prints on its head node into {_TOKEN}, into ~/.ray/auth_token, or into a "
        f"file that {_FILE} names"
        + (f", and leave {_MODE} out, which is {mode}" if mode not in ("", "token") else "")
    )


def _is_let_in(at: str, mode: str) -> bool:
    """Whether a cluster lets this process in.

    Args:
        at: the cluster's address.
        mode: as `RAY_AUTH_MODE`; for ``token`` there must be one, or else Ray ends this process.
    """
    try:
        with _environment({**_PATIENCE, _MODE: mode}), _silent():
            GcsClient(address=at)
    except AuthenticationError:
        return False
    except RayError as error:
        raise MissingDependency(
            f"a Ray cluster must answer at {at}, but what listens there does not speak as one does: "
            f"{error}; write the port that `ray start --head` said"
        ) from None
    return True


def _has_token() -> bool:
    """Whether there is a token.

    Raises:
        ConfigError: a file is named for it which cannot be read, or is empty.
    """
    try:
        found: bool = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:
        raise ConfigError(
            f"{_FILE} must name a file with a token, but got {os.environ.get(_FILE)!r}, which cannot "
            "be read or is empty; write into it what `ray get-auth-token` prints on the cluster's head"
        ) from None
    return found


def _given() -> str:
    """Says which token there is; never the token itself."""
    if not _has_token():
        return "none"
    if os.environ.get(_TOKEN):
        return f"another one, that of {_TOKEN}"
    if os.environ.get(_FILE):
        return f"another one, that in {os.environ[_FILE]}"
    return f"another one, that in {Path.home() / '.ray' / 'auth_token'}"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for Ray to read, and puts back what they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    reread_environment()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        reread_environment()


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what Ray's native part says of a refusal off this process's standard error."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
