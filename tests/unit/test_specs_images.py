"""Which image or folder a trainer and its server come from."""

import pytest

from router.core.errors import InvalidSpec, UnknownImageKey
from router.core.images import ChosenImages, DefaultImages, RuntimeKind, choose_images
from router.core.specs import TrainerSpec, parse_specs

FULL = """\
trainer_image: trainer:1, image_options: {gpu: for-gpu, cpu: for-cpu}, serve_image: server:1,
serve_image_options: {gpu: serve-gpu, tpu: serve-tpu}, source: folder"""


def spec(fields: str) -> TrainerSpec:
    return parse_specs(f"forest: {{{fields}}}", "a.yaml", {})["forest"]


@pytest.mark.parametrize(
    ("runtime", "key", "trainer", "server"),
    [
        ("docker", None, "trainer:1", "server:1"),
        ("docker", "", "trainer:1", "server:1"),
        ("docker", "gpu", "for-gpu", "serve-gpu"),
        ("docker", "cpu", "for-cpu", "server:1"),
        ("docker", "tpu", "trainer:1", "serve-tpu"),
        ("process", None, "folder", "folder"),
        ("process", "", "folder", "folder"),
        ("process", "gpu", "for-gpu", "serve-gpu"),
        ("process", "cpu", "for-cpu", "for-cpu"),
        ("process", "tpu", "folder", "serve-tpu"),
    ],
)
def test_a_spec_says_where_trainer_and_server_come_from(
    runtime: RuntimeKind, key: str | None, trainer: str, server: str
) -> None:
    defaults = DefaultImages("default-trainer", "default-server")
    assert choose_images(spec(FULL), key, runtime=runtime, defaults=defaults) == ChosenImages(trainer, server)


@pytest.mark.parametrize("runtime", ["process", "docker"])
def test_settings_stand_in_for_what_the_spec_leaves_out(runtime: RuntimeKind) -> None:
    chosen = choose_images(spec("timeout: 1"), None, runtime=runtime, defaults=DefaultImages("t", "s"))
    assert chosen == ChosenImages("t", "s")


def test_a_folder_of_a_trainer_holds_its_server_too() -> None:
    assert choose_images(spec(""), None, defaults=DefaultImages(trainer="t")) == ChosenImages("t", "t")


@pytest.mark.parametrize("runtime", ["process", "docker"])
def test_an_unknown_key_is_refused_with_the_known_ones(runtime: RuntimeKind) -> None:
    with pytest.raises(UnknownImageKey, match="'forest' has no image under the key 'npu'") as caught:
        choose_images(spec(FULL), "npu", runtime=runtime)
    assert caught.value.hint == "its keys are cpu, gpu, tpu"


def test_a_spec_without_options_says_so() -> None:
    with pytest.raises(UnknownImageKey) as caught:
        choose_images(spec("source: x"), "cpu")
    assert caught.value.hint == "it has no `image_options` (a.yaml, line 1)"


@pytest.mark.parametrize(
    ("runtime", "fields", "field", "setting"),
    [
        ("process", "trainer_image: t, serve_image: s", "source", "TRAINER_IMAGE"),
        ("docker", "source: x, serve_image: s", "trainer_image", "TRAINER_IMAGE"),
        ("docker", "trainer_image: t", "serve_image", "SERVE_IMAGE"),
    ],
)
def test_what_is_missing_is_named_with_how_to_give_it(
    runtime: RuntimeKind, fields: str, field: str, setting: str
) -> None:
    with pytest.raises(InvalidSpec, match=f"a.yaml, line 1: .* does not say its `{field}`") as caught:
        choose_images(spec(fields), None, runtime=runtime)
    assert setting in str(caught.value.hint)
