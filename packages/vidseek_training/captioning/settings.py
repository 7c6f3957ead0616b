"""Which model writes captions, what it costs, and how it is asked: one closed, strict record."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from vidseek_media.errors import ConfigError
from vidseek_media.settings import CutMode, QualityFlag, Section, faults_of
from vidseek_training.captioning.provider import CaptionProvider, Thinking
from vidseek_training.captioning.registry import caption_provider

CaptionDetail = Literal["short", "sentence", "detail"]
CAPTION_DETAILS: tuple[CaptionDetail, ...] = get_args(CaptionDetail)
"""What is asked for of every clip, the coarsest first."""

_OURS = frozenset([
    "model", "messages", "contents", "responseformat", "responsemimetype", "responseschema", "responsejsonschema", "n",
    "bestof", "candidatecount", "maxtokens", "maxcompletiontokens", "maxoutputtokens", "stream", "tools", "functions",
    "automaticcontinuation", "automaticfunctioncalling", "httpoptions", "shouldreturnhttpresponse",
])
"""Fields that no option may set, in small letters without underscores: they would make the key or the budget wrong."""

_Usd = Annotated[float, Field(ge=0)]


class LlmSettings(Section):
    """`caption.llm` of params.yaml. Address and key are no settings: they are read from the environment."""

    place = "caption.llm"
    unstated = ("*",)

    provider: str = "gemini"
    """gemini, or openai: any endpoint of that protocol, named by VIDSEEK_LLM_URL."""
    model: str | None = None
    """Your provider's small model that sees, by today's name: docs/captions.md says where to look. Names are retired."""
    usd_per_million_tokens_in: _Usd | None = None
    """As your provider states it; 0 for a model of your own."""
    usd_per_million_tokens_out: _Usd | None = None
    """As your provider states it; 0 for a model of your own."""
    budget_usd: _Usd = 1.0
    """Of all runs of this archive together. Requests under way are counted at the most that they may cost."""
    prompt: str | None = None
    """None: `prompt.DEFAULT_PROMPT`. `{title}`, `{category}` and `{channel}` stand for those of the clip's video."""
    send: Literal["frames", "video"] = "frames"
    """frames, or video: the clip itself, to a provider that takes it."""
    num_frames: int = Field(4, ge=1, le=100)
    """Of each clip, shown to the model. They are those in the shard at the centres of equal parts of them."""
    video_side_px: int = Field(256, ge=16)
    """Of the shorter side of a video that is sent."""
    video_fps: float = Field(2.0, gt=0, le=60)
    """Frames a second of a video that is sent."""
    keep: tuple[CaptionDetail, ...] = Field(CAPTION_DETAILS, min_length=1)
    """Which of its captions are kept. All are asked for, so that another choice costs nothing."""
    cuts: tuple[CutMode, ...] = Field(("captions", "windows", "shots"), min_length=1)
    """Only clips of these cuts are shown to the model."""
    max_clips: int | None = Field(None, ge=0)
    """At most so many clips of the archive, spread over it; None: all."""
    skip_quality_flags: tuple[QualityFlag, ...] = ("black", "flat", "frozen")
    """Clips with one of these marks are not shown to the model."""
    concurrency: int = Field(4, ge=1, le=256)
    """Requests under way at once."""
    timeout_seconds: float = Field(60.0, gt=0)
    """For one request."""
    attempts: int = Field(5, ge=1)
    """Of one request, where it is worth another: too many requests, a fault of the server, no answer in time."""
    thinking: Thinking = "auto"
    """How much a model may think before it answers. `auto`: as little as all models of its generation take, and nothing
    is said to others; `model`: nothing is said; none, minimal, low, medium, high; or a number of tokens (Gemini)."""
    max_output_tokens: int = Field(4096, ge=64)
    """Of one answer, thoughts included. An answer that is cut off there is asked for once more with four times the room."""
    max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = "auto"
    """What OpenAI's protocol calls it: its newer models refuse max_tokens, Ollama knows nothing else. `auto`:
    max_completion_tokens at OpenAI's address, max_tokens elsewhere, and the other where the server refuses the first."""
    tokens_per_picture: int | None = Field(None, ge=0)
    """For the estimate. None: by the provider's rule for the model and the picture's size. What the model's answers say
    corrects it."""
    tokens_per_second: int | None = Field(None, ge=0)
    """The same for `send: video`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the provider names them, but for those that decide what is asked and paid."""

    @model_validator(mode="after")
    def _fits_the_provider(self) -> LlmSettings:
        try:
            provider = caption_provider(self.provider)
            if self.send == "video" and provider.video_tokens is None:
                raise ValueError(f"send: video is for gemini; provider: {self.provider} takes send: frames")
            self._check_thinking(provider)
            if provider.options is not None:
                provider.options.model_validate(self.options)
        except ConfigError as error:
            raise ValueError(error.message) from error
        except ValidationError as error:
            raise ValueError("; ".join(fault.text for fault in faults_of(error, "options"))) from error
        return self

    def _check_thinking(self, provider: CaptionProvider) -> None:
        if isinstance(self.thinking, int) and not 0 <= self.thinking < self.max_output_tokens:
            raise ValueError(f"thinking is {self.thinking} tokens, wanted 0 or more, and less than max_output_tokens")
        if self.thinking != "auto" and (own := self._own_thinking(provider)):
            raise ValueError(f"thinking is {self.thinking}, and options say {', '.join(own)}: leave one away")
        self.thinking_fields()

    def _own_thinking(self, provider: CaptionProvider) -> list[str]:
        return [name for name in self.options if name.replace("_", "").lower() in provider.thinking_options]

    def thinking_fields(self) -> dict[str, Any]:
        """Return the fields of a request that limit thinking; none where `options` say it.

        Raises:
            ConfigError: the provider does not take `thinking`.
        """
        provider = caption_provider(self.provider)
        if provider.thinking_fields is None or self.model is None or self._own_thinking(provider):
            return {}
        return dict(provider.thinking_fields(self.model, self.thinking, self.max_output_tokens))

    def timeout_of(self, max_output_tokens: int | None) -> float:
        """Return the seconds that a request may take: more for an answer that may be longer than usual."""
        return self.timeout_seconds * max(1.0, (max_output_tokens or 0) / self.max_output_tokens)

    @field_validator("options")
    @classmethod
    def _leave_ours_alone(cls, options: dict[str, Any]) -> dict[str, Any]:
        if ours := [name for name in options if name.replace("_", "").lower() in _OURS]:
            raise ValueError(f"{', '.join(ours)} is decided by the other keys of caption.llm")
        return options

    @property
    def name(self) -> str:
        """Provider and model, as the column `writer` has them."""
        return f"{self.provider}/{self.model}"

    def require_complete(self) -> None:
        """Check what has no default.

        Raises:
            ConfigError: the model or a price is not said.
        """
        for key in ("model", "usd_per_million_tokens_in", "usd_per_million_tokens_out"):
            if getattr(self, key) is None:
                raise ConfigError(
                    f"caption.sources lists llm, and caption.llm.{key} is not said", code="setting-missing",
                    remedy="Set it in params.yaml: prices as your provider states them, 0 for a model of your own",
                )

    def cost_usd(self, tokens_in: float, tokens_out: float) -> float:
        """Return what so many tokens cost.

        Raises:
            ConfigError: a price is not said.
        """
        self.require_complete()
        assert self.usd_per_million_tokens_in is not None and self.usd_per_million_tokens_out is not None
        return (tokens_in * self.usd_per_million_tokens_in + tokens_out * self.usd_per_million_tokens_out) / 1e6
