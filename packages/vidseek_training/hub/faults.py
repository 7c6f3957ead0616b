"""What can go wrong with the model hub, as errors of ours, and the faults of its client as one of them.

    ConfigError
    ├── HubNameError           no name of a model
    ├── HubOffline             HF_HUB_OFFLINE forbids the network
    ├── HubNotFound            no such model, or a private one
    ├── HubRevisionNotFound    the model has no such branch, tag or commit
    ├── HubGated               its owner wants to be asked first, or the token does not reach it
    ├── HubWrongKind           something else than a backbone
    ├── HubNotCached           not in the local cache, and stages never fetch
    └── HubAddressError        HF_ENDPOINT or a proxy is set wrongly
    ServiceError
    ├── HubUnreachable         no network, no answer
    ├── HubCutOff              a transfer broke off, or gave other bytes than were listed
    ├── HubBusy                too many requests
    └── HubFailed              the hub says that it is broken, or answers what no hub answers
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Any

from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, VidseekError
from vidseek_media.output import disk_fault


class HubNameError(ConfigError):
    """The text is no name of a model."""

    code = "hub-name"


class HubOffline(ConfigError):
    """HF_HUB_OFFLINE forbids the network."""

    code = "hub-offline"


class HubNotFound(ConfigError):
    """The hub has no such model, or does not show it."""

    code = "hub-not-found"


class HubRevisionNotFound(ConfigError):
    """The model has no such branch, tag or commit."""

    code = "hub-revision-not-found"


class HubGated(ConfigError):
    """The files are given to those only whom the owner of the model let in."""

    code = "hub-gated"


class HubWrongKind(ConfigError):
    """The repository holds something else than a backbone that can be loaded."""

    code = "hub-wrong-kind"


class HubNotCached(ConfigError):
    """The model is not, or not whole, in the local cache."""

    code = "hub-not-cached"


class HubAddressError(ConfigError):
    """The address of the hub or of a proxy is set wrongly."""

    code = "hub-address"


class HubUnreachable(ServiceError):
    """No network, or no answer in time."""

    code = "hub-unreachable"


class HubCutOff(ServiceError):
    """A transfer broke off, or gave other bytes than the hub had listed."""

    code = "hub-cut-off"

    def __init__(self, message: str, *, remedy: str = "", is_of_xet: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.is_of_xet = is_of_xet
        """The storage behind the hub failed (Xet, other hosts than the hub's): the plain way may do."""


class HubBusy(ServiceError):
    """The hub asks for fewer requests."""

    code = "hub-busy"

    def __init__(self, message: str, *, remedy: str = "", wait_seconds: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.wait_seconds = wait_seconds
        """How long the hub asks to wait; None where it does not say."""


class HubFailed(ServiceError):
    """The hub reports an internal error, or the server is not a hub."""

    code = "hub-failed"

    def __init__(self, message: str, *, remedy: str = "", is_passing: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.is_passing = is_passing
        """Whether the hub says that it is broken for the moment: another try may do."""


AGAIN = "Run it again: what is here already is not fetched again"
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN"


def fault_of(error: BaseException, name: str, *, file: str = "", has_token: bool = False) -> VidseekError:
    """Convert an error of the hub's client. Knows every exception of huggingface_hub 2, httpx2 and hf_xet.

    Args:
        error: The client's error.
        name: Name of the model, as it was requested.
        file: The file that was fetched; empty if none was.
        has_token: Whether the request had a token, which changes the meaning of a refusal.
    """
    if isinstance(error, VidseekError):
        return error
    if (full := disk_fault(error)) is not None:
        full.remedy = "Make room, or set HF_HOME to a folder on another disk; then run it again"
        return full
    of = f"{name}, {file}" if file else name
    for each in (each for each in _causes(error) if not _is_wrapper(each)):
        found = _of_hub(each, name, of, has_token) or _of_http(each, of) or _of_transfer(each, of, file)
        if found is not None:
            return found
    return _of_system(error, of)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what it came of."""
    current: BaseException | None = error
    for _ in range(8):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _is_wrapper(error: BaseException) -> bool:
    """Whether the client only says that the cache does not have it either: the reason is what this came of."""
    from huggingface_hub import errors

    return isinstance(error, errors.LocalEntryNotFoundError | errors.RevisionResolutionError)


def _of_hub(error: BaseException, name: str, of: str, has_token: bool) -> VidseekError | None:
    """Faults that the hub itself tells of."""
    from huggingface_hub import errors

    match error:
        case errors.OfflineModeIsEnabled():
            return offline(name)
        case errors.GatedRepoError():
            return gated(name, has_token=has_token)
        case errors.DisabledRepoError():
            return HubNotFound(f"{name}: the hub has disabled this model", remedy="Choose another one")
        case errors.RepositoryNotFoundError() | errors.BucketNotFoundError():
            return not_found(name, has_token=has_token)
        case errors.RevisionNotFoundError():
            return HubRevisionNotFound(
                f"{name}: the model has no such revision", remedy="Name a branch, a tag or a commit that its page lists"
            )
        case errors.HfHubHTTPError():
            return _of_status(error, name, of, has_token)
        case errors.EntryNotFoundError():
            return HubFailed(f"{of}: the hub lists this file and does not have it", remedy=AGAIN)
        case errors.HFValidationError() | errors.HfUriError():
            return HubNameError(f"{name} is no name of a model: {_line(error)}", remedy="Name it as owner/name")
        case errors.LocalTokenNotFoundError():
            return gated(name, has_token=False)
        case errors.FileMetadataError():
            return HubFailed(
                f"{of}: what answers is no model hub: {_line(error)}",
                remedy="Look at HF_ENDPOINT, and at the proxy of this network",
            )
        case errors.XetDownloadError():
            return _of_xet(error, of)
    return None


def _of_status(error: Any, name: str, of: str, has_token: bool) -> VidseekError:
    """By the number of the answer. On a hub of one's own, 401 and 403 come without the hub's own code."""
    status, said = error.response.status_code, error.server_message or ""
    if status == 401 and has_token:
        return HubGated(f"{of}: the hub refuses the token (401): {said}", remedy="Log in again with `hf auth login`, "
                        "or take HF_TOKEN away: public models need none")
    if status in (401, 404):
        return not_found(name, has_token=has_token)
    if status == 403:
        return gated(name, has_token=has_token, said=said)
    if status == 429:
        return busy(of, wait_seconds=_wait_of(error.response.headers))
    if status in (408, 416) or status >= 500:
        return HubFailed(f"{of}: the hub answers {status}: {said or 'no reason given'}", remedy=f"Wait a while. {AGAIN}",
                         is_passing=True)
    return HubFailed(f"{of}: the hub refuses the request ({status}): {said or _line(error)}",
                     remedy="Look at the name, and at HF_ENDPOINT")


def _wait_of(headers: Any) -> int | None:
    """Return seconds to wait by `RateLimit` (the IETF's draft), or else by `Retry-After`; None where neither says so."""
    limit = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d{1,8})", headers.get("RateLimit") or "")
    if limit is not None:
        return int(limit[1])
    text = (headers.get("Retry-After") or "").strip()
    return int(text) if text.isdigit() and len(text) < 9 else None


def _of_http(error: BaseException, of: str) -> VidseekError | None:
    """Faults of the network, by httpx2."""
    import httpx2

    match error:
        case httpx2.ProxyError():
            return HubAddressError(f"{of}: the proxy does not let it through: {_line(error)}",
                                   remedy="Look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL() | httpx2.LocalProtocolError():
            return HubAddressError(f"{of}: the hub's address cannot be asked: {_line(error)}",
                                   remedy="Look at HF_ENDPOINT: it begins with https://")
        case httpx2.ConnectError() if _is_certificate(error):
            return HubAddressError(
                f"{of}: the hub's certificate is not trusted: {_line(error)}",
                remedy="Where a proxy of your network looks into connections, set SSL_CERT_FILE to its certificates",
            )
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return HubUnreachable(
                f"{of}: the hub ({_endpoint()}) cannot be reached: {_line(error)}",
                remedy="Look at the network and at HF_ENDPOINT; or copy the model's folder here by hand, and name it",
            )
        case httpx2.TimeoutException():
            return HubUnreachable(f"{of}: the hub does not answer in time: {_line(error)}",
                                  remedy=f"{AGAIN}; HF_HUB_DOWNLOAD_TIMEOUT=60 waits longer")
        case httpx2.NetworkError() | httpx2.ProtocolError() | httpx2.StreamError() | httpx2.TransportError():
            return HubCutOff(f"{of}: the transfer broke off: {_line(error)}", remedy=AGAIN)
        case httpx2.HTTPError():
            return HubFailed(f"{of}: what answers is no model hub: {_line(error)}", remedy="Look at HF_ENDPOINT")
    return None


def _of_transfer(error: BaseException, of: str, file: str) -> VidseekError | None:
    """Faults of a transfer that have no class of their own, and those of hf_xet: mostly a plain RuntimeError."""
    if type(error).__module__.split(".")[0] == "hf_xet" or (file and isinstance(error, RuntimeError)):
        return _of_xet(error, of)
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubCutOff(f"{of}: the transfer gave another number of bytes: {_line(error)}", remedy=AGAIN)
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return HubCutOff(f"{of}: the transfer broke off: {_line(error) or type(error).__name__}", remedy=AGAIN)
    return None


def _of_xet(error: BaseException, of: str) -> VidseekError:
    return HubCutOff(
        f"{of}: the hub's storage (Xet) does not give it: {_line(error)}",
        remedy=f"{AGAIN}; HF_HUB_DISABLE_XET=1 takes the plain way, where a firewall lets only the hub itself through",
        is_of_xet=True,
    )


def _of_system(error: BaseException, of: str) -> VidseekError:
    """Convert the remaining errors: the local disk, and answers that do not come from a hub."""
    if isinstance(error, OSError) and error.errno is not None:
        return ArtifactError(f"{of}: the local cache cannot be written: {_line(error)}", code="not-writable",
                             remedy="Mend its rights, or set HF_HOME to another folder")
    if _is_wrapper(error):
        return HubUnreachable(f"{of}: the hub cannot be reached: {_line(error)}", remedy="Look at the network")
    return HubFailed(
        f"{of}: {_endpoint()} gave what no model hub gives: {type(error).__name__}: {_line(error)}",
        remedy="Look at HF_ENDPOINT, and whether this network wants a log-in page first",
    )


def _is_certificate(error: BaseException) -> bool:
    """Whether a connection failed over TLS."""
    is_tls = any(isinstance(each, ssl.SSLError) for each in _causes(error))
    return is_tls or "CERTIFICATE" in str(error) or "SSL" in str(error)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _line(error: BaseException) -> str:
    """Return the message of an error in one line of bounded length."""
    return " ".join(str(error).split())[:400]


def offline(name: str) -> HubOffline:
    """HF_HUB_OFFLINE is set."""
    return HubOffline(
        f"{name} was to be fetched, and HF_HUB_OFFLINE=1 forbids the network",
        remedy=f"Where there is a network: `HF_HUB_OFFLINE=0 vidseek backbone fetch {name}`; in a checkout, "
               f"`make hub MODEL={name}`",
    )


def not_found(name: str, *, has_token: bool) -> HubNotFound:
    """Return the error for a missing or private model, which the hub does not distinguish.

    Args:
        name: Name of the model.
        has_token: Whether the request had a token.
    """
    if has_token:
        return HubNotFound(f"{name}: the hub has no such model, or your token does not reach it",
                           remedy="Look at the name, and at what the token may read")
    return HubNotFound(f"{name}: the hub has no such model, or it is private",
                       remedy=f"Look at the name. A private one: {_LOG_IN}")


def gated(name: str, *, has_token: bool, said: str = "") -> HubGated:
    """Return the error for a model whose owner must grant access first.

    Args:
        name: Name of the model.
        has_token: Whether the request had a token.
        said: Message of the hub.
    """
    why = f": {' '.join(said.split())[:300]}" if said else ""
    page = f"{_endpoint()}/{name.split('@')[0]}"
    then = "then run it again" if has_token else f"{_LOG_IN}, then run it again"
    return HubGated(f"{name} is gated: its files are given to those who were let in{why}",
                    remedy=f"Accept its terms on {page}; {then}")


def busy(of: str, *, wait_seconds: int | None) -> HubBusy:
    """Return the error for too many requests.

    Args:
        of: What was requested.
        wait_seconds: Time that the hub asks to wait; None if it states none.
    """
    wait = f"{wait_seconds} seconds" if wait_seconds is not None else "some minutes"
    return HubBusy(f"{of}: the hub wants fewer requests (429)", wait_seconds=wait_seconds,
                   remedy=f"Wait {wait}; who is logged in (`hf auth login`) may ask more. {AGAIN}")
