"""Reference models, trained and served for real, judged by what they answer: whatever their trainers said."""

import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from router.core.challenges import Challenge
from router.core.clock import SystemClock
from router.core.models import Server
from router.core.verdicts import Verdict
from router.engine.gates.base import Case, Ruling
from router.engine.gates.challenge import ChallengeGate
from router.engine.probing import Prober
from router.registries.mlflow import MlflowRegistry
from tests.integration.modelkit.conftest import Serve, Train
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking, TrainedVersion
from tests.records import make_rollout, make_server

pytestmark = pytest.mark.anyio

ROWS = 200
FEATURES = "size,kind"

TrainHouses = Callable[..., TrainedVersion]


def write_houses(path: Path, price: Callable[[int], float]) -> Path:
    lines = [f"{i},{i % 7},{price(i)}" for i in range(ROWS)]
    path.write_text("\n".join([f"{FEATURES},price", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def train_houses(train: Train, tracking: Tracking) -> TrainHouses:
    name = f"Houses-{uuid.uuid4().hex[:8]}"

    def run(table: Path, **variables: str) -> TrainedVersion:
        run_id = tracking.create_run(name)
        given = {"TARGET_COLUMN": "price", "N_ESTIMATORS": "5", "REGISTERED_MODEL_NAME": name}
        process = train(DATASET_PATH=str(table), MLFLOW_RUN_ID=run_id, **given, **variables)
        assert process.returncode == 0, process.stderr
        return tracking.version_of_run(run_id)

    return run


@pytest.fixture(scope="module")
def champion(train_houses: TrainHouses, tmp_path_factory: pytest.TempPathFactory) -> TrainedVersion:
    """It knows what houses cost."""
    return train_houses(write_houses(tmp_path_factory.mktemp("houses") / "houses.csv", lambda i: 3.0 * i))


@pytest.fixture(scope="module")
def boaster(train_houses: TrainHouses, tmp_path_factory: pytest.TempPathFactory) -> TrainedVersion:
    """Its run says that it makes no error at all, and its own held-out rows agree."""
    return train_houses(write_houses(tmp_path_factory.mktemp("houses") / "free.csv", lambda _: 7.0))


def describe(version: TrainedVersion, server: ModelServer) -> Server:
    return make_server(
        f"of-version-{version.version}",
        model_name=version.name,
        version=int(version.version),
        run_id=version.run_id,
        address=f"127.0.0.1:{server.port}",
    )


@asynccontextmanager
async def open_case(
    tracking: Tracking, champion: Server | None, candidate: Server, folder: Path
) -> AsyncIterator[Case]:
    clock = SystemClock()
    registry, prober = MlflowRegistry(tracking.url, clock), Prober(clock)
    await registry.start()
    try:
        rollout = make_rollout("r", model_name=candidate.model_name, version=candidate.version)
        with anyio.fail_after(120):
            yield Case(rollout, candidate, champion, registry, prober, clock, folder)
    finally:
        await prober.close()
        await registry.close()


async def judge(case: Case, **fields: object) -> Ruling:
    return await ChallengeGate(Challenge.model_validate({"metric": "rmse", **fields})).judge(case)


async def test_a_model_that_only_boasts_fails_and_one_as_good_passes(
    champion: TrainedVersion,
    boaster: TrainedVersion,
    train_houses: TrainHouses,
    serve: Serve,
    tracking: Tracking,
    tmp_path: Path,
) -> None:
    said = {entry["key"]: entry["value"] for entry in tracking.run(boaster.run_id)["data"]["metrics"]}
    assert said["rmse"] == 0.0
    equal = train_houses(write_houses(tmp_path / "houses.csv", lambda i: 3.0 * i))
    with serve(champion.uri) as first, serve(boaster.uri) as bad, serve(equal.uri) as good:
        serving = describe(champion, first)
        async with open_case(tracking, serving, describe(boaster, bad), tmp_path) as case:
            failed = await judge(case, relative_tolerance=0.1)
        async with open_case(tracking, serving, describe(equal, good), tmp_path) as case:
            passed = await judge(case)
            write_houses(tmp_path / "more.csv", lambda i: 3.0 * i)
            by_file = await judge(case, metric=["mae", "r2"], data="more.csv", target="price", rows=50)
        async with open_case(tracking, None, describe(boaster, bad), tmp_path) as case:
            alone = await judge(case, data="more.csv", target="price", max=60.0)
    assert failed.verdict is Verdict.FAILED, failed.reason
    assert failed.evidence["scores"]["candidate"]["rmse"] > 100
    assert failed.evidence["scores"]["champion"]["rmse"] < 20
    assert failed.evidence["rows"] == ROWS // 5
    assert passed.verdict is Verdict.PASSED, passed.reason
    # What the trainer of the champion found on the same rows, to what its compiled form is proven to.
    said = {entry["key"]: entry["value"] for entry in tracking.run(champion.run_id)["data"]["metrics"]}
    assert math.isclose(passed.evidence["scores"]["champion"]["rmse"], said["rmse"], rel_tol=1e-5)
    assert by_file.verdict is Verdict.PASSED, by_file.reason
    assert (by_file.evidence["rows"], by_file.evidence["rows_in_file"]) == (50, ROWS)
    assert alone.verdict is Verdict.FAILED, alone.reason


async def test_a_champion_that_goes_away_in_the_middle_leaves_it_open(
    champion: TrainedVersion, boaster: TrainedVersion, serve: Serve, tracking: Tracking, tmp_path: Path
) -> None:
    write_houses(tmp_path / "rows.csv", lambda i: 3.0 * i)  # two batches of 100
    with serve(champion.uri) as first, serve(boaster.uri) as bad:
        async with open_case(tracking, describe(champion, first), describe(boaster, bad), tmp_path) as case:
            answered: list[str] = []
            predict = case.prober.predict

            async def predict_and_stop(address: str, body: bytes, *, what: str) -> object:
                answer = await predict(address, body, what=what)
                answered.append(address)
                if len(answered) == 2:
                    first.terminate()
                    await to_thread.run_sync(first.wait, 60)
                return answer

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(case.prober, "predict", predict_and_stop)
                ruling = await judge(case, data="rows.csv", target="price")
    assert len(answered) == 2
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert ruling.reason.startswith("the champion cannot be scored: /invocations did not answer")


async def test_a_champion_whose_version_was_deleted_leaves_it_open(
    champion: TrainedVersion, train_houses: TrainHouses, serve: Serve, tracking: Tracking, tmp_path: Path
) -> None:
    gone = train_houses(write_houses(tmp_path / "houses.csv", lambda i: 3.0 * i))
    with serve(gone.uri) as first, serve(champion.uri) as other:
        tracking.delete_version(gone)
        async with open_case(tracking, describe(gone, first), describe(champion, other), tmp_path) as case:
            ruling = await judge(case)
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert ruling.reason.startswith("no held-out rows: ")


async def test_a_champion_that_kept_no_rows_leaves_it_open(
    champion: TrainedVersion, train_houses: TrainHouses, serve: Serve, tracking: Tracking, tmp_path: Path
) -> None:
    silent = train_houses(write_houses(tmp_path / "houses.csv", lambda i: 3.0 * i), HELD_OUT_ROWS="0")
    with serve(silent.uri) as first, serve(champion.uri) as other:
        async with open_case(tracking, describe(silent, first), describe(champion, other), tmp_path) as case:
            ruling = await judge(case)
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "has no file 'evaluation/held_out.json'" in ruling.reason
