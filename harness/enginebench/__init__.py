"""enginebench compares LLM inference engines: it launches them, drives them with a load it can prove it delivered, and judges.

    import enginebench as eb

    run = eb.run(eb.plan("quickstart"))     # launch, measure, store
    run.rows[["engine", "output_throughput", "ttft_p50"]]
    print(eb.fit(eb.place("llama4-scout", "4xh100", precision="fp8")).fits)

`enginebench.api` defines the public names. They are imported on first use, so that `import enginebench` and `bench --help` are fast.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from enginebench.api import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        return getattr(import_module("enginebench.api"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
