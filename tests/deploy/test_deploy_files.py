"""The files of `deploy/`: judged by the linters and schemas that their makers publish, and by ours.

No image is built and no cluster is asked here; what a schema cannot see, an image build would.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql_parser import parse

from stanchion.gateway.gateway_file import read_gateway_file
from stanchion.telemetry.dashboards import gateway_dashboard
from stanchion.telemetry.metrics import Kind, table

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(p for p in (DEPLOY / "kubernetes").glob("*.yaml") if p.name != "kustomization.yaml")
DASHBOARD = ROOT / "src/stanchion/data/dashboards/gateway.json"
# What Grafana needs of a dashboard and its panels (dashboard JSON model, Grafana documentation, v12).
DASHBOARD_SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "time", "refresh"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos"],
                "properties": {
                    "type": {"enum": ["row", "stat", "timeseries"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                        },
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "object", "required": ["refId", "expr", "datasource"]},
                    },
                },
            },
        },
    },
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)


def test_the_dockerfile_passes_its_linter() -> None:
    done = run("hadolint", "--failure-threshold", "info", str(DEPLOY / "Dockerfile"))
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular_with_pinned_parts() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    final = text.split("FROM ")[-1]
    assert "USER 10001:10001" in final
    assert "pip install" not in final
    assert "--require-hashes" in text
    locked = (DEPLOY / "requirements.txt").read_text()
    assert "--hash=sha256:" in locked
    assert not re.search(r"https?://", locked)
    for name in ("aiohttp", "uvloop", "httptools", "psycopg", "redis", "hvac", "opentelemetry-sdk"):
        assert re.search(rf"^{name}==", locked, re.M), name


def test_what_the_dockerfile_copies_is_there() -> None:
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_the_compose_file_follows_the_schema_of_the_specification() -> None:
    done = run(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose/compose.yaml")
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_that_the_compose_file_mounts_is_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).resolve().exists(), (name, source)


def test_only_the_loopback_interface_and_no_admin_api_is_published() -> None:
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
    assert "ports" not in services["postgres"]
    assert "ports" not in services["redis"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_manifests_follow_the_schemas_of_kubernetes(path: Path) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    named = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert sorted(named) == [path.name for path in MANIFESTS]


def test_pods_have_least_privilege_and_probes() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert "limits" in container["resources"]


def _gateway_files(folder: Path) -> list[Path]:
    mapped = yaml.safe_load((DEPLOY / "kubernetes/configmap.yaml").read_text())["data"]["gateway.yaml"]
    (folder / "gateway.yaml").write_text(mapped)
    return [DEPLOY / "compose/gateway.yaml", folder / "gateway.yaml"]


def test_the_gateway_files_are_read_without_a_problem(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "k1", "ANTHROPIC_API_KEY": "k2"}
    for path in _gateway_files(tmp_path):
        assert read_gateway_file(path, env=env).value.features["default"].policy == "default"


def expressions() -> list[tuple[str, str]]:
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    found = [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda value: str(value)[:40])
def test_queries_are_promql_over_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    parse(expression.replace("$__rate_interval", "5m"))
    known = table()
    for name, selector in re.findall(r"(stanchion_[a-z_]+)(\{[^}]*\})?", expression):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = known.get(name) or known.get(base)
        assert metric is not None, (where, name)
        assert (metric.kind is Kind.HISTOGRAM) == (name != base), (where, name)
        for label in re.findall(r"([a-z_]+)\s*!?=~?", selector):
            assert label in metric.labels, (where, name, label)
    names = {n for n in known if n in expression or n + "_bucket" in expression}
    labels = {label for n in names for label in known[n].labels} | {"le"}
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {word.strip() for word in group.split(",")} <= labels, (where, group)


def test_alerts_say_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]
            assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_packaged_dashboard_is_the_one_that_the_code_makes() -> None:
    from jsonschema import validate

    packaged: dict[str, Any] = json.loads(DASHBOARD.read_text())
    assert packaged == gateway_dashboard()
    validate(packaged, DASHBOARD_SCHEMA)
    ids = [panel["id"] for panel in packaged["panels"]]
    assert len(ids) == len(set(ids))
