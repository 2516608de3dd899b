"""The section `notices` of a feature: what is added to its answers."""

from __future__ import annotations

from typing import Literal

import pydantic

from stanchion.files.schema import FileModel


class NoticesModel(FileModel):
    """What is added to a feature's answers; the words are the policy's, in its language."""

    disclosure: Literal["never", "first", "always"] = pydantic.Field(
        default="never", description="That an AI system speaks: in the first answer, or in all."
    )
    sources: bool = pydantic.Field(default=False, description="The names of the documents that were given.")
    uncertainty: bool = pydantic.Field(
        default=False, description="When a check could not confirm a part of the answer by its sources."
    )
