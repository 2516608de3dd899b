"""How a guard has the readings of a text made."""

from __future__ import annotations

from collections.abc import Callable

from stanchion.core.finding import ViewSet
from stanchion.guard.policy_model import Policy

BuildViews = Callable[[str], ViewSet]


def view_builder(policy: Policy) -> BuildViews:
    """What makes the readings that the policy asks for, of texts that are read whole."""
    from stanchion.detectors.transforms.unfolding import ViewOptions
    from stanchion.detectors.views import build_views

    options = ViewOptions(rot13=policy.views.rot13)

    def build(text: str) -> ViewSet:
        views: ViewSet = build_views(text, options=options)
        return views

    return build


def build_frame_views(text: str) -> ViewSet:
    """The readings of a frame of an answer; letters are not turned there, whatever the policy asks."""
    from stanchion.detectors.incremental import WindowViews

    views: ViewSet = WindowViews(text)
    return views
