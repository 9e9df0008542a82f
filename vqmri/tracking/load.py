"""The machine's load while a run goes on, in MLflow's names for it."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

# isort: split
# By way of vqmri.tracking.mlflow, which sets MLflow's environment before it imports this.
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

INTERVAL = 10.0  # seconds, as MLflow's own


class Load:
    """Gives `take` the load of processor, memory, disk, network and GPU until it is stopped.

    MLflow's own monitor asks the server at every turn, and ends for good when it does not answer.
    """

    def __init__(self, take: Callable[[Mapping[str, float], int], None]) -> None:
        self._take, self._stopped = take, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vqmri-load", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(1)

    def _watch(self) -> None:
        monitors = _monitors()
        interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL
        step = 0
        while not self._stopped.is_set():
            for monitor in monitors:
                monitor.collect_metrics()
            if self._stopped.wait(interval):
                break
            found: dict[str, float] = {}
            for monitor in monitors:
                found |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            self._take({f"system/{name}": value for name, value in found.items()}, step)
            step += 1


def _monitors() -> list[BaseMetricsMonitor]:
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # as MLflow has it: without a GPU its library is missing or refuses
        monitors.append(GPUMonitor())
    return monitors
