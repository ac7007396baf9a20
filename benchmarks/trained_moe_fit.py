"""Trains the model of trained_moe.py, in transformers' environment: next token, and the usual small loss for balance (0.001)."""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

STEPS, SEQUENCES, TOKENS, RATE, BALANCE = 450, 6, 128, 2e-3, 0.001


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "untrained", dtype=torch.float32, experts_implementation="eager")
    model.router_aux_loss_coef = BALANCE
    for name, weights in model.named_parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.02 if "embed" in name or "lm_head" in name else 0.06)
    texts = [torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("text", "code")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    draws = torch.Generator().manual_seed(1)
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * max(0.05, 1 - step / STEPS)
        starts = [(text, torch.randint(0, len(text) - TOKENS, (SEQUENCES,), generator=draws)) for text in texts]
        ids = torch.stack([text[start : start + TOKENS] for text, each in starts for start in each.tolist()])
        loss = model(input_ids=ids, labels=ids, output_router_logits=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder / "trained")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
