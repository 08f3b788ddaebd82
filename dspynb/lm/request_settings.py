"""What may be set of a request: names, types and a line on each. LM and predictors take these as keywords.

Bounds are held only where every provider agrees. A setting that is not passed is not sent; None is sent as none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from dspynb.options import Float, Int, PositiveInt

__all__ = ["LiteLLMSettings", "RequestSettings"]


class _OpenAISettings(TypedDict, total=False):
    """The optional fields of a chat completion: openai.types.chat.completion_create_params (openai 3.57).

    ``model``, ``messages``, ``stream`` and ``stream_options`` are not among them: they are the request's own.
    """

    temperature: Float | None
    """Randomness of sampling. 0 takes the most likely token each time."""
    max_tokens: PositiveInt | None
    """Tokens that a reply may have at most."""
    max_completion_tokens: PositiveInt | None
    """Tokens that a reply may have at most, those of reasoning included."""
    top_p: Float | None
    """Share of the probability that tokens are drawn from (nucleus sampling)."""
    stop: str | Sequence[str] | None
    """Texts that end a reply. They are not part of it."""
    seed: Int | None
    """Seed of sampling, where the provider has one."""
    n: PositiveInt | None
    """Replies per request."""
    reasoning_effort: str | None
    """How much a reasoning model thinks: ``none``, ``minimal``, ``low``, ``medium``, ``high``, …"""
    verbosity: str | None
    """Length of replies: ``low``, ``medium`` or ``high``."""
    frequency_penalty: Float | None
    """Penalty for tokens by how often they are in the reply so far."""
    presence_penalty: Float | None
    """Penalty for tokens that are in the reply so far."""
    logit_bias: Mapping[str, float] | None
    """Added to the logits of tokens, by the id of the token."""
    logprobs: bool | int | None
    """Whether log probabilities of the reply's tokens come with it."""
    top_logprobs: int | None
    """Most likely tokens per position whose log probabilities come with a reply."""
    response_format: Any
    """Form of replies, such as ``{"type": "json_object"}``. Adapters set it themselves."""
    tools: Sequence[Any] | None
    """Descriptions of tools, as the provider takes them."""
    tool_choice: Any
    """Which tool the model calls: ``auto``, ``none``, ``required`` or one by name."""
    parallel_tool_calls: bool | None
    """Whether a reply may have several calls of tools."""
    functions: Sequence[Any] | None
    """Descriptions of functions, the older form of ``tools``."""
    function_call: Any
    """Which function the model calls, the older form of ``tool_choice``."""
    modalities: Sequence[str] | None
    """Kinds of replies: ``text``, ``audio``."""
    audio: Mapping[str, Any] | None
    """Voice and format of spoken replies."""
    prediction: Mapping[str, Any] | None
    """Text that a reply will mostly repeat, which makes it faster."""
    web_search_options: Mapping[str, Any] | None
    """Options of the provider's search of the web."""
    metadata: Mapping[str, Any] | None
    """Labels that the provider stores with a request."""
    store: bool | None
    """Whether the provider stores the reply."""
    service_tier: str | None
    """Class of service: ``auto``, ``default``, ``flex``, ``priority``."""
    user: str | None
    """Identifier of the end user, the older form of ``safety_identifier``."""
    safety_identifier: str | None
    """Stable identifier of the end user, by which abuse is detected."""
    moderation: Any
    """Options of the provider's moderation."""
    prompt_cache_key: str | None
    """Key by which the provider's cache of prompts groups requests."""
    prompt_cache_options: Any
    """Options of the provider's cache of prompts."""
    prompt_cache_retention: str | None
    """How long the provider's cache holds a prompt."""


class _ProviderSettings(TypedDict, total=False):
    """Fields that litellm hands on to the providers that have them, and those of llama.cpp (LocalLM)."""

    thinking: Mapping[str, Any] | None
    """Anthropic: whether the model thinks first, and how many tokens it may take."""
    context_management: Any
    """Anthropic: what is dropped from a long conversation."""
    include_server_side_tool_invocations: bool | None
    """Whether calls of the provider's own tools are part of the reply."""
    top_k: int | None
    """Number of most likely tokens that sampling draws from."""
    min_p: float | None
    """Least probability of a token that is sampled, relative to the most likely one."""
    repeat_penalty: float | None
    """llama.cpp, Ollama: penalty for repeated tokens."""
    repetition_penalty: float | None
    """vLLM, Hugging Face: penalty for repeated tokens."""
    num_ctx: int | None
    """Ollama: tokens of context."""
    num_predict: int | None
    """Ollama: tokens that a reply may have at most."""
    keep_alive: Any
    """Ollama: how long the model stays loaded."""
    format: Any
    """Ollama: ``json``, or the JSON schema of replies."""
    think: bool | str | None
    """Ollama: whether the model thinks first."""
    safety_settings: Any
    """Gemini: thresholds of its safety filters."""
    cached_content: str | None
    """Gemini: name of content that the provider has cached."""
    guardrailConfig: Mapping[str, Any] | None
    """Bedrock: guardrail that is applied."""
    performanceConfig: Mapping[str, Any] | None
    """Bedrock: latency class."""
    requestMetadata: Mapping[str, Any] | None
    """Bedrock: labels of the request."""
    extra_body: dict[str, Any] | None
    """Further fields of the request's body, which only this provider or server knows."""
    extra_headers: dict[str, str] | None
    """Further HTTP headers of the request."""


class LiteLLMSettings(TypedDict, total=False):
    """How litellm reaches a provider and what it sends; no fields of a request.

    ConnectionSettings and DispatchOptions of litellm.types.litellm_params (litellm 1.110), and the credentials that its
    providers read.
    """

    drop_params: bool | None
    """Whether litellm leaves out settings that the provider does not have."""
    additional_drop_params: Sequence[str] | None
    """Names of further settings that litellm leaves out."""
    allowed_openai_params: Sequence[str] | None
    """Names of settings that litellm sends although it does not know the provider to have them."""
    base_model: str | None
    """Model by whose prices and abilities litellm goes."""
    cache_control_injection_points: Any
    """Messages that Anthropic's cache of prompts is to hold."""
    provider_specific_header: Any
    """Headers for one provider."""
    use_litellm_proxy: bool | None
    """Whether requests go through a proxy of litellm."""
    ssl_verify: bool | str | None
    """Whether certificates are checked, or the path of those to check against."""
    client_id: str | None
    """Client of an OAuth login."""
    client_secret: str | None
    """Secret of an OAuth login."""
    tenant_id: str | None
    """Azure: tenant."""
    organization: str | None
    """OpenAI: organization that is billed."""
    project: str | None
    """OpenAI: project that is billed."""
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
    """Bedrock: role that is assumed."""
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
    """All settings of a request, whether they come from an LM, a predictor or an LMRequest."""
