"""The composition root: from settings to drivers, engine and application. Only here are drivers named."""

from dataclasses import dataclass

from fastapi import FastAPI

from router.api.app import make_app
from router.core.clock import Clock, SystemClock
from router.core.ids import RandomIds
from router.core.strategies import Strategy
from router.core.versions import read_reference
from router.engine.context import Context, Policy
from router.engine.engine import Engine
from router.engine.ledger import Ledger
from router.engine.probing import Prober
from router.engine.spec_files import SpecFiles
from router.proxies.base import Proxy
from router.proxies.caddy_admin import CaddyAdmin
from router.proxies.caddy_config import CaddyLayout
from router.proxies.caddy_slots import CaddySlots
from router.proxies.slot_lock import SlotLock
from router.registries.base import Registry
from router.registries.mlflow import MlflowRegistry
from router.runtimes.base import Runtime
from router.runtimes.docker import DockerRuntime
from router.runtimes.docker_create import Placement
from router.runtimes.process import ProcessRuntime
from router.settings import DEFAULT_SERVE_PORT, Settings
from router.stores.base import Store
from router.stores.sql import SqlStore


@dataclass
class Drivers:
    """One driver for each port, replaceable before the engine is built from them."""

    runtime: Runtime
    proxy: Proxy
    registry: Registry
    store: Store


def build_drivers(settings: Settings, clock: Clock) -> Drivers:
    return Drivers(
        runtime=build_runtime(settings),
        proxy=build_proxy(settings),
        registry=MlflowRegistry(settings.mlflow_tracking_uri, clock),
        store=SqlStore(settings.store_url),
    )


def build_runtime(settings: Settings) -> Runtime:
    if settings.runtime == "docker":
        return DockerRuntime(
            address=settings.docker_host,
            pull_seconds=settings.docker_pull_sec,
            placement=Placement(
                instance=settings.docker_instance,
                trainer_network=settings.docker_trainer_network,
                server_network=settings.docker_server_network,
                serve_port=settings.serve_port or DEFAULT_SERVE_PORT,
                volume_prefix=settings.docker_volume_prefix,
                cache_prefix=settings.docker_cache_prefix,
                pids_limit=settings.docker_pids_limit,
                log_max_size=settings.docker_log_max_size,
                log_max_files=settings.docker_log_max_files,
                gpus=settings.docker_gpus,
                environment=settings.container_environment(),
            ),
        )
    return ProcessRuntime(
        state=settings.state_path / "process",
        project_root=settings.project_root,
        ports=settings.process_ports,
        environment=settings.child_environment(),
        build_environment=settings.build_environment(),
    )


def build_proxy(settings: Settings) -> Proxy:
    layout = CaddyLayout(
        public_listen=f"{settings.proxy_listen_host or ''}:{settings.proxy_public_port}",
        idle_address=f"127.0.0.1:{settings.proxy_idle_port}",
        admin_socket=settings.proxy_admin_url,
        access_log=settings.access_log_path,
    )
    driver = CaddySlots if settings.proxy == "caddy_slots" else CaddyAdmin
    return driver(layout=layout, slots=settings.slots_path, config_path=settings.caddy_config_path)


def build_engine(settings: Settings, drivers: Drivers, clock: Clock) -> Engine:
    context = Context(
        runtime=drivers.runtime,
        proxy=drivers.proxy,
        registry=drivers.registry,
        store=drivers.store,
        specs=SpecFiles(settings.specs_path, settings.spec_variables(), clock),
        prober=Prober(clock),
        clock=clock,
        ids=RandomIds(),
        policy=build_policy(settings),
        ledger=Ledger(drivers.store, clock),
    )
    return Engine(context, SlotLock(settings.slots_path))


def build_policy(settings: Settings) -> Policy:
    return Policy(
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
        public_url=settings.public_url,
        runtime_kind=settings.runtime,
        production_alias=settings.production_alias,
        trainer_image=settings.trainer_image,
        serve_image=settings.serve_image,
        trainer_timeout=settings.trainer_timeout_sec,
        health_timeout=settings.health_timeout_sec,
        drain_grace=settings.drain_grace_sec,
        warm_seconds=settings.warm_seconds,
        alias_poll_seconds=settings.alias_poll_sec,
        default_model_name=settings.default_model_name,
        default_model_version=read_reference(settings.default_model_version),
        canary_probability=settings.canary_probability,
        challenges=settings.challenge_path,
        plan=Strategy(bake=settings.rollout_bake_sec),
    )


def build_app(settings: Settings) -> FastAPI:
    clock = SystemClock()
    token = settings.switchyard_token.get_secret_value() if settings.switchyard_token else None
    engine = build_engine(settings, build_drivers(settings, clock), clock)
    return make_app(engine, token, known_hosts={settings.public_host, settings.router_host})
