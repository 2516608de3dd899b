"""A safety folder to break in one place at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from stanchion.core.clock import ManualClock
from stanchion.detectors.registry import Registry
from stanchion.governance.checks import CheckReport, check_paths
from stanchion.governance.scaffold import plan_scaffold

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Folder:
    """A scaffolded safety folder with ways to change it and to check it."""

    def __init__(self, root: Path, profile: str = "saas") -> None:
        self.root = root
        self.path = root / "safety"
        self.feature = self.path / "features/assistant"
        plan_scaffold(root, profile=profile, feature="assistant", today=NOW.date()).write()

    def change(self, name: str, old: str, new: str) -> tuple[int, int]:
        """Replace the one place of a text in a feature's file, or one of the folder; gives its position."""
        path = self.feature / name if (self.feature / name).exists() else self.path / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old, text.count(old))
        offset = text.index(old)
        path.write_text(text.replace(old, new))
        return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1

    def check(self, *paths: Path) -> CheckReport:
        """The report on the whole folder, or on some paths."""
        return check_paths(paths or [self.path], clock=ManualClock(NOW), detectors=Registry().ids())

    def said(self) -> list[str]:
        """The problems as people read them, with paths from the feature's folder."""
        return [
            problem.render().replace(f"{self.feature}/", "").replace(f"{self.path}/", "")
            for problem in self.check().problems
        ]
