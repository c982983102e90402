"""What lies beyond the machine: the hub and encoders fetched from it, credentials of object stores, Dask workers."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from huggingface_hub import constants, get_token

from ..cache.errors import PgMError
from ..pipeline.encoders.facts import location
from ..pipeline.encoders.presets import PRESETS
from ..workers import Workers
from .check import Check, fail, ok, warn

PATIENCE = 4.0  # seconds
PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")


def hub() -> Iterator[Check]:
    """Whether the hub answers, and which of the default encoders are here already."""
    wanted = list(PRESETS["paper"].sources.values())
    missing = [source for source in wanted if location(source) == ""]
    here = f"{len(wanted) - len(missing)} of {len(wanted)} default encoders are here"
    if not missing:
        yield ok("encoders", here)
    else:
        advice = f"On a machine with network: hf download {missing[0]} (and so on); or --encoders tiny to try without."
        yield warn("encoders", f"{here}, not {', '.join(missing)}", advice)
    token = "with a token" if get_token() else "no token"
    if constants.is_offline_mode():
        yield warn("hub", f"offline by HF_HUB_OFFLINE, {token}", "Unset it to fetch encoders.")
        return
    try:
        # A request that asks for nothing: any answer says that it can be reached.
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        pass
    except OSError as error:
        advice = "Encoders and datasets cannot be fetched: bring them by `hf download` elsewhere, and set HF_HOME."
        yield warn("hub", f"{constants.ENDPOINT} does not answer ({getattr(error, 'reason', error)}), {token}", advice)
        return
    yield ok("hub", f"{constants.ENDPOINT} answers, {token}")


def credentials() -> Check:
    """Which of the variables that object stores read are set; never what they say."""
    names = sorted(name for name in os.environ if name.startswith(PREFIXES))
    found = f"{', '.join(names)} set" if names else "no variable set; a machine's role is tried"
    return ok("object store", found)


def workers(scheduler: str | None) -> Iterator[Check]:
    """Whether Dask's workers come up here, or those of a running scheduler answer, with the same packages."""
    try:
        with Workers(1, scheduler=scheduler) if scheduler is None else Workers(scheduler=scheduler) as found:
            client = found.client
            client.wait_for_workers(1, timeout=20)
            threads = client.nthreads()
            mismatched = other_versions(client.get_versions())
    except (PgMError, OSError, TimeoutError) as error:
        advice = "Start workers by `dask worker ADDRESS`." if scheduler else "Extract with --workers 1 meanwhile."
        yield fail("Dask", f"{scheduler or 'a local worker'}: {error}", advice)
        return
    if mismatched:
        advice = "Install the same versions on all machines: bytes and numbers must not depend on the worker."
        yield fail("Dask", f"{len(threads)} workers answer, with other versions of {', '.join(mismatched)}", advice)
        return
    where = f"{len(threads)} workers at {scheduler} answer" if scheduler else "a local worker starts and answers"
    yield ok("Dask", where)


def other_versions(versions: dict[str, Any]) -> list[str]:
    """The packages that a worker has in another version than the client, of those Dask compares."""
    mine = versions["client"]["packages"]
    theirs = [worker["packages"] for worker in versions["workers"].values()]
    return sorted(name for name, found in mine.items() if any(other.get(name) != found for other in theirs))
