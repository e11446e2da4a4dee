"""Errors of `datasets` and huggingface_hub about a data set, as DataErrors that name the cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from pricer.config import DataConfig
from pricer.errors import DataError, PricerError, causes_of, first_line
from pricer.redaction import hub_address

_LOGIN = "a private data set needs `hf auth login`, or HF_TOKEN"
_NETWORK = ("httpx", "httpcore", "httpcore2")


@contextmanager
def hub_problems(config: DataConfig) -> Iterator[None]:
    """Turn every error inside the block into a DataError about `config.source`."""
    try:
        yield
    except PricerError:
        raise
    except Exception as error:  # the network, the Hub and the file formats each have their own errors
        causes = list(causes_of(error))
        found = next((problem for cause in causes if (problem := _explain(cause, config))), None)
        raise found or DataError(f"the data set {config.source} cannot be read: {first_line(error)}") from None


def _explain(cause: BaseException, config: DataConfig) -> DataError | None:
    """The problem that one exception of a chain states, or None."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    repo, page = config.source, hub_address(f"datasets/{config.source}")
    hidden = DataError(f"there is no data set {repo} on the Hub, or this account may not see it", _LOGIN)
    known: dict[type[BaseException], DataError] = {
        errors.OfflineModeIsEnabled: DataError(
            f"{repo} is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)",
            "unset HF_HUB_OFFLINE, or set data.revision to a commit that was downloaded before",
        ),
        errors.GatedRepoError: DataError(  # before its base class
            f"{repo} is gated: its terms have to be accepted first", f"accept them on {page}, then `hf auth login`"
        ),
        errors.RepositoryNotFoundError: hidden,
        DatasetNotFoundError: hidden,
        errors.RevisionNotFoundError: DataError(f"{repo} has no revision {config.revision}", f"see {page}/tree/main"),
        errors.HFValidationError: DataError(f"{repo!r} cannot name a data set on the Hub", "data.source: USER/NAME"),
        errors.RemoteEntryNotFoundError: DataError(
            f"{repo} lacks a file that its card names: {first_line(cause)}", f"see {page}/tree/main"
        ),
    }
    for kind, problem in known.items():
        if isinstance(cause, kind):
            return problem
    return _explain_files(cause, repo, page) or _explain_network(cause, repo)


def _explain_files(cause: BaseException, repo: str, page: str) -> DataError | None:
    from huggingface_hub import constants

    if type(cause).__name__ == "EmptyDatasetError":
        return DataError(f"{repo} has no data files", f"see {page}/tree/main")
    if type(cause) is FileNotFoundError and cause.errno is None:  # by `datasets`, about a pattern
        lacking = first_line(cause).partition(" with any")[0].removeprefix("Unable to find ")
        return DataError(f"the card of {repo} names a file that is not there: {lacking}", f"see {page}/tree/main")
    if isinstance(cause, OSError) and cause.errno and cause.filename:
        return DataError(
            f"{constants.HF_HUB_CACHE}, which data of the Hub is downloaded to, cannot be written: {cause.strerror}",
            "set HF_HOME to a folder that can be written, and has room",
        )
    return None


def _explain_network(cause: BaseException, repo: str) -> DataError | None:
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(status, int):
        return DataError(f"the Hub answers {status} for {repo}: {first_line(cause)}", _LOGIN if status < 500 else "")
    if type(cause).__module__.partition(".")[0] in _NETWORK:
        return DataError(f"the Hub cannot be reached for {repo}: {first_line(cause)}", "is the network up?")
    return None
