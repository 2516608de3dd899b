"""Speed and quality beside tools for the same job, in one run on the same texts.

    python bench/detection/peers.py --environment FOLDER [--install] [--format json] [--rows 400]

The peers live in environments of their own under FOLDER (`peers.txt` and `peers-gorget.txt` name the
versions); `--install` makes what is missing and needs a package index once. Without them the run says so and
ends.

Speed is CPU time of one call on texts of 500 B, p50, each tool in a process of its own, one after the other.
`over stanchion` is the peer's time over that of Stanchion's detectors for the same job: `pii` beside
Presidio's pattern recognisers, `secrets` beside the others, both together beside Presidio with
detect-secrets. Ours includes the views, so disguised and encoded text is read; the peers read the text as it
stands.

Quality is by row: a row counts as found when anything is reported in it. Both tools of a job read the same
rows; Presidio is shown at its own default (any score) and at 0.5. Its context words need a language model and
are off; the others run with their defaults.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from figures import Source, detector, read_source
from obfuscation import drawn
from speed import texts

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.views import build_views
from stanchion.stats.intervals import wilson

HERE = Path(__file__).parent
ENVIRONMENTS = {
    "peers": ("peers.txt", ("presidio", "detect-secrets", "openai-guardrails")),
    "gorget": ("peers-gorget.txt", ("gorget",)),
}
JOBS = {
    "presidio": ("pii",),
    "detect-secrets": ("secrets",),
    "openai-guardrails": ("secrets",),
    "gorget": ("secrets",),
}
SOURCES = {
    "pii": (
        "pii/presidio_templates_b.dev.jsonl", "pii/lookalikes_b.dev.jsonl", "benign/clinc150.dev.jsonl.gz",
    ),
    "secrets": (
        "secrets/gitleaks_rule_samples.dev.jsonl.gz", "secrets/synthetic.train.jsonl.gz",
        "benign/clinc150.dev.jsonl.gz",
    ),
}  # fmt: skip
STRUCTURED = {"EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "PHONE_NUMBER"}
PERSONAL = (
    "Reach me at anna.petrov@example.org or +44 20 7946 0958, card 4111 1111 1111 1111. ",
    "Her IBAN is DE89 3704 0044 0532 0130 00 and the server is 192.0.2.44. ",
)


def environment(folder: Path, name: str, *, install: bool) -> Path | None:
    """The Python of an environment, made first if asked; None when it is not there."""
    python = folder / name / "bin" / "python"
    if not python.exists() and install:
        venv.create(folder / name, with_pip=True)
        listed = str(HERE / ENVIRONMENTS[name][0])
        command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", listed]
        if subprocess.run(command, check=False).returncode:
            print(f"{name}: the packages of {listed} could not be installed", file=sys.stderr)
    return python if python.exists() else None


def ask(python: Path, peer: str, request: dict[str, Any]) -> dict[str, Any] | str:
    """The worker's answer, or why there is none."""
    command = [str(python), str(HERE / "workers" / "peer.py"), peer]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"the worker ended with {done.returncode}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def ours(names: tuple[str, ...]) -> Callable[[str], float]:
    """The best score of the named detectors, views included."""
    made = [detector(name) for name in names]

    def check(text: str) -> float:
        given = DetectorInput(view_set=build_views(text), origin=Origin.UNKNOWN)
        return max((f.score for one in made for f in one.detect(given)), default=0.0)

    return check


def timed(check: Callable[[str], float], samples: list[str], repeat: int) -> float:
    """CPU microseconds of a call, p50; the same loop as the worker's."""
    for sample in samples:
        check(sample)
    taken = []
    for _ in range(repeat):
        for sample in samples:
            started = time.process_time_ns()
            check(sample)
            taken.append((time.process_time_ns() - started) / 1000)
    return statistics.median(taken)


def speed_texts() -> dict[str, list[str]]:
    """Texts of 500 B: prose, prose with words that patterns look for, and prose with personal data in it."""
    plain = texts("prose", 500, 40)
    personal = [PERSONAL[n % 2] + text[: 500 - len(PERSONAL[n % 2])] for n, text in enumerate(plain)]
    return {"prose": plain, "keywords": texts("keywords", 500, 40), "personal": personal}


def rows_of(source: Source, count: int) -> list[dict[str, Any]]:
    """Rows with what a tool without a language model can find, and harmless ones."""
    wanted = []
    for row in source.rows:
        kinds = {span["type"] for span in row.get("meta", {}).get("spans", []) if "type" in span}
        if row["label"] == 0 or not source.name.startswith("pii/") or kinds & STRUCTURED:
            wanted.append(row)
    kept = Source(source.name, source.digest, wanted)
    return [*drawn(kept, 1, count), *drawn(kept, 0, count)]


def quality(
    job: str, rows: dict[str, list[dict[str, Any]]], scores: dict[str, list[float]], least: float
) -> Iterator[dict[str, Any]]:
    for name in SOURCES[job]:
        for label, measure in ((1, "recall"), (0, "false alarms")):
            fired = [
                score >= least if least else score > 0
                for row, score in zip(rows[name], scores[name], strict=True)
                if row["label"] == label
            ]
            if fired:
                found = wilson(sum(fired), len(fired))
                yield {
                    "job": job, "source": name, "measure": measure, "k": sum(fired), "n": len(fired),
                    "rate": sum(fired) / len(fired), "low": found.low, "high": found.high,
                }  # fmt: skip


def measure(folder: Path, data: Path, *, install: bool, count: int, repeat: int) -> dict[str, Any]:
    samples = speed_texts()
    names = sorted({name for of_job in SOURCES.values() for name in of_job})
    sources = {name: read_source(data, name) for name in names}
    rows = {name: rows_of(source, count) for name, source in sources.items()}
    request = {
        "speed": samples, "repeat": repeat,
        "rows": {name: [row["text"] for row in found] for name, found in rows.items()},
    }  # fmt: skip
    mine: dict[str, Any] = {}
    for job in (("pii",), ("secrets",), ("pii", "secrets")):
        check = ours(job)
        scores = {name: [check(text) for text in found] for name, found in request["rows"].items()}
        mine["+".join(job)] = {
            "version": [detector(name).version for name in job],
            "cpu_us": {kind: timed(check, found, repeat) for kind, found in samples.items()},
            "quality": list(quality(job[0], rows, scores, 0.5)) if len(job) == 1 else [],
        }
    answers, skipped = {}, {}
    for name, (_, peers) in ENVIRONMENTS.items():
        python = environment(folder, name, install=install)
        for peer in peers:
            answer = ask(python, peer, request) if python else f"{folder / name} is absent; try --install"
            if isinstance(answer, str):
                skipped[peer] = answer
            else:
                answer["quality"] = {
                    str(least): list(quality(JOBS[peer][0], rows, answer["scores"], least))
                    for least in ((0.0, 0.5) if peer == "presidio" else (0.0,))
                }
                answers[peer] = answer
    digests = {name: source.digest or source.absent for name, source in sources.items()}
    return {"ours": mine, "peers": answers, "skipped": skipped, "digests": digests, "rows": count}


def show(result: dict[str, Any]) -> None:
    mine, peers = result["ours"], result["peers"]
    print(f"{'500 B, CPU us, p50':<34}{'prose':>10}{'keywords':>10}{'personal':>10}")
    for name, row in mine.items():
        print(f"{'stanchion ' + name:<34}" + "".join(f"{value:>10.1f}" for value in row["cpu_us"].values()))
    lines = [(peer, row["cpu_us"], "+".join(JOBS[peer])) for peer, row in peers.items()]
    if {"presidio", "detect-secrets"} <= peers.keys():
        both = {k: v + peers["detect-secrets"]["cpu_us"][k] for k, v in peers["presidio"]["cpu_us"].items()}
        lines.append(("presidio + detect-secrets", both, "pii+secrets"))
    for peer, taken, job in lines:
        print(f"{peer:<34}" + "".join(f"{value:>10.1f}" for value in taken.values()))
        ratios = "".join(f"{value / mine[job]['cpu_us'][kind]:>10.1f}" for kind, value in taken.items())
        print(f"{'  over stanchion ' + job:<34}{ratios}")
    print(f"\n{'quality by row':<30}{'source':<46}{'measure':<14}{'k of n':>12}{'rate':>9}  95 %")
    entries = [(f"stanchion {job}, 0.5", line) for job, row in mine.items() for line in row["quality"]]
    for peer, row in peers.items():
        for least, lines_of in row["quality"].items():
            entries += [(f"{peer}, {least if float(least) else 'any'}", line) for line in lines_of]
    for who, line in sorted(entries, key=lambda e: (e[1]["job"], e[1]["source"], e[1]["measure"], e[0])):
        count = f"{line['k']} of {line['n']}"
        print(
            f"{who:<30}{line['source']:<46}{line['measure']:<14}{count:>12}{line['rate']:>9.1%}"
            f"  {line['low']:.1%} to {line['high']:.1%}"
        )
    print()
    for job, row in mine.items():
        print(f"stanchion {job}: {', '.join(row['version'])}")
    for peer, row in peers.items():
        print(f"{peer} {row['version']}: {', '.join(row['parts'])}")
    for peer, why in result["skipped"].items():
        print(f"skipped: {peer}: {why}")
    for name, digest in result["digests"].items():
        print(f"  {digest}  {name}, at most {result['rows']} rows of a label")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--environment", type=Path, help="the folder of the peers' environments")
    parser.add_argument("--install", action="store_true", help="make what is missing; needs a package index")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--data", type=Path, default=HERE.parents[1].parent / "shared" / "data")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if options.environment is None:
        print(
            "skipped: the peers are not installed; name a folder for them with --environment, and --install."
        )
        return 0
    result = measure(
        options.environment, options.data, install=options.install, count=options.rows, repeat=options.repeat
    )
    if options.format == "json":
        json.dump(
            {**result, "peers": {k: {**v, "scores": None} for k, v in result["peers"].items()}}, sys.stdout
        )
        print()
    else:
        show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
