"""Which image a trainer runs from, and which one serves what it makes.

Under `docker` an image is an image. Under `process` it is a source folder, which holds both the trainer and
the server; there `trainer_image` and `serve_image` are not looked at, so that one spec serves both runtimes.

The first of these that is there counts:

- process, trainer: `image_options[key]`, `source`, TRAINER_IMAGE
- process, server: `serve_image_options[key]`, `image_options[key]`, `source`, SERVE_IMAGE, TRAINER_IMAGE
- docker, trainer: `image_options[key]`, `trainer_image`, TRAINER_IMAGE
- docker, server: `serve_image_options[key]`, `serve_image`, SERVE_IMAGE

A key that neither map has is refused; an empty one counts as none.
"""

from dataclasses import dataclass
from typing import Literal

from router.core.errors import InvalidSpec, UnknownImageKey
from router.core.specs import TrainerSpec

RuntimeKind = Literal["process", "docker"]


@dataclass(frozen=True)
class DefaultImages:
    """The settings TRAINER_IMAGE and SERVE_IMAGE, for specs that name none."""

    trainer: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class ChosenImages:
    trainer: str
    server: str


def choose_images(
    spec: TrainerSpec,
    image_key: str | None,
    *,
    runtime: RuntimeKind = "process",
    defaults: DefaultImages | None = None,
) -> ChosenImages:
    """Raises UnknownImageKey, naming the known ones; InvalidSpec, naming the field to set."""
    refuse_unknown_key(spec, image_key)
    defaults = defaults or DefaultImages()
    key = image_key or ""
    trainer = spec.image_options.get(key)
    server = spec.serve_image_options.get(key)
    if runtime == "process":
        folder = trainer or spec.source or defaults.trainer
        server = server or trainer or spec.source or defaults.server or folder
        return ChosenImages(
            _need(folder, spec, "source", "TRAINER_IMAGE"), _need(server, spec, "source", "SERVE_IMAGE")
        )
    return ChosenImages(
        _need(trainer or spec.trainer_image or defaults.trainer, spec, "trainer_image", "TRAINER_IMAGE"),
        _need(server or spec.serve_image or defaults.server, spec, "serve_image", "SERVE_IMAGE"),
    )


def refuse_unknown_key(spec: TrainerSpec, image_key: str | None) -> None:
    known = sorted({*spec.image_options, *spec.serve_image_options})
    if not image_key or image_key in known:
        return
    raise UnknownImageKey(
        f"the trainer {spec.name!r} has no image under the key {image_key[:80]!r}",
        hint=f"its keys are {', '.join(known)}" if known else f"it has no `image_options` ({spec.where})",
    )


def _need(image: str | None, spec: TrainerSpec, field: str, setting: str) -> str:
    if image is None:
        raise InvalidSpec(
            f"{spec.where}: the trainer {spec.name!r} does not say its `{field}`",
            hint=f"write `{field}` into the spec, or set {setting} for the router",
        )
    return image
