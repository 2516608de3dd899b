"""Dangerous calls in Python by its syntax tree: names resolved, arguments looked at, flows noticed.

Parsing is the standard library's; the code is never run. Size and depth are bounded; what
does not parse is read line by line or as tokens by the caller.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

from stanchion.core.finding import Severity
from stanchion.detectors.code_names import Names
from stanchion.detectors.code_rules import CodeRule, Danger, code_rules, token_dangers
from stanchion.detectors.code_tokens import strip

LARGEST = 200_000  # characters of one piece of Python
_MOST_STEPS = 10
_REFERENCE = ast.Call | ast.Name
_FILE, _WEAK = 0.7, 0.4  # how plainly something holds credentials
_HALF = 0.5  # what a call with written-out arguments counts, of the rule's score
_PARSING = threading.Lock()  # warnings of a parse are silenced for the whole process while it runs
_SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"})
_SQL = re.compile(
    r"\s*(?:select\b.+\bfrom\b|insert\s+into\b|update\b.+\bset\b|delete\s+from\b|drop\s|alter\s|create\s)",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_FILE = re.compile(
    r"(?:\.ssh/|id_rsa|id_ed25519|\.aws/|/etc/shadow|/etc/passwd|\.env$|\.netrc|\.kube/config|"
    r"\.git-credentials|Login Data|wallet\.dat|cookies\.sqlite|/proc/self/environ)"
)
_SENDING = frozenset(
    [
        "requests.post",
        "requests.put",
        "requests.patch",
        "requests.request",
        "requests.get",
        "httpx.post",
        "httpx.put",
        "httpx.get",
        "urllib.request.urlopen",
        "urllib.request.Request",
        "urllib2.urlopen",
        "http.client.HTTPSConnection",
        "smtplib.SMTP",
        "http.client.HTTPConnection",
        "socket.create_connection",
        "socket.socket",
        "aiohttp.ClientSession",
        "ftplib.FTP",
        "boto3.client",
        "smtplib.SMTP_SSL",
        "websocket.create_connection",
        "paramiko.SSHClient",
    ]
)
_FETCHING = frozenset(
    [
        "requests.get",
        "requests.post",
        "httpx.get",
        "urllib.request.urlopen",
        "urllib.request.urlretrieve",
        "urllib2.urlopen",
        "wget.download",
        "requests.request",
        "http.client.HTTPSConnection",
        "socket.socket",
    ]
)
_DECODING = frozenset(
    [
        "base64.b64decode",
        "base64.b32decode",
        "base64.b85decode",
        "base64.a85decode",
        "codecs.decode",
        "zlib.decompress",
        "bytes.fromhex",
        "binascii.unhexlify",
        "marshal.loads",
        "gzip.decompress",
        "lzma.decompress",
    ]
)
_RUNNING = frozenset(
    [
        "os.system",
        "os.startfile",
        "os.popen",
        "os.execv",
        "subprocess.run",
        "subprocess.Popen",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
    ]
)
_SAVING = frozenset({"urllib.request.urlretrieve", "wget.download"})
_EXECUTING = frozenset(
    ["execute", "executemany", "executescript", "raw", "text", "read_sql", "read_sql_query"]
)
_ESCAPES = frozenset({"__subclasses__", "__globals__", "__builtins__", "__mro__", "__code__", "f_globals"})
_SHELLS = frozenset(
    ["sh", "bash", "zsh", "dash", "/bin/sh", "/bin/bash", "cmd", "cmd.exe", "powershell", "pwsh"]
)
_PATHS = frozenset({"open", "io.open", "pathlib.Path", "os.path.expanduser", "os.path.join"})
_DUMPS = frozenset({"dict", "str", "repr", "list", "json.dumps", "os.environ.copy", "os.environ.items"})
_SYSTEM_PLACES = re.compile(
    r"(?:/|~|/(?:etc|usr|var|bin|home|root|boot|lib|opt)/?|[A-Za-z]:\\?(?:Windows.*)?|\.|\*)\Z"
)


def parse(code: str) -> ast.Module | None:
    """The tree, or None where the code does not parse, is too large or too deep."""
    if len(code) > LARGEST:
        return None
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def python_dangers(code: str, tree: ast.Module) -> list[Danger]:
    """What is dangerous in parsed Python, in order of place."""
    nodes = list(ast.walk(tree))
    return sorted(_Reader(code, nodes).dangers(), key=lambda danger: (danger.start, danger.rule.id))


class _Reader:
    """One pass over one module."""

    def __init__(self, code: str, nodes: Sequence[ast.AST]) -> None:
        self._nodes = nodes
        self._names = Names(nodes)
        self._starts = _line_starts(code)
        self._lines = code.split("\n")
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        self._calls = [(node, self._names.meaning(node.func)) for node in calls]

    def dangers(self) -> Iterator[Danger]:
        for node, name in self._calls:
            yield from self._of_call(node, name)
        for each in self._nodes:
            yield from self._of_node(each)
        yield from self._flows()

    def _of_call(self, node: ast.Call, name: str) -> Iterator[Danger]:
        for rule in code_rules().calls.get(name, ()):
            score = _WHEN[rule.when](self, node, rule.score)
            if score > 0:
                yield self._danger(rule, node, score)
        is_query = isinstance(node.func, ast.Attribute) and node.func.attr in _EXECUTING
        if is_query and node.args and self._is_sql_from_data(node.args[0]):
            yield self._made("sql", node)
        if name in _RUNNING or name in ("eval", "exec"):
            yield from self._of_argument(node, name)
        yield from self._of_keywords(node, name)

    def _of_argument(self, node: ast.Call, name: str) -> Iterator[Danger]:
        """What the first argument holds: a download, something decoded, or a command for a shell."""
        if not node.args:
            return
        origins = {self._names.meaning(n) for n in ast.walk(node.args[0]) if isinstance(n, _REFERENCE)}
        if name in ("eval", "exec"):
            if any(_begins(each, _FETCHING) for each in origins):
                yield self._made("download_run", node)
            elif any(_begins(each, _DECODING) for each in origins):
                yield self._made("decode_run", node)
        command = self._command(node.args[0])
        for found in token_dangers(strip(command, "shell"), "shell") if command else ():
            yield self._danger(found.rule, node, found.score)

    def _command(self, node: ast.expr) -> str:
        if isinstance(node, ast.List | ast.Tuple):
            words = [self._names.constant(each) for each in node.elts]
            return " ".join(word for word in words if isinstance(word, str))
        value = self._names.constant(node)
        return value if isinstance(value, str) else ""

    def _of_keywords(self, node: ast.Call, name: str) -> Iterator[Danger]:
        """`app.run(debug=True)`, `Environment(autoescape=False)`, `extractall` without a filter."""
        given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if attribute == "run" and self._is(given.get("debug"), True):
            yield self._made("debug_server", node)
        if name == "jinja2.Environment" and self._is(given.get("autoescape"), False):
            yield self._made("autoescape", node)
        if attribute == "extractall" and "filter" not in given and name.startswith("tarfile."):
            yield self._made("tar", node)
        if (
            attribute == "set_missing_host_key_policy"
            and node.args
            and isinstance(node.args[0], ast.Attribute)
        ):
            trusts = self._names.meaning(node.args[0]).endswith("AutoAddPolicy")
            yield from [self._made("host_keys", node)] if trusts else []

    def _of_node(self, node: ast.AST) -> Iterator[Danger]:
        if isinstance(node, ast.Attribute):
            if node.attr in _ESCAPES and not isinstance(node.value, ast.Name):
                yield self._made("sandbox_escape", node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            target, value = node.targets[0], self._names.meaning(node.value)
            is_off = target.attr == "check_hostname" and self._is(node.value, False)
            if is_off or value in ("ssl.CERT_NONE", "ssl._create_unverified_context"):
                yield self._made("tls_off", node)

    def _flows(self) -> Iterator[Danger]:
        """Things that are harmless alone: secrets and a connection, a socket and a shell."""
        sends = [node for node, name in self._calls if _begins(name, _SENDING)]
        for node, score in self._secrets():
            if any(send.lineno >= node.lineno - 3 for send in sends):
                yield self._made("secret_sent", node)
            elif score >= _FILE:
                yield self._made("secret_file", node)
        sockets = [node for node, name in self._calls if name.startswith("socket.")]
        if sockets and any(name in ("os.dup2", "pty.spawn") for _, name in self._calls):
            yield self._made("reverse_shell", sockets[0])
        saved = [node for node, name in self._calls if name in _SAVING]
        runs = [node for node, name in self._calls if name in _RUNNING]
        if saved and runs and saved[0].lineno <= runs[-1].lineno:
            yield self._made("download_run", saved[0])

    def _secrets(self) -> Iterator[tuple[ast.Call, float]]:
        """Where credentials are read: the whole environment, or a file that holds them."""
        for node, name in self._calls:
            texts = [value for each in node.args if isinstance(value := self._names.constant(each), str)]
            named = [text for text in texts if _SECRET_FILE.search(text)] if name in _PATHS else []
            is_environment = any(self._names.meaning(each) == "os.environ" for each in node.args)
            sent = [k.value for k in node.keywords if k.arg in ("json", "data", "params")]
            if named:
                yield node, _WEAK if named[0].endswith((".env", "/etc/passwd")) else _FILE
            elif (name.startswith("os.environ.") and name in _DUMPS) or (name in _DUMPS and is_environment):
                yield node, _WEAK
            elif any(self._names.meaning(value) == "os.environ" for value in sent):
                yield node, _FILE

    def _is_sql_from_data(self, node: ast.expr) -> bool:
        """A text that reads as SQL and is put together from something that is not written out."""
        for _ in range(_MOST_STEPS):
            value = self._names.value_of(node.id) if isinstance(node, ast.Name) else None
            if value is None:
                break
            node = value
        if self._names.constant(node) is not None:
            return False
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else " x " for v in node.values)
            return bool(_SQL.match("".join(parts)))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            left: ast.expr = node
            while isinstance(left, ast.BinOp):
                left = left.left
            text = self._names.constant(left)
            return isinstance(text, str) and bool(_SQL.match(f"{text} from x set "))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            text = self._names.constant(node.func.value)
            return isinstance(text, str) and bool(_SQL.match(text))
        return False

    def _is(self, node: ast.expr | None, value: bool) -> bool:
        return node is not None and self._names.constant(node) is value

    def _made(self, name: str, node: ast.AST) -> Danger:
        return self._danger(_FLOWS[name], node, _FLOWS[name].score)

    def _danger(self, rule: CodeRule, node: ast.AST, score: float) -> Danger:
        start = self._offset(getattr(node, "lineno", 1), getattr(node, "col_offset", 0))
        end = self._offset(getattr(node, "end_lineno", None) or 1, getattr(node, "end_col_offset", None) or 0)
        return Danger(rule, start, max(end, start + 1), score)

    def _offset(self, line: int, column: int) -> int:
        """From the parser's line and byte column to code points."""
        index = min(line, len(self._lines)) - 1
        text = self._lines[index]
        before = column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))
        return self._starts[index] + before

    # When a call counts, and how much.

    def always(self, node: ast.Call, score: float) -> float:
        return score

    def dynamic(self, node: ast.Call, score: float) -> float:
        if not node.args and not node.keywords:
            return 0.0
        given = [*node.args[:1], *(k.value for k in node.keywords[:1] if not node.args)]
        if all(self._names.is_constant(each) for each in given):
            value = self._command(given[0])
            return score if _SYSTEM_PLACES.match(value.strip()) else score * _HALF
        return score

    def dynamic_only(self, node: ast.Call, score: float) -> float:
        return score if node.args and not self._names.is_constant(node.args[0]) else 0.0

    def dynamic_head(self, node: ast.Call, score: float) -> float:
        """The program itself is not written out, or it is a shell that is given a text."""
        if not node.args or any(k.arg == "shell" and self._is(k.value, True) for k in node.keywords):
            return 0.0
        first = node.args[0]
        if isinstance(first, ast.List | ast.Tuple):
            words = [self._names.constant(each) for each in first.elts[:3]]
            if len(words) >= 3 and words[0] in _SHELLS and str(words[1]).lower() in ("-c", "/c", "-command"):
                return 0.85 if words[2] is None else score
            head = first.elts[0] if first.elts else None
            is_named = head is None or self._names.is_constant(head)
            return (
                0.0 if is_named or self._names.meaning(head or first) == "sys.executable" else score * _HALF
            )
        return 0.0 if self._names.is_constant(first) else score * _HALF

    def shell_true(self, node: ast.Call, score: float) -> float:
        if not any(k.arg == "shell" and self._is(k.value, True) for k in node.keywords):
            return 0.0
        return self.dynamic(node, score)

    def unpickle(self, node: ast.Call, score: float) -> float:
        name = self._names.meaning(node.func)
        given = {k.arg: k.value for k in node.keywords if k.arg}
        if name == "torch.load":
            return 0.0 if self._is(given.get("weights_only"), True) else score * 0.8
        if name == "numpy.load":
            return score * 0.8 if self._is(given.get("allow_pickle"), True) else 0.0
        inner = node.args[0] if node.args else None
        if isinstance(inner, ast.Call) and self._names.meaning(inner.func).endswith(".dumps"):
            return 0.0  # a copy of what the program itself just wrote
        return score

    def no_loader(self, node: ast.Call, score: float) -> float:
        name = self._names.meaning(node.func)
        if name.endswith((".load", ".load_all")):
            loaders = [k.value for k in node.keywords if k.arg == "Loader"] or node.args[1:2]
            if loaders and self._names.meaning(loaders[0]).rpartition(".")[2] in _SAFE_LOADERS:
                return 0.0
        return score

    def open_mode(self, node: ast.Call, score: float) -> float:
        mode = self._names.constant(node.args[-1]) if node.args else None
        return score if isinstance(mode, int) and mode & 0o002 else 0.0

    def security_hash(self, node: ast.Call, score: float) -> float:
        marked = [k.value for k in node.keywords if k.arg == "usedforsecurity"]
        return 0.0 if marked and self._is(marked[0], False) else score

    def verify_false(self, node: ast.Call, score: float) -> float:
        given = {k.arg: k.value for k in node.keywords}
        is_off = any(self._is(given.get(name), False) for name in ("verify", "ssl", "verify_ssl"))
        is_off = is_off or self._names.constant(given.get("cert_reqs", node.func)) == "CERT_NONE"
        return score if is_off else 0.0


