"""Run by `test_resume_after_kill`: an eval that writes to a run folder and may be killed at any moment.

    python killed_run.py FOLDER CASES [RESUME]

Answers are counted in FOLDER/asked, one line each, so that the test sees what was asked twice.
"""

import asyncio
import os
import sys
from pathlib import Path

from eval_doubles import FunctionTarget, numbered

from stanchion.evals.conditions import RunSettings
from stanchion.evals.pace import PaceSettings
from stanchion.evals.run_suite import Surroundings, run_suite
from stanchion.evals.runlog import RunFolder
from stanchion.evals.scorers.text import ExcludesScorer


def main(folder: Path, count: int, resume: str) -> None:
    asked = os.open(folder / "asked", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def answer(question: str) -> str:
        await asyncio.sleep(0)
        os.write(asked, f"{question}\n".encode())
        return "forbidden" if question.endswith("5") else "fine"

    settings = RunSettings(pace=PaceSettings(start=4, most=4))
    run = asyncio.run(
        run_suite(
            numbered(count),
            FunctionTarget(answer),
            scorers=(ExcludesScorer(),),
            around=Surroundings(runs=RunFolder(folder / "runs"), segment_bytes=60_000),
            settings=settings,
            resume=resume,
        )
    )
    print(run.summary.counts.total)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
