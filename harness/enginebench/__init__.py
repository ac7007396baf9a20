"""enginebench compares LLM inference engines: it launches them, drives them with a load it can prove it delivered, and judges.

    import enginebench as eb

    run = eb.run(eb.plan("quickstart"))     # launch, measure, store
    run.rows[["engine", "output_throughput", "ttft_p50"]]
    print(eb.fit(eb.place("llama4-scout", "4xh100", precision="fp8")).fits)

`__init__.pyi` lists the public names. They are imported on first use, so that `import enginebench` and `bench --help` are fast.
"""

from functools import cache

__version__ = "0.2.0"


@cache
def _modules() -> dict[str, str]:
    """Public name -> the module that defines it: the lines 'from MODULE import NAME as NAME' of __init__.pyi."""
    with open(f"{__file__}i", encoding="utf-8") as stub:  # noqa: PTH123  # pathlib takes longer to import than this to read
        words = [line.split() for line in stub if line.startswith("from ")]
    return {name: module for _, module, _, name, *_ in words}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return sorted(_modules())
    if name.startswith("__") or name not in _modules():
        raise AttributeError(f"module 'enginebench' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_modules()[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_modules()})
