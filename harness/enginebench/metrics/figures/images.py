"""What images cost in prompt tokens, as the server counts them."""

import numpy as np

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.figures.requests import isl
from enginebench.metrics.registry import Shown, metric, one


@metric(
    "tokens per image", header="tok/image", scope="cell", unit="tok", better=None,
    missing="the load sends no images, or the server does not count prompts", shown=(Shown(56, 13, least=0.001),),
)  # fmt: skip
def image_tokens(c: Context) -> Floats:
    """Tokens per image: (prompt tokens that the server counts - tokens of the text) / images, mean over the requests.

    It depends on the model and on the size of an image. Marks that a server writes around an image count too.
    """
    images = c.record.load.images if c.record is not None else 0
    over = (isl(c) - c.samples.asked_input_tokens)[(c.samples.turn == 0) & ~np.isnan(isl(c))]
    return one(float(over.mean()) / images if images and len(over) else None)
