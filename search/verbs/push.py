"""Put a trained trial into a repository of the Hugging Face Hub, in one commit."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from search.downloads.hub import REPOSITORY
from search.terminal import bytes_text
from search.tracking.secrets import hide
from search.verbs.export import exported
from search.verbs.trained import Source
from tcpa_core.errors import ConfigError, StoppedError
from tcpa_core.training.trained_state import CARD, CONFIG

REFUSED = (401, 403)


def push(
    source: Source,
    repository: str,
    *,
    private: bool,
    format: str,
    weights: Path | None = None,
    grey_bits: int | None = None,
) -> Iterator[str]:
    """Export a trial, or take an exported folder, and upload it; a repository that is there gets a
    further commit.

    Args:
        repository: OWNER/NAME.
        private: Of a repository that is made; one that is there stays as it is.

    Yields:
        What to tell the user.

    Raises:
        ConfigError: The name cannot be one, the Hub refuses the user, or the trial cannot have the
            format.
        StoppedError: The Hub does not answer.
        TcpaError: The trial cannot be loaded.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"a repository of the Hub is OWNER/NAME, got {repository!r}.")
    disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="tcpa-") as folder:
        out = source.path
        notes: tuple[str, ...] = ()
        if not _is_exported(out):
            out = Path(folder) / repository.partition("/")[2]
            notes = exported(source, out, format=format, weights=weights, grey_bits=grey_bits).notes
        files = sorted(out.iterdir())
        try:
            api = HfApi()  # of HF_ENDPOINT, with the key of HF_TOKEN or of the login
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.create_commit(
                repository,
                [CommitOperationAdd(file.name, file) for file in files],
                commit_message=f"Trial {source.trial or source.path.name}",
            )
        except HfHubHTTPError as err:
            raise _refusal(repository, err) from err
        except Exception as err:  # those of the HTTP library that the Hub's client has
            raise StoppedError(
                f"the Hub does not answer ({type(err).__name__}: {hide(str(err))}); try again."
            ) from err
        size = bytes_text(sum(file.stat().st_size for file in files))
    yield f"{commit.commit_url}: {len(files)} files, {size}"
    yield from notes


def _is_exported(folder: Path) -> bool:
    """Whether it is given away as it is; its card is there."""
    return (folder / CARD).is_file() and (folder / CONFIG).is_file()


def _refusal(repository: str, err: HfHubHTTPError) -> Exception:
    code = getattr(err.response, "status_code", None)
    why = hide(str(err)).strip().splitlines()
    said = why[-1] if why else type(err).__name__
    if code in REFUSED:
        return ConfigError(
            f"the Hub refuses {repository} ({code}: {said}); log in with 'hf auth login' or set "
            f"HF_TOKEN to a key that may write there."
        )
    return StoppedError(f"the Hub answers {code} for {repository} ({said}); try again.")