_Condition = Callable[[_Reader, ast.Call, float], float]
_WHEN: Mapping[str, _Condition] = {
    condition.__name__: condition
    for condition in (
        _Reader.always, _Reader.dynamic, _Reader.dynamic_only, _Reader.dynamic_head, _Reader.shell_true,
        _Reader.unpickle, _Reader.no_loader, _Reader.open_mode, _Reader.security_hash, _Reader.verify_false,
    )
}  # fmt: skip
_FLOWS: Mapping[str, CodeRule] = {
    name: CodeRule(
        id=f"python.{name}",
        category=f"code.{category}",
        severity=severity,
        score=score,
        cwe=cwe,
        reason=reason,
    )
    for name, category, severity, score, cwe, reason in (
        ("sql", "injection", Severity.HIGH, 0.85, "CWE-89", "builds SQL from data"),
        ("download_run", "download_and_run", Severity.CRITICAL, 0.9, "CWE-494", "runs what it downloads"),
        ("decode_run", "download_and_run", Severity.CRITICAL, 0.95, "CWE-506", "runs code that is encoded"),
        ("debug_server", "insecure", Severity.MEDIUM, 0.6, "CWE-489", "a server with its debugger on"),
        ("autoescape", "injection", Severity.MEDIUM, 0.6, "CWE-79", "templates without escaping"),
        ("tar", "insecure", Severity.MEDIUM, 0.5, "CWE-22", "unpacks an archive that may write elsewhere"),
        ("host_keys", "insecure", Severity.MEDIUM, 0.6, "CWE-295", "trusts any host key"),
        ("sandbox_escape", "dangerous_call", Severity.HIGH, 0.6, "CWE-265", "reaches for Python's insides"),
        ("tls_off", "insecure", Severity.MEDIUM, 0.7, "CWE-295", "checks no certificate"),
        ("secret_file", "secret_access", Severity.HIGH, 0.7, "CWE-200", "reads a file of credentials"),
        ("secret_sent", "secret_access", Severity.CRITICAL, 0.9, "CWE-200", "reads credentials, connects"),
        ("reverse_shell", "dangerous_call", Severity.CRITICAL, 0.95, "CWE-506", "gives a shell away"),
    )
}


def _begins(name: str, known: frozenset[str]) -> bool:
    """Whether a dotted name is one of those, or lies below one (`requests.get.text`)."""
    parts = name.split(".")[:8]
    return any(".".join(parts[:n]) in known for n in range(1, len(parts) + 1))


def _line_starts(code: str) -> list[int]:
    starts = [0]
    for line in code.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts
