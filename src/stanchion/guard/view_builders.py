"""How a guard has the readings of a text made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from stanchion.core.finding import ViewSet
from stanchion.guard.policy_model import Policy

BuildViews = Callable[[str], ViewSet]


class Readings(NamedTuple):
    """What makes the readings of a text.

    `whole` those of one that is read whole, `frame` those of a frame of an answer; `again` those of a frame's
    text read whole, so that it is looked at once.
    """

    whole: BuildViews
    frame: BuildViews
    again: Callable[[Any], ViewSet]


def readings_for(policy: Policy, build_views: BuildViews | None = None) -> Readings:
    """The readings that the policy asks for; all by `build_views` where it is given.

    Letters are not turned in frames, whatever the policy asks.
    """
    from stanchion.detectors import incremental, views
    from stanchion.detectors.transforms.unfolding import ViewOptions

    if build_views is not None:
        return Readings(build_views, build_views, lambda frame: build_views(frame.original))
    options = ViewOptions(rot13=policy.views.rot13)
    return Readings(
        whole=lambda text: views.build_views(text, options=options),
        frame=incremental.WindowViews,
        again=lambda frame: views.build_views(frame.original, options=options, raw=frame.raw),
    )
