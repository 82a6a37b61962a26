"""Train the embedded answerer, from a seed to the file that llama.cpp loads.

    python data/recipes/answerer/train.py --out OUT --minutes 12

Needs the packages of the extra "train". Eight minutes of an H100 or about an hour of two CPU
cores. An interrupted run continues from OUT/state.pt.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from multiprocessing import Value
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.answerer import text, tokeniser
from data.recipes.answerer.model import Answerer, Shape
from data.recipes.domain import Exchange

IGNORED = -100
_BUCKET = 32


def encode(tokens: tokeniser.Tokenizer, exchanges: list[Exchange]) -> tuple[list[int], list[int]]:
    """A dialogue as token ids and as targets; only the assistant's tokens are learned."""
    ids: list[int] = []
    targets: list[int] = []
    for exchange in exchanges:
        said = tokens.encode(f" {exchange.user}", add_special_tokens=False).ids
        answer = tokens.encode(f" {exchange.assistant}", add_special_tokens=False).ids
        asked = [tokeniser.USER, *said, tokeniser.END, tokeniser.ASSISTANT]
        reply = [*answer, tokeniser.END]
        ids += asked + reply
        targets += [IGNORED] * len(asked) + reply
    return ids, targets


def batch_of(rows: list[tuple[list[int], list[int]]], context: int) -> tuple[Tensor, Tensor]:
    """Rows as inputs and next-token targets, padded to a common length."""
    longest = min(max(len(ids) for ids, _ in rows), context)
    length = -(-longest // _BUCKET) * _BUCKET
    inputs = torch.full((len(rows), length), tokeniser.END)
    targets = torch.full((len(rows), length), IGNORED)
    for row, (ids, wanted) in enumerate(rows):
        kept = min(len(ids), length)
        inputs[row, :kept] = torch.tensor(ids[:kept])
        targets[row, : kept - 1] = torch.tensor(wanted[1:kept])
    return inputs, targets


class Dialogues(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of fresh dialogues without end; `share` says how far the training has come."""

    def __init__(self, vocabulary: Path, seed: int, batch: int, share: Value) -> None:  # type: ignore[valid-type]
        self.vocabulary = vocabulary
        self.seed = seed
        self.batch = batch
        self.share = share

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}/{self.share.value}")
        tokens = tokeniser.load(self.vocabulary)
        while True:
            # Copying is drilled in half of the data, and fades out from 30 to 60 % of the run.
            copy = 0.5 * min(max((0.6 - self.share.value) / 0.3, 0.0), 1.0)
            yield batch_of(
                [encode(tokens, text.training_dialogue(rng, copy)) for _ in range(self.batch)],
                context=512,
            )


def rate_at(share: float, step: int, highest: float) -> float:
    """Learning rate: a warm-up over 300 steps, then a cosine to a fiftieth."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return highest * cosine * min(1.0, (step + 1) / 300)


def groups(model: Answerer) -> list[dict[str, object]]:
    """Weight decay for the matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]


def train(arguments: argparse.Namespace) -> None:
    """Train within the budget, writing `state.pt` on the way and `weights.pt` at the end."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu")
        if arguments.device == "auto"
        else arguments.device
    )
    vocabulary = out / "tokenizer.json"
    if not vocabulary.exists():
        tokeniser.train(arguments.seed).save(str(vocabulary))
    model = Answerer(Shape()).to(device)
    fused = device.type == "cuda"
    optimiser = torch.optim.AdamW(groups(model), lr=arguments.rate, betas=(0.9, 0.98), fused=fused)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    step, spent = 0, 0.0
    if (state_file := out / "state.pt").exists():
        state = torch.load(state_file, map_location=device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]
    budget = arguments.minutes * 60
    share = Value("d", spent / budget)
    loader = DataLoader(
        Dialogues(vocabulary, arguments.seed, arguments.batch, share),
        batch_size=None,
        num_workers=arguments.workers,
        prefetch_factor=8 if arguments.workers else None,
        pin_memory=device.type == "cuda",
    )
    started = saved = shown = time.monotonic()
    before = spent
    for inputs, targets in loader:
        now = time.monotonic()
        spent = before + now - started
        share.value = spent / budget
        if spent >= budget:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate_at(share.value, step, arguments.rate)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(inputs.to(device, non_blocking=True))
        loss = F.cross_entropy(
            logits.float().flatten(0, 1), targets.to(device).flatten(), ignore_index=IGNORED
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(0.998, 1 - 1 / (step + 1))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.parameters()), 1 - keep)
        if now - shown > 10:
            shown = now
            print(f"step {step}  {spent:.0f} of {budget:.0f} s  loss {loss.item():.4f}", flush=True)
        if now - saved > 60:
            saved = now
            save_state(out, model, optimiser, average, step, spent)
    save_state(out, model, optimiser, average, step, spent)
    torch.save({name: p.half().cpu() for name, p in average.items()}, out / "weights.pt")
    print(f"{step} steps in {spent / 60:.1f} min on {device}; weights in {out / 'weights.pt'}")


def save_state(
    out: Path,
    model: Answerer,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    spent: float,
) -> None:
    """Write everything that a later run needs to go on."""
    torch.save(
        {
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average,
            "step": step,
            "spent": spent,
        },
        out / "state.tmp",
    )
    (out / "state.tmp").replace(out / "state.pt")


def main() -> None:
    """Read the arguments, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--no-export", action="store_true", help="leave the GGUF file out")
    arguments = parser.parse_args()
    train(arguments)
    if not arguments.no_export:
        from data.recipes.answerer.export import export

        print(f"wrote {export(arguments.out, arguments.out / 'lab-llm-en.gguf')}")


if __name__ == "__main__":
    main()
