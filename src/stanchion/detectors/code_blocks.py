"""Where code stands in an answer, and its language: fences, lines that look like code, inline spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stanchion.detectors.code_python import parse

_FENCE = re.compile(
    r"^[ \t>]*(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)(?:^[ \t>]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`([^`\n]{6,})`(?!`)")
_NAMES = {
    "python": "python py python3 py3 ipython pycon jupyter notebook sage",
    "js": "js javascript jsx mjs node ts typescript tsx vue svelte",
    "shell": "sh bash shell zsh console terminal ksh fish shell-session bat cmd",
    "sql": "sql mysql postgresql postgres psql plsql tsql sqlite mariadb",
    "powershell": "powershell ps1 pwsh ps posh",
    "docker": "dockerfile docker containerfile",
    "yaml": "yaml yml k8s kubernetes",
    "php": "php",
    "ruby": "ruby rb",
    "java": "java kotlin scala groovy",
    "go": "go golang",
    "c": "c cpp c++ cc h hpp objc",
}
_LANGUAGE = {name: language for language, names in _NAMES.items() for name in names.split()}
_PLAIN = frozenset({"text", "txt", "plain", "plaintext", "markdown", "md", "none"})
_NOT_CODE = frozenset({"output", "log", "csv", "diff", "json", "toml", "ini", "html", "xml", "css"})
_SHELL_LINE = re.compile(
    r"[ \t]*(?:\$ |# )?(?:sudo |env |nohup |time )*(?:apt|apt-get|awk|aws|base64|bash|brew|cat|cd|chmod|"
    r"chown|cp|crontab|curl|dd|docker|echo|env|eval|export|find|git|grep|iptables|kill|kubectl|ls|mkdir|mkfs\S*|mv|nc|"
    r"ncat|node|npm|openssl|pip3?|printenv|python3?|rm|rsync|scp|sed|setenforce|sh|shred|shutdown|ssh|"
    r"systemctl|tar|tee|terraform|touch|ufw|wget|yum|zsh)"
    r"(?: +(?:-|--|/|~|\.|\$|\"|'|https?:|[\w./-]+$|[\w./=-]+ [-/|>&~$.\"'])|$)"
)
_PYTHON_LINE = re.compile(
    r"[ \t]*(?:import [\w., ]+$|from [\w.]+ import |def \w+\(|class \w+[(:]|return\b|@\w+|raise \w|print\(|"
    r"(?:if|for|while|with|try|else|elif|except)\b.*:\s*(?:#.*)?$|[\w.]+\s*(?:[-+*/|]?=)\s*\S|[\w.]+\([^ ]|"
    r"[\w.]+\(.*\)\s*$|>>> |[)\]}]+,?$|#)"
)
_PYTHON_START = re.compile(
    r"[ \t]*(?:import \w[\w., ]*$|from \w[\w.]* import |def \w+\(.*:|[\w.]+\(.*\)\s*$|"
    r"[\w.]+ = \S.*[\])\"'}]\s*$|>>> )"
)
_SQL_LINE = re.compile(
    r"[ \t]*(?:select\b.+\bfrom\b|insert into\b|update \S+ set\b|delete from \S+|truncate table\b|grant \w|"
    r"drop (?:table|database|schema|user)\b|alter table\b|create table\b|begin\b|"
    r"commit\b|exec(?:ute)? xp_)[^\n]*;\s*$",
    re.IGNORECASE,
)
_JS_LINE = re.compile(
    r"[ \t]*(?:(?:const|let|var) [\w{}, $]+=|function \w*\(|import .+ from ['\"]|export |"
    r"\w[\w.$]*\(.*\);?\s*$|.*=> ?[{(]|[})\]]+[;,]?$|.*[;{]\s*$|//)"
)
_JS_START = re.compile(
    r"[ \t]*(?:(?:const|let|var) \w.*=.*;\s*$|.*\);\s*$|function \w+\(.*\{\s*$|import .+ from ['\"])"
)
_YAML_LINE = re.compile(r"\s*-? ?[\w.-]+:(?: |$)")
_POWERSHELL_LINE = re.compile(
    r"[ \t]*(?:(?:[A-Z][a-z]+-[A-Z]\w+|iex|iwr|irm|powershell(?:\.exe)?) |\$\w+ ?=)", re.ASCII
)
_MAGIC = re.compile(
    r"^[ \t]*(?:(?P<shell>!{1,2}|%sx |%system )|(?P<magic>%%?[a-z]\w*))(?P<rest>[^\n]*)", re.MULTILINE
)
_CELL_SHELL = re.compile(r"\A\s*%%(?:bash|sh|script|cmd|sx)\b[^\n]*\n")
_SCRIPT = re.compile(r"<script\b([^>]{0,500})>(.*?)(?:</script|\Z)", re.IGNORECASE | re.DOTALL)
_DATA_SCRIPT = re.compile(r"type\s*=\s*[\"']?(?:[\w/+.-]*json|text/(?:template|plain))", re.IGNORECASE)
_LONG_LINE = 2000  # characters; of a longer line its two ends say what it is
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.) ?", re.MULTILINE)
_DOCKER = re.compile(r"^\s*FROM\s+\S+.*\n(?:.*\n)*?\s*(?:RUN|COPY|ADD|CMD|ENTRYPOINT|ENV)\s", re.MULTILINE)


class Block(NamedTuple):
    """A piece of code: where it starts in the answer, its text (of the same length there), its language."""

    start: int
    text: str
    language: str


def blocks_of(answer: str) -> list[Block]:
    """The code of an answer, all of it."""
    return list(_blocks(answer))


def _blocks(answer: str) -> Iterator[Block]:
    at = 0
    for match in _FENCE.finditer(answer):
        yield from _bare(answer, at, match.start())
        info = match[2].strip().lower().split()
        name = info[0].strip("{}.").removeprefix("language-") if info else ""
        at = match.end()
        if name in _NOT_CODE:
            yield from _scripts(answer, *match.span(3))
            continue
        language = "" if name in _PLAIN else _LANGUAGE.get(name) or language_of(match[3])
        if language:
            yield Block(match.start(3), match[3], language)
        else:  # what it is as a whole cannot be told: what its lines are may be
            yield from _bare(answer, *match.span(3))
    yield from _bare(answer, at, len(answer))


def language_of(code: str) -> str:
    """The language of a piece of code without a name; empty when nothing fits."""
    if code.startswith("#!"):
        first = code.partition("\n")[0]
        return "python" if "python" in first else "js" if "node" in first else "shell"
    if _DOCKER.search(code[:2000]):
        return "docker"
    if "<?php" in code[:200]:
        return "php"
    lines = [line for line in code.split("\n")[:60] if line.strip() and not _COMMENT_LINE.match(line)]
    if not lines:
        return ""
    counts = {language: sum(bool(shape.match(line)) for line in lines) for language, shape in _SHAPES.items()}
    best = max(counts, key=lambda language: counts[language])
    is_python = counts["python"] * 2 >= len(lines) and counts["python"] >= counts["shell"]
    if is_python and parse(_without_prompts(code)) is not None:
        return "python"
    if counts[best] * 3 >= len(lines):
        return best
    return "yaml" if sum(bool(_YAML_LINE.match(line)) for line in lines) * 2 > len(lines) else ""


_COMMENT_LINE = re.compile(r"\s*(?:#|//|--|/?\*)")
_GO_LINE = re.compile(r"[ \t]*(?:package \w+$|func \w*\(|[\w, ]+ := |if err != nil)")
_JAVA_LINE = re.compile(
    r"[ \t]*(?:(?:public|private|protected|final) |import java|[A-Z]\w*(?:<.*>)? \w+ = .*;\s*$)", re.ASCII
)
_SHAPES = {
    "shell": _SHELL_LINE,
    "sql": _SQL_LINE,
    "powershell": _POWERSHELL_LINE,
    "python": _PYTHON_LINE,
    "go": _GO_LINE,
    "java": _JAVA_LINE,
    "js": _JS_LINE,
}


def _bare(answer: str, start: int, end: int) -> Iterator[Block]:
    """Code outside fences: inline spans that are commands, and runs of lines of one language."""
    if start >= end:
        return
    yield from _scripts(answer, start, end)
    prose = answer[start:end]
    for match in _INLINE.finditer(prose):
        kinds = (each for each in ("shell", "sql", "powershell") if _SHAPES[each].match(match[1]))
        language = next(kinds, "")
        if language or re.match(r"[\w.]+\(.*\)$", match[1]):
            yield Block(start + match.start(1), match[1], language or "python")
    run: list[str] = []
    run_start = at = start
    language = ""
    for line in [*prose.split("\n"), ""]:
        found = _line_language(line, language)
        is_inside = bool(run) and (not line.strip() or line[:1] in " \t)]}" or found == language)
        if found and not run:
            run, run_start, language = [line], at, found
        elif is_inside and at < end:
            run.append(line)
        else:
            yield from _run(run, run_start, language)
            run, run_start, language = ([line], at, found) if found else ([], at, "")
        at += len(line) + 1
    yield from _run(run, run_start, language)


def _scripts(answer: str, start: int, end: int) -> Iterator[Block]:
    """What stands in the `<script>` elements of HTML."""
    for match in _SCRIPT.finditer(answer, start, end):
        if not _DATA_SCRIPT.search(match[1]):
            yield Block(match.start(2), match[2], "js")


def _line_language(line: str, current: str) -> str:
    """The language of a line outside fences; what opens a run must be plainer than what goes on in it."""
    if len(line) > _LONG_LINE:
        line = f"{line[: _LONG_LINE // 2]} {line[-_LONG_LINE // 2 :]}"  # how it begins and ends
    if not line.strip():
        return ""
    if current and _SHAPES[current].match(line):
        return current
    for language in ("sql", "shell", "powershell"):
        if _SHAPES[language].match(line) and (language != "shell" or _is_command(line)):
            return language
    if _PYTHON_START.match(line):
        return "python"
    return "js" if _JS_START.match(line) else ""


def _is_command(line: str) -> bool:
    """A shell line rather than a sentence that begins with a command's name."""
    words = line.split()
    signs = ("-", "/", "~", "|", ">", "$", "&", "./", "http")
    has_sign = any(word.startswith(signs) or "|" in word for word in words[1:])
    return has_sign and not line.rstrip().endswith((".", "?", ":"))


def _run(lines: list[str], start: int, language: str) -> Iterator[Block]:
    text = "\n".join(lines)
    if text.strip():
        yield Block(start, text, language)


def _without_prompts(code: str) -> str:
    return _PROMPT.sub(lambda match: " " * len(match.group()), code) if ">>>" in code else code


def cells(block: Block) -> Iterator[Block]:
    """A block as what it holds: Python without prompts and magics, and a notebook's shell lines."""
    if block.language != "python":
        yield block
        return
    shell = _CELL_SHELL.match(block.text)
    if shell:
        yield Block(block.start + shell.end(), block.text[shell.end() :], "shell")
        return
    text = block.text.replace("\r", " ")
    if ">>>" in text:
        text = _dedented(_PROMPT.sub(lambda match: " " * len(match.group()), text))
    kept, at = [], 0
    for match in _MAGIC.finditer(text) if "!" in text or "%" in text else ():
        if match["shell"]:
            yield Block(block.start + match.start("rest"), match["rest"], "shell")
        elif match["magic"].startswith("%") and "=" in match.group()[:3]:
            continue
        kept += [text[at : match.start()], " " * (match.end() - match.start())]
        at = match.end()
    yield Block(block.start, "".join([*kept, text[at:]]), "python")


def _dedented(text: str) -> str:
    """Lines moved left by their common indent, the blanks put behind, so that lines keep their place."""
    lines = text.split("\n")
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    common = min(indents, default=0)
    return "\n".join(line[common:] + " " * min(common, len(line)) for line in lines)
