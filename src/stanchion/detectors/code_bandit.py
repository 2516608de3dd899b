"""bandit's tests beside our own, where the package is installed. Its API is used; no process is started.

bandit is Apache-2.0 (PyCQA). Its severity and confidence become ours; its test id is the rule: `bandit.B602`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from importlib.util import find_spec

from stanchion.core.errors import MissingExtraError
from stanchion.core.finding import Severity
from stanchion.detectors.code_rules import CodeRule, Danger

_SEVERITY = {"LOW": Severity.LOW, "MEDIUM": Severity.MEDIUM, "HIGH": Severity.HIGH}
_SCORE = {"LOW": 0.3, "MEDIUM": 0.6, "HIGH": 0.8}
_UNDEFINED = 0.3


class Bandit:
    """bandit's default tests over one piece of Python.

    Raises:
        MissingExtraError: when it is not installed.
    """

    def __init__(self) -> None:
        if find_spec("bandit") is None:
            raise MissingExtraError("the option bandit of the code detector", "bandit")
        import bandit
        from bandit.core import config, meta_ast, metrics, test_set

        self.version = str(bandit.__version__)
        self._config = config.BanditConfig()
        self._tests = test_set.BanditTestSet(self._config)
        self._meta, self._metrics = meta_ast.BanditMetaAst(), metrics.Metrics
        self._lock = threading.Lock()

    def dangers(self, code: str) -> Iterator[Danger]:
        """What bandit finds, with the lines it names."""
        from bandit.core import node_visitor

        with self._lock:
            measured = self._metrics()
            measured.begin("answers/answer.py")
            visitor = node_visitor.BanditNodeVisitor(
                "answers/answer.py", io.BytesIO(code.encode()), self._meta, self._tests, False, {}, measured
            )
            try:
                visitor.process(code.encode())
            except (SyntaxError, RecursionError, ValueError):
                return
            issues = list(visitor.tester.results)
        starts = [0]
        for line in code.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        for issue in issues:
            first, last = min(issue.linerange or [issue.lineno]), max(issue.linerange or [issue.lineno])
            rule = CodeRule(
                id=f"bandit.{issue.test_id}",
                category="code.dangerous_call",
                severity=_SEVERITY.get(issue.severity, Severity.LOW),
                score=_SCORE.get(issue.severity, _UNDEFINED),
                cwe=f"CWE-{issue.cwe.id}",
                reason=issue.test,
            )
            start = starts[max(first - 1, 0)]
            yield Danger(rule, start, max(starts[min(last, len(starts) - 1)] - 1, start + 1), rule.score)
