"""Train the embedded voice, from a seed to the files that Piper loads.

    python data/recipes/voice/train.py --out OUT

Needs the program flite and the packages of the extra "train". On one CPU thread: ten minutes
of speech and analysis, then `--minutes` of training; `--workers` does the former in parallel.
An interrupted run continues from OUT/state.pt, and a finished one is only exported again.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.voice import corpus as corpora
from data.recipes.voice import features
from data.recipes.voice.model import Acoustic, Prediction, Shape
from data.recipes.voice.texts import training_texts

SEED = 17
HELD_BACK = 30
"""Sentences that only watch the training."""


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, padded with zeros.

    Attributes:
        ids: `(batch, symbols)`.
        durations: `(batch, symbols)`.
        frames: Scaled features, `(batch, frames, features.WIDTH)`.
        symbol_mask: 1 where there is a symbol, `(batch, symbols, 1)`.
        frame_mask: 1 where there is a frame, `(batch, frames, 1)`.
    """

    ids: Tensor
    durations: Tensor
    frames: Tensor
    symbol_mask: Tensor
    frame_mask: Tensor


@dataclass(frozen=True)
class Example:
    """One sentence on the device that trains: ids, durations, scaled features."""

    ids: Tensor
    durations: Tensor
    frames: Tensor


def main() -> None:
    """Make the corpus, train, export."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "corpus.npz"
    if not path.exists():
        texts = training_texts(SEED, corpora.dictionary(), options.scale)
        corpora.build(texts, path, options.workers)
    run = Run(corpora.load(path), options.out / "state.pt", options.device, options.batch)
    run.train(options.minutes * 60)
    torch.save(run.averaged().state_dict(), options.out / "weights.pt")
    if options.export:
        from data.recipes.voice.export import export

        export(run.averaged(), options.out / "lab-voice-en.onnx")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all files")
    parser.add_argument("--minutes", type=float, default=28.0, help="training, over all runs")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the corpus")
    parser.add_argument("--workers", type=int, default=1, help="processes that make the corpus")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training")
    parser.add_argument("--batch", type=int, default=8, help="sentences in one step")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--export", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


class Run:
    """One training, which may be interrupted and continued."""

    def __init__(
        self, sentences: Sequence[corpora.Sentence], state: Path, device: str, batch: int
    ) -> None:
        """Continue from `state` where it exists."""
        self._state, self._device, self._batch = state, device, batch
        self._model = Acoustic(Shape()).to(device)
        _set_scale(self._model, sentences[HELD_BACK:])
        examples = [_example(sentence, self._model, device) for sentence in sentences]
        self._watched, self._examples = examples[:HELD_BACK], examples[HELD_BACK:]
        self._average = {k: v.clone() for k, v in self._model.state_dict().items()}
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._steps, self._spent = 0, 0.0
        if state.exists():
            self._restore()

    def averaged(self) -> Acoustic:
        """The network with the moving average of the weights."""
        model = Acoustic(Shape())
        model.load_state_dict({k: v.cpu() for k, v in self._average.items()})
        return model.eval()

    def train(self, budget_s: float) -> None:
        """Train until `budget_s` of training are spent, over all runs."""
        saved = now = time.monotonic()
        for batch in self._batches():
            if self._spent >= budget_s:
                break
            loss = self._step(batch, self._spent / budget_s)
            before, now = now, time.monotonic()
            self._spent += now - before
            if self._steps % 100 == 0:
                print(f"{self._spent:6.0f} s  step {self._steps}  loss {loss:.4f}", flush=True)
            if now - saved > 120:
                saved = now
                self._save()
        self._save()
        print(f"trained {self._spent / 60:.1f} minutes, {self._steps} steps, on {self._device}")

    def _step(self, batch: Batch, progress: float) -> float:
        warm = min(1.0, (self._steps + 1) / 100)
        cosine = 0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self._optimiser.param_groups:
            group["lr"] = 2e-3 * warm * cosine
        self._model.train()
        loss = _loss(_predicted(self._model, batch), batch)
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        self._steps += 1
        self._follow(min(0.995, self._steps / (self._steps + 20)))
        return loss.item()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for name, value in self._model.state_dict().items():
            self._average[name].lerp_(value, 1 - decay)

    def _batches(self) -> Iterator[Batch]:
        """Sentences of like length together, for ever."""
        rng = random.Random(SEED + self._steps)
        while True:
            order = sorted(self._examples, key=lambda e: len(e.frames) * rng.uniform(0.8, 1.25))
            size = self._batch
            groups = [order[i : i + size] for i in range(0, len(order), size)]
            rng.shuffle(groups)
            for group in groups:
                yield _batch(group)

    @torch.no_grad()
    def watch(self) -> float:
        """Loss over sentences that do not train, with the averaged weights."""
        model = self.averaged().to(self._device)
        batches = [_batch([example]) for example in self._watched]
        return float(np.mean([_loss(_predicted(model, b), b).item() for b in batches]))

    def _save(self) -> None:
        state = {
            "model": self._model.state_dict(),
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
            "spent": self._spent,
        }
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)
        print(f"{self._spent:6.0f} s  saved; loss held back {self.watch():.4f}", flush=True)

    def _restore(self) -> None:
        state = torch.load(self._state, map_location=self._device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps, self._spent = state["steps"], state["spent"]


def _set_scale(model: Acoustic, sentences: Sequence[corpora.Sentence]) -> None:
    """Unit deviation; voicing and aperiodicity keep their meaning."""
    frames = np.concatenate([s.frames for s in sentences])
    mean, deviation = frames.mean(0), frames.std(0)
    voiced = frames[frames[:, features.VOICING] > 0.5, features.LOG_F0]
    mean[features.LOG_F0], deviation[features.LOG_F0] = voiced.mean(), voiced.std()
    mean[features.VOICING :], deviation[features.VOICING :] = 0.0, 1.0
    model.mean.copy_(torch.from_numpy(mean))
    model.deviation.copy_(torch.from_numpy(deviation))


def _example(sentence: corpora.Sentence, model: Acoustic, device: str) -> Example:
    frames = torch.from_numpy(sentence.frames).to(device)
    return Example(
        torch.from_numpy(sentence.ids).to(device),
        torch.from_numpy(sentence.durations).to(device),
        (frames - model.mean.to(device)) / model.deviation.to(device),
    )


def _batch(examples: Sequence[Example]) -> Batch:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([e.ids for e in examples], batch_first=True)
    frames = pad([e.frames for e in examples], batch_first=True)
    lengths = torch.tensor([len(e.frames) for e in examples], device=ids.device)
    within = torch.arange(frames.shape[1], device=ids.device)[None] < lengths[:, None]
    return Batch(
        ids,
        pad([e.durations for e in examples], batch_first=True),
        frames,
        (ids > 0).float().unsqueeze(2),
        within.float().unsqueeze(2),
    )


def _predicted(model: Acoustic, batch: Batch) -> Prediction:
    prediction: Prediction = model(batch.ids, batch.symbol_mask, batch.durations, batch.frame_mask)
    return prediction


def _loss(said: Prediction, batch: Batch) -> Tensor:
    """L1 of the features and of their change, of F0 where it is voiced, and of log durations."""
    voiced = batch.frames[..., features.VOICING :][..., :1]
    weight = torch.ones_like(batch.frames)
    weight[..., features.LOG_F0] = 3 * (0.1 + 0.9 * voiced[..., 0])
    weight[..., features.VOICING] = 6.0
    weight[..., features.APERIODICITY] = 2 * (0.1 + 0.9 * voiced[..., 0])
    weight = weight * batch.frame_mask
    error = (said.frames - batch.frames) * weight
    change = error[:, 1:] - error[:, :-1]
    frames = (error.abs().sum() + 0.5 * change.abs().sum()) / weight.sum()
    asked = torch.log1p(batch.durations.float())
    durations = F.l1_loss(said.log_durations, asked, reduction="none") * batch.symbol_mask[..., 0]
    return frames + 0.5 * durations.sum() / batch.symbol_mask.sum()


if __name__ == "__main__":
    main()
