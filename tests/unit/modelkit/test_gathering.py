"""Requests that come at once are answered together, and each as if it were alone."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from modelkit.manifest import Column
from modelkit.serve.gathering import Gathering
from modelkit.serve.lean import LeanProtocol

COLUMNS = (Column("a", "double"), Column("b", "double"))


class Sum:
    """Answers a row with its sum, and none of them where one has a 13, or raises where one has a 14."""

    def __init__(self) -> None:
        self.asked: list[int] = []  # rows at once

    def answer_matrix(self, rows: Any) -> list[Any] | None:
        self.asked.append(len(rows))
        cells = {cell for row in rows for cell in row}
        if 14 in cells:
            raise ValueError("no such value")
        return None if 13 in cells else [sum(row) for row in rows]

    def answer_columns(self, columns: Sequence[Sequence[Any]]) -> list[Any] | None:
        return self.answer_matrix(list(zip(*columns, strict=True)))


def ask(*rows: list[float]) -> bytes:
    return json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": rows}}).encode()


def tell(*predictions: float) -> bytes:
    return json.dumps({"predictions": predictions}, separators=(",", ":")).encode()


def test_requests_are_answered_by_one_run_each_with_its_own_rows() -> None:
    model = Sum()
    counted: list[int] = []
    lean = LeanProtocol(model, COLUMNS, "float64", counted.append)
    answers = lean.answer_together([ask([1, 2]), ask([3, 4], [5, 6]), ask([7, 8.5])])
    assert answers == [tell(3.0), tell(7.0, 11.0), tell(15.5)]
    assert model.asked == counted == [4]


def test_what_is_left_to_mlflow_spoils_nothing_for_others() -> None:
    model = Sum()
    lean = LeanProtocol(model, COLUMNS, "float64")
    bodies = [ask([1, 2]), b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}', b"\xff", ask([3, 4])]
    assert lean.answer_together(bodies) == [tell(3.0), None, None, tell(7.0)]
    assert model.asked == [2]


def test_rows_that_spoil_it_for_all_are_asked_one_request_at_a_time() -> None:
    for bad in (13, 14):  # it does not answer, or it raises
        lean = LeanProtocol(Sum(), COLUMNS, "float64")
        bodies = [ask([1, 2]), ask([bad, 1]), ask([3, 4])]
        assert lean.answer_together(bodies) == [tell(3.0), None, tell(7.0)]


def test_an_odd_request_leaves_the_others_together() -> None:
    class Finite(Sum):
        def answer_matrix(self, rows: Any) -> list[Any] | None:
            if any(cell is None or cell > 1e38 for row in rows for cell in row):
                self.asked.append(len(rows))
                return None
            return super().answer_matrix(rows)

    for odd in (b'{"inputs": {"a": [null], "b": [1]}}', ask([1e300, 1])):
        model = Finite()
        bodies = [ask([1, 2]), odd, *[ask([3, 4])] * 3]
        answers = LeanProtocol(model, COLUMNS, "float64").answer_together(bodies)
        assert answers == [tell(3.0), None, *[tell(7.0)] * 3]
        assert model.asked == [5, 4, 1]


def test_a_model_that_answers_too_few_rows_gives_nobody_anothers() -> None:
    class Short(Sum):
        def answer_matrix(self, rows: Any) -> list[Any] | None:
            found = super().answer_matrix(rows)
            return found if len(rows) == 1 else (found or [])[1:]

    lean = LeanProtocol(Short(), COLUMNS, "float64")
    assert lean.answer_together([ask([1, 2]), ask([3, 4])]) == [tell(3.0), tell(7.0)]


def test_requests_with_text_are_answered_each_by_itself() -> None:
    model = Sum()
    lean = LeanProtocol(model, (Column("a", "double"), Column("b", "integer")), "float64")
    assert lean.answer_together([ask([1.5, 2]), ask([3, 4])]) == [tell(3.5), tell(7)]
    assert model.asked == [1, 1]


class Counting:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def answer(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(len(bodies))
        return [body.upper() for body in bodies]


async def test_those_whose_turn_it_is_are_gathered_and_who_is_alone_is_answered_at_once() -> None:
    counting = Counting()
    gathering = Gathering(counting.answer)
    asked = (gathering.ask(b"%c" % letter) for letter in b"abc")
    assert await asyncio.gather(*asked) == [b"A", b"B", b"C"]
    assert counting.asked == [3]
    for _ in range(17):  # the first is found alone, the next 15 are taken to be, then it is looked again
        assert await gathering.ask(b"d") == b"D"
    assert counting.asked == [3] + [1] * 17
    assert list(await asyncio.gather(gathering.ask(b"e"), gathering.ask(b"f"))) == [b"E", b"F"]


async def test_a_run_has_so_many_bytes_and_who_has_many_rows_is_answered_at_once() -> None:
    counting = Counting()
    gathering = Gathering(counting.answer)
    small = [b"%04d" % number + b"x" * 1_020 for number in range(20)]
    answers = await asyncio.gather(*map(gathering.ask, [*small, b"y" * 3_000]))
    assert answers == [body.upper() for body in [*small, b"y" * 3_000]]
    assert counting.asked == [16, 1, 4]  # of 16 KiB, of one that waits for nobody, and the rest


async def test_who_has_gone_meanwhile_is_nobodys_trouble() -> None:
    gathering = Gathering(Counting().answer)
    gone, stays = asyncio.create_task(gathering.ask(b"a")), asyncio.create_task(gathering.ask(b"b"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == b"B"


async def test_nobody_waits_for_an_answer_that_was_never_made() -> None:
    def fail(_: Sequence[bytes]) -> list[bytes | None]:
        raise ValueError("it is broken")

    gathering = Gathering(fail)
    answers = await asyncio.gather(gathering.ask(b"a"), gathering.ask(b"b"), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["it is broken"] * 2
