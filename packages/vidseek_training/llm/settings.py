"""Which model writes captions, what it costs, and how it is asked: one closed, strict record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vidseek_media.errors import ConfigError

Grain = Literal["short", "sentence", "detail"]
GRAINS: tuple[Grain, ...] = get_args(Grain)
"""What is asked for of every clip, the coarsest first."""

_OURS = frozenset([
    "model", "messages", "contents", "responseformat", "responsemimetype", "responseschema", "responsejsonschema", "n",
    "bestof", "candidatecount", "maxtokens", "maxcompletiontokens", "maxoutputtokens", "stream", "tools", "functions",
    "automaticcontinuation", "automaticfunctioncalling", "httpoptions", "shouldreturnhttpresponse",
])
"""Fields that no option may set, in small letters without underscores: they would make the key or the budget wrong."""

_Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LlmSettings(BaseModel):
    """`caption.llm` of params.yaml. Address and key are no settings: they are read from the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["gemini", "openai"] = "gemini"
    """`openai` is every endpoint that speaks OpenAI's protocol: VIDSEEK_LLM_URL says where."""
    model: str | None = None
    usd_per_million_tokens_in: _Usd | None = None
    usd_per_million_tokens_out: _Usd | None = None
    budget_usd: _Usd = 1.0
    """Of all runs of this archive together; requests under way are counted at the most that they may cost."""
    prompt: str | None = None
    """None: `prompt.DEFAULT_PROMPT`. `{title}`, `{category}` and `{channel}` stand for those of the clip's video."""
    send: Literal["frames", "video"] = "frames"
    num_frames: int = Field(4, ge=1, le=100)
    """Of those in the shard, at the centres of equal parts of them."""
    video_side_px: int = Field(256, ge=16)
    video_fps: float = Field(2.0, gt=0, le=60)
    keep: tuple[Grain, ...] = Field(GRAINS, min_length=1)
    """Which of the captions become rows; all are asked for, so that another choice costs nothing."""
    cuts: tuple[Literal["captions", "windows", "shots"], ...] = Field(("captions", "windows", "shots"), min_length=1)
    """Only clips of these cuts are shown to the model."""
    max_clips: int | None = Field(None, ge=0)
    """At most so many clips of the archive, spread over it; None: all."""
    skip_marks: tuple[Literal["black", "flat", "frozen"], ...] = ("black", "flat", "frozen")
    concurrency: int = Field(4, ge=1, le=256)
    timeout_seconds: float = Field(60.0, gt=0)
    attempts: int = Field(5, ge=1)
    """Of one request, where it is worth another: too many requests, a fault of the server, no answer in time."""
    max_output_tokens: int = Field(1024, ge=64)
    """Of one answer, thoughts included."""
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What OpenAI's protocol calls it: newer models refuse max_tokens, older servers know nothing else."""
    tokens_per_picture: int = Field(258, ge=0)
    """A guess for the estimate; what the model's answers say corrects it."""
    tokens_per_second: int = Field(300, ge=0)
    """The same for `send: video`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the provider names them, but for those that decide what is asked and paid."""

    @model_validator(mode="after")
    def _video_is_geminis(self) -> LlmSettings:
        if self.send == "video" and self.provider != "gemini":
            raise ValueError("send: video is for provider: gemini; others take send: frames")
        return self

    @field_validator("options")
    @classmethod
    def _leave_ours_alone(cls, options: dict[str, Any]) -> dict[str, Any]:
        if ours := [name for name in options if name.replace("_", "").lower() in _OURS]:
            raise ValueError(f"{', '.join(ours)} is decided by the other keys of caption.llm")
        return options

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> LlmSettings:
        """The settings that a section of params says.

        Raises:
            ConfigError: a key is unknown or out of range; every fault is named.
        """
        try:
            return cls.model_validate(section)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(('caption.llm', *map(str, each['loc'])))} is {each['input']!r}: {each['msg']}"
                for each in error.errors()
            )
            raise ConfigError(faults, remedy="Mend params.yaml") from error

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
                    f"caption.sources lists llm, and caption.llm.{key} is not said",
                    remedy="Set it in params.yaml: prices as your provider states them, 0 for a model of your own",
                )

    def cost_usd(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost.

        Raises:
            ConfigError: a price is not said.
        """
        self.require_complete()
        assert self.usd_per_million_tokens_in is not None and self.usd_per_million_tokens_out is not None
        return (tokens_in * self.usd_per_million_tokens_in + tokens_out * self.usd_per_million_tokens_out) / 1e6
