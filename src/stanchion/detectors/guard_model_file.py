"""How a guard model is asked and how its answer is read, as a file that people write and review."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stanchion.core.errors import UnknownNameError
from stanchion.core.resources import data_path, read_data_text
from stanchion.core.taxonomy import category
from stanchion.files.references import project_root, resolve_inside
from stanchion.files.schema import FieldError, FileModel, load_file, load_text

FOLDER = "guard_models"
_Words = Annotated[str, Field(min_length=1, max_length=20_000)]


def _known(name: str) -> str:
    try:
        category(name)
    except UnknownNameError as error:
        raise FieldError(error.message, hint=error.hint) from error
    return name


CategoryName = Annotated[str, AfterValidator(_known)]


class PromptPart(FileModel):
    """One message. Slots: `{text}`, `{question}`, `{risk}`, `{mark}`; `{{` and `}}` are braces."""

    role: Literal["system", "user", "assistant"]
    text: _Words


class Verdict(FileModel):
    """The form of the answer.

    `lines`: the word `safe`, or the word `unsafe` and on the next line codes with commas between them.
    `word`: the answer's only word is `safe` or `unsafe`. `score`: that word stands in `<score>`, after at
    most one `<think>`. `json`: an object with the keys `violation` (0 or 1, or a boolean) and `categories` (a
    list of codes).
    """

    form: Literal["lines", "word", "score", "json"]
    safe: str = "safe"
    unsafe: str = "unsafe"
    violation: str = "violation"
    categories: str = "categories"


class GuardModelFile(FileModel):
    """A whole file: `categories` for forms that name codes, `risks` (one question each) for the others."""

    guard_model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: Annotated[int, Field(ge=1)]
    source: str = ""
    user: Annotated[tuple[PromptPart, ...], Field(min_length=1)]
    answer: Annotated[tuple[PromptPart, ...], Field(min_length=1)]
    verdict: Verdict
    reserved: tuple[_Words, ...] = ()
    max_tokens: Annotated[int, Field(ge=1, le=10_000)] = 40
    categories: dict[str, CategoryName] = Field(default_factory=dict)
    risks: dict[str, CategoryName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        is_word = self.verdict.form in ("word", "score")
        if is_word is not bool(self.risks) or is_word is bool(self.categories):
            raise FieldError(
                f"the verdict's form is {self.verdict.form!r}.",
                hint="Give 'risks' with 'word' and 'score', and 'categories' with the others, not both.",
            )
        for name in ("user", "answer"):
            if sum("{text}" in part.text for part in getattr(self, name)) != 1:
                raise FieldError(f"'{name}' must hold the slot {{text}} in exactly one message.")
        return self


@lru_cache(maxsize=1)
def packaged_guard_models() -> tuple[str, ...]:
    """The names of the packaged configurations."""
    files = (entry.name for entry in data_path(FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def read_guard_model(name: str, *, base: Path | None = None) -> GuardModelFile:
    """A packaged configuration by name, or one by path (`.yaml`), relative to `base` and inside its project.

    Raises:
        UnknownNameError: when nothing is packaged under the name.
        FilesError: with every problem of the file.
        UsageError: for a file outside the project.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if base is not None:
            path = resolve_inside(name, folder=base, root=project_root(base / "policy.yaml"))
        return load_file(path, GuardModelFile).value
    if name not in packaged_guard_models():
        raise UnknownNameError("guard model", name, packaged_guard_models())
    file = f"{name}.yaml"
    return load_text(read_data_text(FOLDER, file), GuardModelFile, file=f"stanchion:{FOLDER}/{file}").value
