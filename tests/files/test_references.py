"""References and secrets: what is brought in, what is refused, and what is never shown."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from stanchion.core.errors import FilesError, UsageError
from stanchion.files.document import read_document
from stanchion.files.references import (
    CycleError,
    Secret,
    Trail,
    project_root,
    resolve_inside,
    resolve_references,
)
from stanchion.files.schema import FileModel, load_file


class Anything(FileModel):
    a: Any = None
    b: Any = None


def resolved(path: Path, text: str, env: dict[str, str] | None = None) -> Any:
    path.write_text(text)
    return load_file(path, Anything, env=env, root=path.parent).value.a


def refused(path: Path, text: str, env: dict[str, str] | None = None) -> str:
    path.write_text(text)
    with pytest.raises(FilesError) as caught:
        load_file(path, Anything, env=env, root=path.parent)
    return "\n".join(p.render() for p in caught.value.problems)


def test_environment_is_the_mapping_that_was_passed(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    assert resolved(file, "a: x-${env:NAME}-${env:NAME}", {"NAME": "v"}) == "x-v-v"
    assert resolved(file, "a: ${env:NAME}", {"NAME": "5"}) == "5"
    assert resolved(file, "a: [{k: '${env:E}'}]", {"E": ""}) == [{"k": ""}]


def test_a_name_that_is_not_set_is_an_error_with_its_place(tmp_path: Path) -> None:
    line = refused(tmp_path / "f.yaml", "a:\n  - ${env:NOPE}", {})
    assert line.endswith("f.yaml:2:5: environment variable 'NOPE' is not set. Set it: export NOPE=...")


def test_without_a_mapping_the_environment_cannot_be_read(tmp_path: Path) -> None:
    assert "may not read the environment" in refused(tmp_path / "f.yaml", "a: ${env:HOME}")


def test_what_a_reference_brings_in_is_not_resolved_again(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("${env:SECRET}\n")
    assert resolved(tmp_path / "f.yaml", "a: ${file:t.txt}", {"SECRET": "s"}) == "${env:SECRET}"
    assert resolved(tmp_path / "f.yaml", "a: ${env:A}", {"A": "${env:B}", "B": "b"}) == "${env:B}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: $${env:X}", "${env:X}"),
        ("a: $${file:x}", "${file:x}"),
        ("a: ${HOME}", "${HOME}"),
        ("a: ${other:x}", "${other:x}"),
        ("a: $$", "$$"),
    ],
)
def test_what_is_no_reference_stays(tmp_path: Path, text: str, value: str) -> None:
    assert resolved(tmp_path / "f.yaml", text, {}) == value


def test_a_misspelt_kind_is_an_error(tmp_path: Path) -> None:
    assert "Did you mean 'env'?" in refused(tmp_path / "f.yaml", "a: ${evn:X}", {})
    assert "Did you mean 'env'?" in refused(tmp_path / "f.yaml", "a: ${ENV:X}", {})


def test_file_brings_text_or_a_value(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/t.md").write_text("one\ntwo\n")
    (tmp_path / "sub/v.yaml").write_text("k: ${file:w.json}\n")
    (tmp_path / "sub/w.json").write_text("[1, 2]\n")
    file = tmp_path / "f.yaml"
    assert resolved(file, "a: ${file:sub/t.md}") == "one\ntwo"
    assert resolved(file, "a: 'say: ${file:sub/t.md}!'") == "say: one\ntwo!"
    assert resolved(file, "a: ${file:sub/v.yaml}") == {"k": [1, 2]}


@pytest.mark.parametrize("reference", ["../out.txt", "/etc/hostname", "sub/../../out.txt", "link.txt", ""])
def test_a_reference_cannot_leave_the_root(tmp_path: Path, reference: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "out.txt").write_text("secret text")
    (root / "link.txt").symlink_to(tmp_path / "out.txt")
    said = refused(root / "f.yaml", f"a: '${{file:{reference}}}'")
    assert "secret text" not in said
    assert "leaves the root folder" in said or "is absolute" in said or "is empty" in said


def test_cycle_is_printed_whole(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("x: ${file:c.yaml}\n")
    (tmp_path / "c.yaml").write_text("y: ${file:f.yaml}\n")
    said = refused(tmp_path / "f.yaml", "a: ${file:b.yaml}")
    assert "c.yaml:1:4: a cycle of references: f.yaml -> b.yaml -> c.yaml -> f.yaml." in said


def test_a_file_may_be_brought_in_twice_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("[1]")
    assert resolved(tmp_path / "f.yaml", "a: [ '${file:t.yaml}', '${file:t.yaml}' ]") == [[1], [1]]


def test_a_fan_of_files_is_bounded(tmp_path: Path) -> None:
    for depth in range(12):
        inner = f"'${{file:n{depth + 1}.yaml}}', '${{file:n{depth + 1}.yaml}}'" if depth < 11 else "1"
        (tmp_path / f"n{depth}.yaml").write_text(f"[{inner}]")
    assert "more than 500 files" in refused(tmp_path / "f.yaml", "a: ${file:n0.yaml}")


def test_what_references_bring_in_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("x" * 4_000_000)
    many = ", ".join(["'${file:big.txt}'"] * 20)
    assert "bring in more than 67,108,864 bytes" in refused(tmp_path / "f.yaml", f"a: [{many}]")


def test_problems_of_a_file_brought_in_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("x: 1\nx: 2\n")
    assert "bad.yaml:2:1: key 'x' is given twice" in refused(tmp_path / "f.yaml", "a: ${file:bad.yaml}")
    (tmp_path / "bin.txt").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in refused(tmp_path / "f.yaml", "a: ${file:bin.txt}")
    assert "there is no such file" in refused(tmp_path / "f.yaml", "a: ${file:none.txt}")


def test_resolution_knows_what_it_brought_in(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x")
    file = tmp_path / "f.yaml"
    file.write_text("a: [plain, '${file:t.txt}']\nb: ${env:E}\n")
    resolution = resolve_references(read_document(file), path=file, root=tmp_path, env={"E": "1"})
    assert resolution.brought_in == {("a", 1), ("b",)}
    assert list(resolution.included) == ["t.txt"]


def test_project_root_is_the_nearest_marked_folder(tmp_path: Path) -> None:
    inner = tmp_path / "repo/safety/features/x"
    inner.mkdir(parents=True)
    (tmp_path / "repo/safety/org.yaml").write_text("")
    assert project_root(inner / "case.yaml") == (tmp_path / "repo").resolve()
    (tmp_path / "repo/safety").rename(tmp_path / "repo/risk")
    renamed = tmp_path / "repo/risk/features/x/case.yaml"
    assert project_root(renamed) == (tmp_path / "repo").resolve()


def test_resolve_inside_follows_links_first(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/up").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leaves the root folder"):
        resolve_inside("up/x", folder=tmp_path / "root", root=tmp_path / "root")


def test_trail_refuses_to_enter_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    trail = Trail().enter(first).enter(second)
    with pytest.raises(CycleError, match=r"b\.yaml -> b\.yaml"):
        trail.enter(second)
    with pytest.raises(CycleError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        trail.enter(first)


class Holder(pydantic.BaseModel):
    key: Secret


VALUE = "hunter2-and-more"


@pytest.mark.parametrize(
    "written",
    [
        lambda s: repr(s),
        lambda s: str(s),
        lambda s: f"{s} {s:>20} {s!r}",
        lambda s: "%s %r" % (s, s),  # noqa: UP031  # the old form goes through other methods
        lambda s: repr(Holder(key=s)),
        lambda s: repr(Holder(key=s).model_dump()),
        lambda s: Holder(key=s).model_dump_json(),
        lambda s: repr({"k": [s]}),
        lambda s: pickle.dumps(s).decode("latin-1"),
        lambda s: pickle.dumps(Holder(key=s)).decode("latin-1"),
        lambda s: json.dumps({"k": s}, default=str),
        lambda s: str(vars(Holder(key=s))),
    ],
)
def test_secret_is_masked_everywhere(written: Any) -> None:
    assert VALUE not in written(Secret(VALUE))


def test_secret_cannot_be_encoded_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret(VALUE))


def test_secret_gives_its_value_only_when_asked() -> None:
    secret = Secret(VALUE)
    assert secret.reveal() == VALUE
    assert copy.deepcopy(secret).reveal() == copy.copy(secret).reveal() == VALUE
    assert secret == Secret(VALUE) != Secret("x")
    assert len({secret, Secret(VALUE)}) == 1
    assert not Secret("")


def test_pickled_secret_comes_back_without_its_value() -> None:
    again = pickle.loads(pickle.dumps(Secret(VALUE)))
    assert VALUE not in repr(again)
    assert again != Secret(VALUE)
    with pytest.raises(UsageError, match="pickled"):
        again.reveal()


def test_secret_refuses_what_is_no_text_without_showing_it() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Holder.model_validate({"key": 8675309})
    assert "expected a secret as text" in str(caught.value)
