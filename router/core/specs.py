"""What a trainer spec may say."""

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """Limits of one trainer or server. `required: false` lets a runtime that has no limits ignore them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: float | None = Field(default=None, gt=0, le=1024, allow_inf_nan=False)
    memory: int | None = Field(default=None, ge=4 * 1024 * 1024)  # bytes
    pids: int | None = Field(default=None, ge=1)
    required: bool = True

    @property
    def empty(self) -> bool:
        return self.cpus is None and self.memory is None and self.pids is None
