"""Names of models on the hub, with a revision or without, and why one cannot be had."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils.hub import cached_file

ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
PINNED = re.compile(rf"({ID.pattern})@([\w./-]+)")


class ModelNotFound(OSError):
    """A model that neither this machine nor the hub gives; the message says what was tried and what to do."""


def split(name: str) -> tuple[str, str | None]:
    """Hub id and revision of `id@revision`; of other names the name itself and None."""
    found = None if Path(name).exists() else PINNED.fullmatch(name)
    return (found[1], found[3]) if found else (name, None)


def pinned(name: str, revision: str | None) -> str:
    """The inverse of `split`; a directory has no revision."""
    return name if revision is None or Path(name).is_dir() else f"{name}@{revision}"


def commit(name: str) -> str | None:
    """The commit that a hub id stands for, asked of the hub or, without a connection, of the cache; None for paths.

    Raises:
        ModelNotFound: it cannot be had.
    """
    own, revision = split(name)
    if Path(name).exists() or not ID.fullmatch(own):
        return None
    with explained(name):
        file = cached_file(own, "config.json", revision=revision)
    found = re.search(r"/snapshots/([0-9a-f]{40})/", Path(str(file)).as_posix())
    return found[1] if found else None


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say of a model that cannot be had what was tried and what to do.

    Args:
        name: Hub id, with a revision or without; of paths nothing is said.

    Raises:
        ModelNotFound: instead of the hub client's own errors.
    """
    try:
        yield
    except ModelNotFound:
        raise
    except (OSError, HfHubHTTPError) as error:
        own, revision = split(name)
        if Path(name).exists() or not ID.fullmatch(own):
            raise
        raise ModelNotFound(_problem(error, own, revision)) from error


def _problem(error: Exception, name: str, revision: str | None) -> str:
    """What is wrong with a hub id, what was tried, and the remedy."""
    causes = list(_chain(error))
    what = repr(name) if revision is None else f"{name!r} at revision {revision!r}"
    download = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    tried = f"looked in {Path(constants.HF_HUB_CACHE)} and asked {constants.ENDPOINT}"
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        token = "the token in use has no access" if get_token() else "no token was given"
        return (
            f"model.name is the gated model {what}, and {token} ({tried}). Accept its terms on its page, then log in "
            "with `hf auth login` or set HF_TOKEN; or name a directory that holds it."
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return (
            f"model.revision should be a branch, tag or commit of {name!r}, found {revision!r}, which it does not have "
            f"({tried}). Correct it, or leave it out for the newest."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            f"model.name should be a model directory or a hub id, found {what}: there is no such directory, and the "
            f"hub has no such model or hides it ({tried}). Correct the name; for a private model log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if constants.HF_HUB_OFFLINE or any(_is_connection(cause) for cause in causes):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        return (
            f"model.name is {what}, which is no directory and not, or not whole, in {Path(constants.HF_HUB_CACHE)}, "
            f"and the hub was not asked: {why}. Run `{download}` where there is a connection and copy the result here, "
            "or name a directory that holds the model (a gated one needs `hf auth login` first)."
        )
    reason = " ".join(str(error).split())
    return (
        f"model.name should be a model directory or a hub id, found {what}: {reason.rstrip('.')} ({tried}). Correct "
        f"the name, or download the model first: `{download}`."
    )


def _is_connection(error: BaseException) -> bool:
    return type(error).__name__ in {"ConnectError", "ConnectTimeout", "ReadTimeout", "LocalEntryNotFoundError"}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
