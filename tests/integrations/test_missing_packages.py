"""A framework that is not installed is one line that says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stanchion.core.errors import UsageError
from stanchion.integrations import (
    agents_sdk,
    langchain_middleware,
    litellm_guardrail,
    openfeature_provider,
    pydantic_ai_guard,
    semantic_kernel_filters,
)

MAKERS = {
    "litellm": lambda guard: litellm_guardrail.make_guardrail(guard),
    "openai-agents": lambda guard: agents_sdk.make_guardrails(guard),
    "langchain": lambda guard: langchain_middleware.make_middleware(guard),
    "pydantic-ai": lambda guard: pydantic_ai_guard.make_capability(guard),
    "semantic-kernel": lambda guard: semantic_kernel_filters.add_filters(object(), guard),
    "openfeature-sdk": lambda guard: openfeature_provider.make_provider(object()),
}
ROOTS = ("litellm", "agents", "langchain", "langchain_core", "pydantic_ai", "semantic_kernel", "openfeature")


@pytest.mark.parametrize("package", MAKERS)
def test_a_missing_package_says_what_to_install(guard, monkeypatch, package):
    pydantic_ai_guard._kinds.cache_clear()
    for name in list(sys.modules):
        if name.partition(".")[0] in ROOTS:
            monkeypatch.delitem(sys.modules, name)
    for root in ROOTS:
        monkeypatch.setitem(sys.modules, root, None)  # as if it were not installed
    with pytest.raises(UsageError) as caught:
        MAKERS[package](guard)
    assert str(caught.value).endswith(f"is not installed. Install it: pip install {package}")
    assert "\n" not in str(caught.value)


def test_no_framework_is_imported_before_it_is_used():
    names = [
        *("agents_sdk", "asgi", "clients", "flag_readings", "langchain_middleware", "litellm_guardrail"),
        *("openfeature_provider", "pydantic_ai_guard", "semantic_kernel_filters"),
    ]
    code = "; ".join(f"import stanchion.integrations.{name}" for name in names)
    roots = (*ROOTS, "openai", "anthropic", "httpx", "httpx2", "starlette")
    told = f"{code}; import sys; print([n for n in {roots!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
