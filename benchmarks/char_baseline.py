"""A plain PyTorch loop on the characters of tinyshakespeare: the baseline for our language models.

    LIT_AIGC_DATA=DATA python benchmarks/char_baseline.py [--json OUT] [--iterations 2000]

The CPU setting that nanoGPT's README publishes (1.88 nats per character there): the GPT-2 block, learned positions,
4 layers, 4 heads, 128 wide, context 64, batches of 12, 2,000 iterations, AdamW, float32; every 250 iterations the loss
of 20 batches of each split. It uses nothing of lit_aigc. It prints the seconds of training T, those evaluations
included, and then the nats per character of the whole validation text, in windows of its context that don't overlap.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
RATE, LAST_RATE, WARM_UP, BETAS, DECAY, CLIP = 1e-3, 1e-4, 100, (0.9, 0.99), 0.1, 1.0
EVERY, BATCHES = 250, 20


class Block(nn.Module):
    """Attention and a perceptron, each on a normalized copy, added back (Radford et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # (n, heads, t, d) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """GPT-2 without biases; the output layer is the embedding."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)

    def loss(self, ids: Tensor, reduction: str = "mean") -> Tensor:
        """Nats of ``ids[:, 1:]``, given what is before each."""
        return F.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction=reduction)


def rate(iteration: int, iterations: int) -> float:
    """The learning rate: linear up, then a cosine down."""
    warm_up = min(WARM_UP, iterations // 2)
    if iteration < warm_up:
        return RATE * (iteration + 1) / (warm_up + 1)
    share = (iteration - warm_up) / (iterations - warm_up)
    return LAST_RATE + (RATE - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2


def batch(ids: Tensor) -> Tensor:
    """``(BATCH, CONTEXT + 1)`` crops from anywhere."""
    return torch.stack([ids[start : start + CONTEXT + 1] for start in torch.randint(len(ids) - CONTEXT, (BATCH,))])


@torch.inference_mode()
def estimate(model: GPT, ids: Tensor) -> float:
    """Mean loss of some random batches, as the published loop shows it."""
    return sum(model.loss(batch(ids)).item() for _ in range(BATCHES)) / BATCHES


def train(model: GPT, train_ids: Tensor, val_ids: Tensor, iterations: int) -> float:
    """Trains, shows how it goes, and returns the seconds."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    started = time.perf_counter()
    for iteration in range(iterations + 1):
        if iteration % EVERY == 0 or iteration == iterations:
            losses = [estimate(model, ids) for ids in (train_ids, val_ids)]
            passed = time.perf_counter() - started
            print(f"{iteration:>5}  train {losses[0]:.4f}  val {losses[1]:.4f}  {passed:.1f} s", flush=True)
        if iteration == iterations:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(iteration, iterations)
        loss = model.loss(batch(train_ids))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    return time.perf_counter() - started


@torch.inference_mode()
def whole(model: GPT, ids: Tensor) -> float:
    """Nats per character of all the text, each window without what came before it."""
    targets = len(ids) - 1
    full = targets // CONTEXT * CONTEXT
    rows = ids[: full + 1].unfold(0, CONTEXT + 1, CONTEXT)
    total = sum(model.loss(part, "sum").item() for part in rows.split(128))
    if full < targets:
        total += model.loss(ids[None, full:], "sum").item()
    return total / targets


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments.add_argument("--iterations", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=1337)
    options = arguments.parse_args()

    text = (Path(os.environ["LIT_AIGC_DATA"]) / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    alphabet = {character: place for place, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([alphabet[character] for character in text])
    train_ids, val_ids = ids.tensor_split([int(0.9 * len(ids))])
    torch.manual_seed(options.seed)
    model = GPT(len(alphabet))
    seconds = train(model, train_ids, val_ids, options.iterations)
    numbers = {
        "train_seconds": seconds,
        "nats_per_char": whole(model, val_ids),
        "iterations": options.iterations,
        "parameters": sum(p.numel() for p in model.parameters()),
        "characters": len(val_ids) - 1,
        "threads": torch.get_num_threads(),
        "seed": options.seed,
    }
    for name, value in numbers.items():
        print(f"{name:<14}{value:>12.4f}" if isinstance(value, float) else f"{name:<14}{value:>12,}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
