"""What a rollout is tried on: a model with two versions, one that users get and one that is still warm."""

from dataclasses import dataclass

from router.core.models import Server, ServerPhase
from tests.integration.engine.aftermath import read_records, wait_until_at_rest
from tests.integration.engine.killing import Call
from tests.services.yard import Yard


@dataclass(frozen=True)
class Stage:
    yard: Yard
    model: str
    served: int  # the version that users get
    server_id: str
    warm_id: str  # the server of the other version
    launched: int  # servers until now

    @property
    def other(self) -> int:
        return 3 - self.served

    def roll(self, **fields: object) -> Call:
        return Call("/admin/roll", {"name": self.model, "ref": self.other, **fields})

    def launches(self) -> int:
        """Servers since the stage was set."""
        return len(read_records(self.yard, Server)) - self.launched


def set_stage(yard: Yard, model: str) -> Stage:
    """`model` has the versions 1 and 2."""
    served = 2
    while True:
        servers = read_records(yard, Server)
        active = yard.traffic()["active"]
        if active is not None and active["model_name"] == model:
            served = active["model_version"]
            for spare in servers:
                if (spare.phase, spare.model_name, spare.version) == (ServerPhase.WARM, model, 3 - served):
                    return Stage(yard, model, served, active["server_id"], spare.id, len(servers))
        yard.post("/admin/roll", {"name": model, "ref": 3 - served})
        wait_until_at_rest(yard)
