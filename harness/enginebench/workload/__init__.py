"""Makes the requests of a load: text or token ids of the prompts, their lengths, and when each is due. Exact under a seed.

Does not know engines, sockets or dialects.
"""

from pathlib import Path

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.domain import Load
from enginebench.workload.datasets import is_data_set
from enginebench.workload.forecast import check, largest_request, natural_count
from enginebench.workload.forms import completed, form_of
from enginebench.workload.prompts import Prompt, TextScale, drawn_prompts
from enginebench.workload.recorded import recorded_prompts
from enginebench.workload.reuse import reusable, shared_by

__all__ = ["Prompt", "TextScale", "check", "form_of", "largest_request", "make_prompts", "natural_count", "reusable", "shared_by"]


def make_prompts(
    vocabulary: Vocabulary | None,
    load: Load,
    count: int,
    *,
    salt: str,
    scale: TextScale | None = None,
    base: Path = Path(),
    limit: int | None = None,
) -> list[Prompt]:
    """The first `count` requests of a load, conversation after conversation (the last one may be incomplete).

    Lengths and due times depend on (load.seed, index) alone, so that every engine, repeat and run gets the same. The text of prompts
    and the order of a data set also depend on the salt.

    scale: how the server counts text; with a known tokenizer only its overhead is used. base: the folder that relative file names start
    from. limit: most tokens of a recorded prompt with its answer; longer ones are omitted.

    UserError for a load that `check` refuses, for a length that no tokenizer can confirm, and for a data set with too few prompts.
    """
    check(load, base)
    scale = scale or TextScale()
    if is_data_set(load.prompts):
        prompts = recorded_prompts(vocabulary, load, count, salt=salt, scale=scale, base=base, limit=limit)
    else:
        prompts = drawn_prompts(vocabulary, load, count, salt=salt, scale=scale, base=base)
    completed(prompts, load, salt)
    return prompts
