"""The settings of a request, with types and descriptions. LM and predictors take them as keyword arguments.

Bounds are checked only where all providers agree. A setting that is not passed is not sent; None is sent as null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from dspynb.options import Float, Int, PositiveInt

__all__ = ["LiteLLMSettings", "RequestSettings"]


class _OpenAISettings(TypedDict, total=False):
    """The optional fields of a chat completion: openai.types.chat.completion_create_params (openai 3.57).

    Without ``model``, ``messages``, ``stream`` and ``stream_options``, which LM sets itself.
    """

    temperature: Float | None
    """Randomness of sampling. 0 takes the most likely token each time."""
    max_tokens: PositiveInt | None
    """Maximum number of tokens in a reply."""
    max_completion_tokens: PositiveInt | None
    """Maximum number of tokens in a reply, including reasoning."""
    top_p: Float | None
    """Share of the probability mass that sampling draws from (nucleus sampling)."""
    stop: str | Sequence[str] | None
    """Texts that end a reply. They are not part of it."""
    seed: Int | None
    """Seed of sampling, where the provider has one."""
    n: PositiveInt | None
    """Replies per request."""
    effort: str | None
    """How much a reasoning model thinks: ``none``, ``low``, ``medium`` or ``high``. Sent as ``reasoning_effort``."""
    reasoning_effort: str | None
    """Another name of ``effort``. Some models have further levels, such as ``minimal``."""
    verbosity: str | None
    """Length of replies: ``low``, ``medium`` or ``high``."""
    frequency_penalty: Float | None
    """Penalty for tokens that grows with their number in the reply so far."""
    presence_penalty: Float | None
    """Penalty for tokens that are in the reply so far."""
    logit_bias: Mapping[str, float] | None
    """Numbers that are added to the logits, by token id."""
    logprobs: bool | int | None
    """Whether a reply includes the log probabilities of its tokens."""
    top_logprobs: int | None
    """Number of most likely tokens per position whose log probabilities are included."""
    response_format: Any
    """Format of replies, such as ``{"type": "json_object"}``. Adapters set it themselves."""
    tools: Sequence[Any] | None
    """Descriptions of tools, in the provider's format."""
    tool_choice: Any
    """Which tool the model calls: ``auto``, ``none``, ``required`` or one by name."""
    parallel_tool_calls: bool | None
    """Whether a reply may have several tool calls."""
    functions: Sequence[Any] | None
    """Descriptions of functions, the predecessor of ``tools``."""
    function_call: Any
    """Which function the model calls, the predecessor of ``tool_choice``."""
    modalities: Sequence[str] | None
    """Kinds of replies: ``text``, ``audio``."""
    audio: Mapping[str, Any] | None
    """Voice and format of spoken replies."""
    prediction: Mapping[str, Any] | None
    """Text that a reply will mostly repeat, for a faster reply."""
    web_search_options: Mapping[str, Any] | None
    """Options of the provider's web search."""
    metadata: Mapping[str, Any] | None
    """Labels that the provider stores with a request."""
    store: bool | None
    """Whether the provider stores the reply."""
    service_tier: str | None
    """Service tier: ``auto``, ``default``, ``flex``, ``priority``."""
    user: str | None
    """Identifier of the end user, the predecessor of ``safety_identifier``."""
    safety_identifier: str | None
    """Stable identifier of the end user, for the detection of abuse."""
    moderation: Any
    """Options of the provider's moderation."""
    prompt_cache_key: str | None
    """Key by which the provider's prompt cache groups requests."""
    prompt_cache_options: Any
    """Options of the provider's prompt cache."""
    prompt_cache_retention: str | None
    """How long the provider's prompt cache holds a prompt."""


class _ProviderSettings(TypedDict, total=False):
    """Fields that only some providers have, and that litellm passes on to them; and those of llama.cpp (LocalLM)."""

    thinking: Mapping[str, Any] | None
    """Anthropic: whether the model thinks first, and for how many tokens."""
    context_management: Any
    """Anthropic: which parts of a long conversation are dropped."""
    include_server_side_tool_invocations: bool | None
    """Whether a reply includes calls of the provider's own tools."""
    top_k: int | None
    """Number of most likely tokens that sampling draws from."""
    min_p: float | None
    """Minimum probability of a sampled token, relative to the most likely one."""
    repeat_penalty: float | None
    """llama.cpp, Ollama: penalty for repeated tokens."""
    repetition_penalty: float | None
    """vLLM, Hugging Face: penalty for repeated tokens."""
    num_ctx: int | None
    """Ollama: tokens of context."""
    num_predict: int | None
    """Ollama: maximum number of tokens in a reply."""
    keep_alive: Any
    """Ollama: how long the model stays loaded."""
    format: Any
    """Ollama: ``json``, or the JSON schema of replies."""
    think: bool | str | None
    """Ollama: whether the model thinks first."""
    safety_settings: Any
    """Gemini: thresholds of its safety filters."""
    cached_content: str | None
    """Gemini: name of cached content."""
    guardrailConfig: Mapping[str, Any] | None
    """Bedrock: guardrail to apply."""
    performanceConfig: Mapping[str, Any] | None
    """Bedrock: latency class."""
    requestMetadata: Mapping[str, Any] | None
    """Bedrock: labels of the request."""
    extra_body: dict[str, Any] | None
    """Further fields of the request's body, for fields that only this provider or server knows."""
    extra_headers: dict[str, str] | None
    """Further HTTP headers of the request."""


