"""Train the embedded recogniser, from a seed to the files that faster-whisper loads.

    python data/recipes/recogniser/train.py --out OUT [--digits human-digits.tar.xz]

Needs the programs espeak-ng and flite, and the packages of the extra "train". On two CPU cores:
five minutes of synthesis and an hour and a half of training. An interrupted run continues from
OUT/state.pt.

One core trains; half precision on a second thread gains nothing at this size. More cores train as
a team, a process each, whose weights meet in their mean every few seconds (local SGD: Stich,
2019):

    torchrun --nproc-per-node 2 data/recipes/recogniser/train.py --out OUT

`--start-from data/models/lab-asr-en` continues from the model as it is shipped.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.recogniser import corpus as corpora
from data.recipes.recogniser import tokens
from data.recipes.recogniser.augment import Ranges, augmented_features
from data.recipes.recogniser.examples import (
    BLANK,
    IGNORED,
    Batch,
    Batches,
    Mixture,
    Planner,
    assemble,
)
from data.recipes.recogniser.model import Recogniser, Shape
from data.recipes.recogniser.restore import restore
from data.recipes.recogniser.synthesis import lexicon
from data.recipes.recogniser.team import Team

CHUNK_S = 12
"""Longest window that the model learns, in seconds."""
SHAPE = Shape(width=144, heads=3, encoder_layers=5, decoder_layers=2, dropout=0.0)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        minutes: Length of the training, over all its runs.
        batch_s: Audio in one step, in seconds.
        rate: Highest learning rate.
        warm_up: Steps until the learning rate is at its highest.
        ramp: Share of the training after which augmentation is at full strength.
        phone_weight: Weight of the phone loss at the start; it falls to a third of it.
        average: Decay of the moving average of the weights, once it has settled.
        meet: Steps between two meetings of a team.
    """

    minutes: float
    batch_s: float = 30.0
    rate: float = 1.6e-3
    warm_up: int = 400
    ramp: float = 0.5
    phone_weight: float = 1.0
    average: float = 0.9985
    meet: int = 32


@dataclass
class Progress:
    """How far a training has come, over all its runs."""

    step: int = 0
    seconds: float = 0.0

    def share(self, settings: Settings) -> float:
        """From 0 to 1."""
        return min(self.seconds / (settings.minutes * 60), 1.0)


def learning_rate(settings: Settings, step: int, share: float) -> float:
    """A linear rise, then half a cosine down to a hundredth."""
    rise = min((step + 1) / settings.warm_up, 1.0)
    return settings.rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def prepare_phones(words: list[str]) -> tuple[dict[str, list[int]], list[str]]:
    """Phone symbols of each word as numbers above the blank, and the symbols in order."""
    spoken = lexicon(words)
    symbols = sorted({symbol for phones in spoken.values() for symbol in phones})
    number = {symbol: index + 1 for index, symbol in enumerate(symbols)}
    return {word: [number[s] for s in phones] for word, phones in spoken.items()}, symbols


def heard(batch: Batch, corpus: Tensor, strength: float) -> Batch:
    """The batch with its augmented features."""
    audio = assemble(batch, corpus)
    mels, frames = augmented_features(audio, batch["samples"], strength, CHUNK_S * 100, Ranges())
    return {**batch, "mels": mels, "frames": frames}


class Heard(IterableDataset[Batch]):
    """Batches with their features, for workers on a CPU that take that off the trainer."""

    def __init__(self, batches: Batches, corpus: Tensor, strength: Tensor) -> None:
        """`strength` is shared memory that the trainer writes."""
        self._batches, self._corpus, self._strength = batches, corpus, strength

    def __iter__(self) -> Iterator[Batch]:
        """Draw for ever."""
        for batch in self._batches:
            yield heard(batch, self._corpus, float(self._strength))


