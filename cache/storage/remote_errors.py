"""What object stores answer, in plain words: which variable to set, which bucket is not there, what may pass."""

import errno
import os
import re

from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

from ..errors import PgMError, RunFailed, UserError

# What a refusal says -> what to do about it. None of these passes by itself.
REMEDIES = {
    "NoSuchBucket": "the bucket does not exist; check its name, the region and the endpoint (AWS_ENDPOINT_URL)",
    "169\\.254\\.169\\.254|metadata\\.google|Missing(Key| AccessKeyId| SecretAccessKey)": "no credentials were found; "
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SKIP_SIGNATURE=true for a public bucket), "
    "GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_KEY",
    "Account must be specified": "the account is not known; set AZURE_STORAGE_ACCOUNT_NAME",
    "without LOCATION|AuthorizationHeaderMalformed|PermanentRedirect": "it lies in another region; set AWS_REGION",
    "InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken": "the credentials are not valid; check AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
}
UNREACHABLE = "the endpoint does not answer; check the network and the endpoint (AWS_ENDPOINT_URL)"


def is_fleeting(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: a lost connection, a timeout, a server's 5xx."""
    return isinstance(error, GenericError) and remedy(error) is None and "status: 4" not in str(error)


def remedy(error: Exception) -> str | None:
    """What a user can do about it; None for what is not known."""
    return next((told for pattern, told in REMEDIES.items() if re.search(pattern, str(error))), None)


def explained(error: Exception, url: str) -> Exception:
    """The error to raise: FileNotFoundError stays one, a user's mistake says what to set, the rest may be run again."""
    if told := remedy(error):
        return UserError(f"{url}: {told}")
    if isinstance(error, FileNotFoundError):
        location = re.match(r"Object at location (.*?) not found", str(error))
        where = "/".join([*url.split("/")[:3], location[1]]) if location else url
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return UserError(f"{url}: access was denied; the credentials in the environment do not allow this request")
    if "kind: Connect" in str(error):
        return RunFailed(f"{url}: {UNREACHABLE}")
    return unavailable(error, url)


def unavailable(error: Exception, url: str) -> PgMError:
    """A server that kept failing."""
    return RunFailed(
        f"{url}: the object store kept failing ({first_line(error)}). What was finished is intact: run the same "
        "command again."
    )


def first_line(error: Exception) -> str:
    """What happened, without the client's internals."""
    return str(error).split("\n\nDebug source", 1)[0].splitlines()[0][:300]
