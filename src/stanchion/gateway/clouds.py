"""Providers that are clouds: their part of the gateway file, and the upstream that asks them.

A request is fitted to the one API that the cloud is asked by (`models.translation`), whatever API it came by.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal

import pydantic

from stanchion.core.clock import Clock
from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Reply, StreamEvent
from stanchion.files.references import Secret
from stanchion.files.schema import FileModel
from stanchion.gateway.upstream import Question
from stanchion.models.aws_signature import AwsCredentials
from stanchion.models.azure import AzureOptions, AzureProvider
from stanchion.models.bedrock import BETA, BedrockOptions, BedrockProvider
from stanchion.models.http_client import HttpLimits
from stanchion.models.providers import Provider, SecretLike, UpstreamClient
from stanchion.models.translation import fitted
from stanchion.models.vertex import AccessTokens, ServiceAccount, StaticToken, VertexOptions, VertexProvider
from stanchion.models.wire import JsonObject

Name = Annotated[str, pydantic.Field(min_length=1, max_length=200)]


class AzureSection(FileModel):
    """An Azure OpenAI resource; the key of the provider is the resource's or an Entra token."""

    endpoint: str = pydantic.Field(description="The resource, such as `https://NAME.openai.azure.com`.")
    path: Literal["v1", "deployments"] = pydantic.Field(
        default="v1", description="`v1`, or `deployments`, which needs an `api_version`."
    )
    api_version: str = pydantic.Field(default="", description="A dated version such as `2024-10-21`.")
    api: Literal["openai.chat", "openai.responses", "openai.embeddings"] = pydantic.Field(
        default="openai.chat", description="The API by which it is asked."
    )
    auth: Literal["key", "bearer"] = pydantic.Field(
        default="key", description="`bearer` sends the key as an Entra token."
    )


class BedrockSection(FileModel):
    """A region of Amazon Bedrock; the key of the provider is the secret access key."""

    region: Name = pydantic.Field(description="Such as `eu-central-1`.")
    access_key: Name = pydantic.Field(description="The id of the access key.")
    session_token: Secret | None = pydantic.Field(
        default=None, description="The token of temporary keys: `${env:NAME}` or `${file:path}`."
    )
    api: Literal["converse", "messages"] = pydantic.Field(
        default="converse", description="`messages` is for Anthropic's models only."
    )
    endpoint: str = pydantic.Field(default="", description="Another address than the region's public one.")


class VertexSection(FileModel):
    """A project of Vertex AI; the key of the provider is the service account's private key, or a token."""

    project: Name = pydantic.Field(description="The project's id.")
    location: Name = pydantic.Field(description="Such as `europe-west1`, or `global`.")
    account: str = pydantic.Field(
        default="", description="The service account's address; without it the key is an access token."
    )
    key_id: str = pydantic.Field(default="", description="The id of the private key.")
    token_url: str = pydantic.Field(
        default="https://oauth2.googleapis.com/token", description="Where tokens are granted."
    )
    api: Literal["messages", "chat"] = pydantic.Field(
        default="messages", description="`messages` is for Anthropic's models, `chat` for the others."
    )
    endpoint: str = pydantic.Field(default="", description="Another address than the public one.")


CloudSection = AzureSection | BedrockSection | VertexSection


def make_cloud(
    section: CloudSection, *, key: SecretLike, clock: Clock, limits: HttpLimits, name: str = ""
) -> CloudUpstream:
    """The upstream of a cloud; connects to nothing yet. Errors say `name` and not the address.

    Raises:
        UsageError: for options that do not fit together, and for a key that no header can carry.
    """
    match section:
        case AzureSection():
            azure = AzureOptions(
                endpoint=section.endpoint,
                path=section.path,
                api_version=section.api_version,
                api=section.api,
                auth=section.auth,
            )
            return CloudUpstream(AzureProvider(azure, key=key), clock=clock, limits=limits, name=name)
        case BedrockSection():
            credentials = AwsCredentials(
                access_key=section.access_key, secret_key=key, session_token=section.session_token
            )
            bedrock = BedrockOptions(region=section.region, api=section.api, endpoint=section.endpoint)
            provider = BedrockProvider(bedrock, credentials=credentials, clock=clock)
            return CloudUpstream(provider, clock=clock, limits=limits, name=name)
        case VertexSection():
            return _vertex(section, key=key, clock=clock, limits=limits, name=name)


def _vertex(
    section: VertexSection, *, key: SecretLike, clock: Clock, limits: HttpLimits, name: str
) -> CloudUpstream:
    options = VertexOptions(
        project=section.project, location=section.location, api=section.api, endpoint=section.endpoint
    )
    if not section.account:
        provider = VertexProvider(options, tokens=StaticToken(key))
        return CloudUpstream(provider, clock=clock, limits=limits, name=name)
    account = ServiceAccount(
        email=section.account, private_key=key, key_id=section.key_id, token_url=section.token_url
    )
    tokens = AccessTokens(account, clock=clock)
    vertex = VertexProvider(options, tokens=tokens)
    return CloudUpstream(vertex, clock=clock, limits=limits, tokens=tokens, name=name)


class CloudUpstream:
    """Asks one cloud; see `Upstream`."""

    def __init__(
        self,
        provider: Provider,
        *,
        clock: Clock,
        limits: HttpLimits,
        tokens: AccessTokens | None = None,
        name: str = "",
    ) -> None:
        self._api = provider.codec.name
        what = f"the provider {name!r}" if name else ""
        self._client = UpstreamClient(provider, limits=limits, clock=clock, what=what)
        self._tokens = tokens

    @property
    def api(self) -> str:
        """The API by which it is asked."""
        return self._api

    async def ask(self, question: Question) -> Reply:
        """See `Upstream.ask`."""
        interaction, extras = self._fitted(question)
        headers = _headers(question)
        return await self._client.ask(interaction, model=question.model, extras=extras, headers=headers)

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """See `Upstream.stream`."""
        interaction, extras = self._fitted(question)
        headers = _headers(question)
        batches = self._client.stream(interaction, model=question.model, extras=extras, headers=headers)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()

    async def aclose(self) -> None:
        """See `Upstream.aclose`."""
        await self._client.aclose()
        if self._tokens is not None:
            await self._tokens.aclose()

    def _fitted(self, question: Question) -> tuple[Interaction, JsonObject]:
        if question.key:
            raise UsageError("a client's own key cannot be forwarded to a cloud.")
        said = fitted(question.request, surface=question.surface, upstream=self._api)
        for name, count in said.lost.items():
            question.lost[name] = question.lost.get(name, 0) + count
        return said.interaction, said.extras


def _headers(question: Question) -> dict[str, str]:
    """The trace, and the betas that the client named; clouds have a version of the API of their own."""
    headers = {"traceparent": question.traceparent} if question.traceparent else {}
    if BETA in question.headers:
        headers[BETA] = question.headers[BETA]
    return headers