class Trainer:
    """The model, its optimiser, the average of its weights, and one step of training."""

    def __init__(
        self, shape: Shape, settings: Settings, device: torch.device, first_time: int
    ) -> None:
        """Start from random weights; `first_time` is the id of the first timestamp token."""
        self.settings = settings
        self.device = device
        self.first_time = first_time
        self.progress = Progress()
        self.strength = torch.zeros(()).share_memory_()
        self.model = Recogniser(shape).to(device)
        self.average = Recogniser(shape).to(device).requires_grad_(False).eval()
        self.reserved = self.model.reserved()
        self.model.constrain(self.reserved)
        self.average.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(
            self._groups(), lr=settings.rate, betas=(0.9, 0.98), fused=True
        )

    def _groups(self) -> list[dict[str, object]]:
        """Matrices decay, all else does not."""
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        return [
            {"params": matrices, "weight_decay": 0.05},
            {"params": rest, "weight_decay": 0.0},
        ]

    def extend(self, seconds: float) -> None:
        """Plan the rest of the training to take `seconds` from now."""
        minutes = (self.progress.seconds + seconds) / 60
        self.settings = replace(self.settings, minutes=minutes)

    def step(self, batch: Batch, corpus: Tensor) -> dict[str, Tensor]:
        """One step; gives the losses as tensors on the device."""
        share = self.progress.share(self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, self.progress.step, share)
        losses = self._losses(batch, corpus, share)
        self.optimiser.zero_grad(set_to_none=True)
        losses["all"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.model.constrain(self.reserved)
        self._follow()
        self.progress.step += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(self, batch: Batch, corpus: Tensor, share: float) -> dict[str, Tensor]:
        self.strength.fill_(min(share / self.settings.ramp, 1.0))
        if "mels" not in batch:
            batch = heard(batch, corpus, float(self.strength))
        mels, frames = batch["mels"], batch["frames"]
        inputs, targets = self._retimed(batch, frames)
        with torch.autocast(self.device.type, torch.bfloat16):
            states, mask = self.model.encode(mels, frames)
            logits = self.model.decode(inputs, states, mask)
            phones = self.model.phones(states)
        text = F.cross_entropy(
            logits.float().flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=0.05,
        )
        sound = self._phone_loss(phones.float(), batch, (frames + 1) // 2)
        weight = self.settings.phone_weight * (1 - 2 * share / 3)
        return {"all": text + weight * sound, "text": text, "phones": sound}

    def _retimed(self, batch: Batch, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets whose timestamps follow the change of tempo."""
        rate = batch["samples"] / (frames * 160)
        return tuple(
            torch.where(
                ids >= self.first_time,
                self.first_time + ((ids - self.first_time) / rate[:, None]).round().long(),
                ids,
            ).clamp(max=self.model.shape.vocabulary - 1)
            for ids in (batch["inputs"], batch["targets"])
        )

    def _phone_loss(self, logits: Tensor, batch: Batch, positions: Tensor) -> Tensor:
        scores = logits.log_softmax(-1).transpose(0, 1)
        loss = F.ctc_loss(
            scores,
            batch["phones"],
            positions,
            batch["phone_count"],
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return (loss / batch["phone_count"].clamp(min=1)).mean()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.settings.average, (1 + self.progress.step) / (20 + self.progress.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        slow, fast = zip(*pairs, strict=True)
        torch._foreach_lerp_(list(slow), list(fast), 1 - decay)

    def meet(self, team: Team) -> None:
        """Take the mean of the team's weights, of their moments and of the time they took."""
        moments = [
            state[name]
            for state in self.optimiser.state.values()
            for name in ("exp_avg", "exp_avg_sq")
        ]
        team.average([*self.model.parameters(), *self.average.parameters(), *moments])
        self.progress.seconds = team.mean(self.progress.seconds)

    def save(self, path: Path) -> None:
        """Write all that a later run needs to continue."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])

    def start_from(self, path: Path) -> None:
        """Take the weights of a finished model: a file of `save_weights`, or an engine's folder.

        An engine's folder has no phone classifier; that begins with random weights.
        """
        if path.is_dir():
            weights = restore(path, self.model.shape).state_dict()
            weights = {name: w for name, w in weights.items() if not name.startswith("phones.")}
        else:
            weights = load_weights(path)[0].state_dict()
        self.model.load_state_dict({**self.model.state_dict(), **weights})
        self.average.load_state_dict(self.model.state_dict())


def save_weights(model: Recogniser, path: Path) -> None:
    """Write the weights in half precision, with the model's sizes."""
    weights = {name: value.half().cpu() for name, value in model.state_dict().items()}
    torch.save({"shape": asdict(model.shape), "weights": weights}, path)


def load_weights(path: Path) -> tuple[Recogniser, Shape]:
    """Read what `save_weights` wrote."""
    state = torch.load(path, map_location="cpu")
    shape = Shape(**state["shape"])
    model = Recogniser(shape)
    model.load_state_dict(state["weights"])
    return model.float().eval(), shape


def endless(loader: DataLoader[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device, but for numbers that the CPU needs."""
    for batch in loader:
        yield {
            name: value.to(device, non_blocking=True) if value.ndim else value
            for name, value in batch.items()
        }


def run(trainer: Trainer, loader: DataLoader[Batch], corpus: Tensor, out: Path, team: Team) -> None:
    """Train until the training is over."""
    batches = endless(loader, trainer.device)
    last, saved = time.perf_counter(), time.perf_counter()
    while trainer.progress.share(trainer.settings) < 1:
        for _ in range(trainer.settings.meet):
            losses = trainer.step(next(batches), corpus)
            now = time.perf_counter()
            trainer.progress.seconds += now - last
            last = now
        trainer.meet(team)
        if team.rank == 0 and trainer.progress.step % (4 * trainer.settings.meet) == 0:
            report(trainer, {name: float(value) for name, value in losses.items()})
        if team.rank == 0 and now - saved > 120:
            trainer.save(out / "state.pt")
            saved = now


def report(trainer: Trainer, losses: dict[str, float]) -> None:
    """One line of progress."""
    progress = trainer.progress
    words = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
    print(
        f"step {progress.step}  {100 * progress.share(trainer.settings):.1f} %  "
        f"{progress.seconds / max(progress.step, 1) * 1000:.0f} ms/step  {words}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--corpus", type=Path, help="folder for the clips (OUT/corpus)")
    parser.add_argument("--digits", type=Path, help="human digits: a folder or a tar archive")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--minutes", type=float, default=95.0, help="of training, without synthesis"
    )
    parser.add_argument("--budget-s", type=float, help="seconds for all; overrides --minutes")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the corpus")
    parser.add_argument("--batch-s", type=float, help="seconds of audio in one step")
    parser.add_argument("--rate", type=float, default=1.6e-3, help="highest learning rate")
    parser.add_argument("--ramp", type=float, default=0.5, help="see Settings.ramp")
    parser.add_argument("--start-from", type=Path, help="weights.pt, or a folder of the engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--threads", type=int, default=1, help="of the training, on a CPU")
    parser.add_argument("--no-export", action="store_true", help="leave out the engine's files")
    return parser.parse_args()


def main() -> None:
    """Make the corpus, train, and export."""
    options = arguments()
    team = Team()
    options.started = time.time()
    options.out.mkdir(parents=True, exist_ok=True)
    options.corpus = options.corpus or options.out / "corpus"
    amounts = corpora.Amounts().scaled(options.scale)
    if team.rank == 0:
        corpora.build(options.corpus, amounts, options.seed, options.digits, options.workers)
    team.wait()
    trainer, vocabulary = train(options, team)
    if team.rank == 0:
        finish(trainer, vocabulary, options)
    team.leave()


def train(options: argparse.Namespace, team: Team) -> tuple[Trainer, tokens.Vocabulary]:
    """Train on the corpus, from the start or from where an earlier run stopped."""
    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    # cuDNN's attention plans anew for each shape, which takes longer than the training step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    vocabulary = tokens.train_vocabulary(corpora.domain_sentences(options.seed, 50_000), CHUNK_S)
    clips = corpora.load_index(options.corpus)
    spoken = {word for clip in clips for word in clip.text.split()}
    words = sorted(spoken | set(corpora.domain_words(options.seed)))
    phones, symbols = prepare_phones(words)
    print(f"{len(vocabulary)} tokens, {len(words)} words, {len(symbols)} phones", flush=True)
    settings = Settings(
        minutes=options.minutes,
        batch_s=options.batch_s or (900.0 if cuda else 30.0),
        rate=options.rate,
        ramp=options.ramp,
    )
    shape = Shape(**{**asdict(SHAPE), "vocabulary": len(vocabulary)})
    trainer = Trainer(shape, settings, device, vocabulary.first_time)
    if (options.out / "state.pt").exists():
        trainer.load(options.out / "state.pt")
    elif options.start_from:
        trainer.start_from(options.start_from)
    audio = torch.from_numpy(corpora.load_audio(options.corpus, clips)).to(device)
    print(f"corpus loaded after {time.time() - options.started:.0f} s", flush=True)
    planner = Planner(clips, vocabulary, phones, Mixture())
    # A run that continues draws other examples than the one before it, as does each of a team.
    seed = options.seed + trainer.progress.step + 500_009 * team.rank
    torch.manual_seed(seed)
    batches = Batches(planner, settings.batch_s, seed, vocabulary.end)
    loader = DataLoader(
        batches if cuda else Heard(batches, audio, trainer.strength),
        batch_size=None,
        num_workers=min(options.workers, 8) if cuda else 1,
        pin_memory=cuda,
        prefetch_factor=8,
    )
    if options.budget_s:
        trainer.extend(team.mean(options.started + options.budget_s - time.time()))
    run(trainer, loader, audio, options.out, team)
    return trainer, vocabulary


def finish(trainer: Trainer, vocabulary: tokens.Vocabulary, options: argparse.Namespace) -> None:
    """Write the weights, and the files that the engine loads."""
    trainer.save(options.out / "state.pt")
    save_weights(trainer.average, options.out / "weights.pt")
    vocabulary.save(options.out / "tokenizer.json")
    if not options.no_export:
        from data.recipes.recogniser.export import export

        export(trainer.average, vocabulary, options.out / "lab-asr-en", CHUNK_S)
    seconds = time.time() - options.started
    print(f"{trainer.progress.step} steps, {seconds:.0f} s in all, on {trainer.device}")


if __name__ == "__main__":
    main()