class LiteLLMSettings(TypedDict, total=False):
    """Settings that litellm reads itself, such as credentials. They are no fields of a request.

    ConnectionSettings and DispatchOptions of litellm.types.litellm_params (litellm 1.110), and the credentials of
    litellm's providers.
    """

    drop_params: bool | None
    """Whether litellm leaves out settings that the provider does not have."""
    additional_drop_params: Sequence[str] | None
    """Names of further settings that litellm leaves out."""
    allowed_openai_params: Sequence[str] | None
    """Names of settings that litellm sends even if its list for the provider does not have them."""
    base_model: str | None
    """Model whose prices and abilities litellm assumes."""
    cache_control_injection_points: Any
    """Messages that Anthropic's prompt cache should hold."""
    provider_specific_header: Any
    """Headers for one provider."""
    use_litellm_proxy: bool | None
    """Whether requests go through a litellm proxy."""
    ssl_verify: bool | str | None
    """Whether certificates are checked, or the path of the CA certificates."""
    client_id: str | None
    """OAuth: client id."""
    client_secret: str | None
    """OAuth: client secret."""
    tenant_id: str | None
    """Azure: tenant."""
    organization: str | None
    """OpenAI: organization to bill."""
    project: str | None
    """OpenAI: project to bill."""
    project_id: str | None
    """watsonx: project."""
    space_id: str | None
    """watsonx: deployment space."""
    deployment_id: str | None
    """watsonx, SAP: deployment."""
    region_name: str | None
    """Region of the provider."""
    api_version: str | None
    """Azure: version of its API."""
    azure_ad_token: str | None
    """Azure: Entra token."""
    azure_ad_token_provider: Callable[[], str] | None
    """Azure: function that returns an Entra token. It is called for each request and never sent or stored."""
    azure_scope: str | None
    """Azure: scope of the token."""
    azure_username: str | None
    """Azure: user name."""
    azure_password: str | None
    """Azure: password."""
    anthropic_identity_token: str | None
    """Anthropic: token of a federated login."""
    anthropic_organization_id: str | None
    """Anthropic: organization of a federated login."""
    aws_access_key_id: str | None
    """Bedrock: access key."""
    aws_secret_access_key: str | None
    """Bedrock: secret access key."""
    aws_session_token: str | None
    """Bedrock: session token."""
    aws_session_name: str | None
    """Bedrock: name of the session of an assumed role."""
    aws_region_name: str | None
    """Bedrock: region."""
    aws_profile_name: str | None
    """Bedrock: profile of the AWS configuration."""
    aws_role_name: str | None
    """Bedrock: role to assume."""
    aws_external_id: str | None
    """Bedrock: external id of the role."""
    aws_web_identity_token: str | None
    """Bedrock: token of a federated login."""
    aws_sts_endpoint: str | None
    """Bedrock: address of the token service."""
    aws_bedrock_runtime_endpoint: str | None
    """Bedrock: address of the runtime."""
    vertex_project: str | None
    """Vertex AI: project."""
    vertex_location: str | None
    """Vertex AI: location."""
    vertex_credentials: Any
    """Vertex AI: credentials, or the path of their file."""
    vertex_ai_project: str | None
    """Vertex AI: project, another name of ``vertex_project``."""
    vertex_ai_location: str | None
    """Vertex AI: location, another name of ``vertex_location``."""
    vertex_ai_credentials: Any
    """Vertex AI: credentials, another name of ``vertex_credentials``."""
    watsonx_region_name: str | None
    """watsonx: region."""
    wx_project_id: str | None
    """watsonx: project, another name of ``project_id``."""


class RequestSettings(_OpenAISettings, _ProviderSettings, LiteLLMSettings, total=False):
    """All settings of a request, from an LM, a predictor or an LMRequest."""
