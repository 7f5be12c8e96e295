"""`clm-detour push`: upload an arm's model to the hub. Without `--yes` nothing leaves the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from clm_detour.records.run_folder import RunFolder
from clm_detour.report.card import given_before, model_card, write_figure
from clm_detour.report.card.figure import FIGURE, Drawn, draw
from clm_detour.report.load import is_model, load_run
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write

TOKEN = "HF_TOKEN"


@dataclass(frozen=True)
class Upload:
    """The content of an upload: files with their sizes in bytes, and the card, which replaces README.md.

    Args:
        drawn: The figure that the card shows; None if it has none.
    """

    repository: str
    folder: Path
    files: dict[str, int]
    card: ModelCard
    drawn: Drawn | None = None


def plan_upload(
    run_dir: Path, arm: str, repository: str, metadata: Mapping[str, Any] | None = None
) -> Upload:
    """Check an upload and return what it would do.

    Args:
        metadata: Metadata of the card, such as `license`; values that are None are taken from the card beside
            the model.

    Raises:
        UserError: If the id of the repository is not valid, or the arm does not exist, has not finished or
            was not exported.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{repository} is not a valid repository id of the hub: {error}") from error
    if "/" not in repository:
        raise UserError(f"{repository} has no owner; write OWNER/{repository}.")
    run, folder = load_run(run_dir), RunFolder(run_dir)
    before = given_before(folder.model(arm) / "README.md")
    given = {key: value for key, value in (metadata or {}).items() if value is not None}
    drawn = draw(run)
    card = model_card(run, arm, repository, {**before, **given}, drawn)
    unfinished = [id for id in run.arms[arm] if not folder.phase(id).finished]
    if unfinished:
        raise UserError(
            f"Arm {arm} has not finished (phase {unfinished[0]}); run the recipe to its end first."
        )
    model = folder.model(arm)
    if not is_model(model):
        raise UserError(f"{model} holds no exported model; run the recipe to its end first.")
    files = {
        path.relative_to(model).as_posix(): path.stat().st_size
        for path in sorted(model.rglob("*"))
        if path.is_file() and path.name not in ("README.md", FIGURE)
    }
    made = {"README.md": len(str(card).encode()), **({FIGURE: len(drawn.png)} if drawn else {})}
    return Upload(repository, model, {**made, **files}, card, drawn)


def upload(planned: Upload, public: bool, api: HfApi | None = None) -> str:
    """Create the repository if it does not exist, upload, and return the repository's address.

    Args:
        public: Whether a new repository is public.
        api: The hub's API; by default with the token of the environment.

    Raises:
        UserError: If there is no token in the environment, or the hub refuses or cannot be reached.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(f"{TOKEN} is not set; set it to a token with write access.")
    write_figure(planned.folder, planned.drawn)
    with atomic_write(planned.folder / "README.md", "w") as file:
        file.write(str(planned.card))
    api = api or HfApi(token=token)
    with refusals(planned.repository, token):
        url = api.create_repo(planned.repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=planned.repository,
            folder_path=planned.folder,
            allow_patterns=list(planned.files),
            commit_message="Model and card by clm-detour",
        )
    return str(url)


@contextmanager
def refusals(repository: str, token: str) -> Iterator[None]:
    """Raise a UserError without the token for whatever the hub, its library or the network raises."""
    try:
        yield
    except (
        Exception
    ) as error:  # errors of the network have the types of the HTTP library that huggingface_hub uses
        words = getattr(error, "server_message", None) or str(error) or type(error).__name__
        reason = " ".join(words.replace(token, TOKEN).split()).rstrip(".")
        raise UserError(f"{repository} was not uploaded ({reason}); {remedy(error, repository)}.") from None


def remedy(error: Exception, repository: str) -> str:
    """Return what a person can do about an error."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    owner = repository.split("/", 1)[0]
    if status == 401:
        return f"set {TOKEN} to a valid token with write access"
    if status in (403, 404):
        return f"set {TOKEN} to a token that may write to {owner}, or choose another owner"
    if status == 400 or isinstance(error, ValueError):
        return "correct what the message names, for example with --license or --language, and push again"
    return "check whether the hub can be reached, and push again"
