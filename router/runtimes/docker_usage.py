"""What a container uses: one reading of its control groups, which Docker reports in two shapes."""

from router.runtimes.base import Usage
from router.runtimes.docker_client import DockerClient, Refused


async def read_usage(client: DockerClient, container_id: str) -> Usage | None:
    """None: it does not run."""
    try:
        # One shot: else Docker waits a second for a reading to compare this one with.
        stats = await client.call(
            "GET", f"/containers/{container_id}/stats", **{"stream": "0", "one-shot": "1"}
        )
    except Refused as refused:
        if refused.answer in (404, 409):  # gone, or ended
            return None
        raise
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    # Pages of files that can be dropped are not what the workload needs. Control groups v1, then v2.
    droppable = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu_seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return Usage(max(memory["usage"] - droppable, 0), cpu_seconds)
