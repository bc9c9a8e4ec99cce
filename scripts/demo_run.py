"""What a person sees of Switchyard first: a model trained a moment ago answers on the public port."""

import json
import os
import sys
import time
from typing import Any

import httpx

from scripts.compose_stack import ComposeStack
from scripts.stack import Stack
from scripts.stack_error import StackError

AnyStack = Stack | ComposeStack

TRAINER = "sklearn-model-1"
TRAINING_SECONDS = 900
# One patient of scikit-learn's diabetes data; its columns are centred and scaled.
PATIENT = {
    "age": 0.038, "sex": 0.051, "bmi": 0.062, "bp": 0.022, "s1": -0.044,
    "s2": -0.035, "s3": -0.043, "s4": -0.003, "s5": 0.020, "s6": -0.018,
}  # fmt: skip
ROWS = {"dataframe_records": [PATIENT]}


def main() -> int:
    began = time.monotonic()
    try:
        stack: AnyStack = (
            ComposeStack() if os.environ.get("RUNTIME") == "docker" else Stack.from_environment()
        )
        for line in stack.bring_up():
            say(line)
        trained = train_and_roll(stack)
        prediction = predict(stack)
    except StackError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: no longer waiting; what was started goes on. To end it: make down", file=sys.stderr)
        return 130
    print(summary(stack, trained, prediction, time.monotonic() - began))
    return 0


def say(line: str) -> None:
    print(f"demo: {line}", flush=True)


def train_and_roll(stack: AnyStack) -> dict[str, Any]:
    path = f"/admin/train_then_roll/{TRAINER}"
    say(f"POST {path}: trains, registers, probes, switches (the first time it installs the model's packages)")
    headers = {"Authorization": f"Bearer {stack.token}"} if stack.token else {}
    answer = post(stack, f"{stack.router_url}{path}", {"wait_seconds": TRAINING_SECONDS}, headers)
    if not answer.get("rolled"):
        raise StackError(
            f"{TRAINER} is not serving after {TRAINING_SECONDS} s; it goes on: {stack.router_url}"
            f"{answer.get('location', '/status')}"
        )
    say(f"version {answer['version']} of {answer['registered_model']} serves as {answer['active']}")
    return answer


def predict(stack: AnyStack) -> dict[str, Any]:
    say("POST /invocations on the public port")
    return post(stack, f"{stack.public_url}/invocations", ROWS)


def post(
    stack: AnyStack, url: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    try:
        response = httpx.post(url, json=body, headers=headers, timeout=TRAINING_SECONDS + 60, trust_env=False)
    except httpx.TransportError as error:
        raise StackError(f"{url} does not answer ({error!r}); logs: {stack.logs}") from error
    if response.status_code >= 400:
        raise StackError(f"{url} answers {response.status_code}\n{explain(response)}")
    answer: dict[str, Any] = response.json()
    return answer


def explain(response: httpx.Response) -> str:
    """The router's error as text, with the end of the trainer's or server's log if it came along."""
    try:
        body = response.json()
    except ValueError:
        return response.text
    error = body.get("error") or {}
    detail = body.get("detail")
    lines = [error.get("message"), error.get("hint")]
    if isinstance(detail, dict):
        lines.append((detail.get("rollout_error") or detail).get("logs_tail"))
    return "\n".join(line for line in lines if line) or response.text


def run_url(stack: AnyStack, run_id: str) -> str:
    api = f"{stack.mlflow_url}/api/2.0/mlflow/runs/get"
    try:
        answer = httpx.get(api, params={"run_id": run_id}, timeout=30, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise StackError(f"MLflow does not tell where run {run_id} is: {error}") from error
    experiment = answer.json()["run"]["info"]["experiment_id"]
    return f"{stack.mlflow_url}/#/experiments/{experiment}/runs/{run_id}"


def summary(stack: AnyStack, trained: dict[str, Any], prediction: dict[str, Any], seconds: float) -> str:
    return f"""
prediction   {json.dumps(prediction)}
model        {trained["model_uri"]}, trained and rolled out in this run of {seconds:.0f} s
its run      {run_url(stack, trained["run_id"])}
public URL   {stack.public_url}/invocations
router       {stack.router_url}/docs

ask again    curl -s {stack.public_url}/invocations -H 'Content-Type: application/json' \\
               -d '{json.dumps(ROWS)}'
stop it all  {stack.stop_command}"""


if __name__ == "__main__":
    sys.exit(main())
