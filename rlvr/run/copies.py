"""Copies of a sampler, each in a process of its own: `sampling.copies`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from rlvr.protocols import ModelSpec, SamplerFactory, SamplerOptions
from rlvr.run.sampler_process import ProcessSampler
from rlvr.run.several import Several
from rlvr.run.threads import shares


class CopiesFactory:
    """Makes `copies` samplers in as many processes, behind one."""

    Options: ClassVar[type[SamplerOptions]]

    def __init__(
        self, factory: SamplerFactory, copies: int, threads: int | None = None, *, at_once: bool = False
    ) -> None:
        """Make samplers of `factory` that divide the threads of one process; see `run.threads` for these."""
        self._factory, self._copies, self._threads, self._at_once = factory, copies, threads, at_once
        self.Options = factory.Options  # type: ignore[misc]

    def __call__(self, model: ModelSpec, options: SamplerOptions, /) -> Several:
        """Start the processes, and load the model in each."""
        threads = max(1, shares(model.device, self._threads, at_once=self._at_once).sampler // self._copies)
        with ThreadPoolExecutor(self._copies) as pool:
            starting = [
                pool.submit(ProcessSampler, self._factory, model, options, threads) for _ in range(self._copies)
            ]
        failed = [error for each in starting if (error := each.exception()) is not None]
        if failed:
            for each in starting:
                if each.exception() is None:
                    each.result().close()
            raise failed[0]
        return Several([each.result() for each in starting])
