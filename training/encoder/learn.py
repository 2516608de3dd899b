"""Fine-tuning: rows drawn anew in every epoch, batches of like length, averaged weights."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from encoder.network import Network
from encoder.vocabulary import SPECIAL
from encoder.windows import Text, chosen_window, embedded

MOST_CHOICES = 12  # windows of a long text that are looked at for the worst
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))


@dataclass(frozen=True)
class Settings:
    """What a training run depends on beside the data."""

    layers: int = 4
    vocabulary: int = 12_000
    epochs: int = 3
    rows: int = 24_000  # drawn in each epoch, beside `documents`
    documents: int = 5_000  # made in each epoch: a text inside others
    tokens: int = 2048  # in a batch
    rate: float = 2.5e-4  # of learning, at its highest, in the uppermost layer
    decay_by_layer: float = 0.85
    smoothing: float = 0.05
    hidden_words: float = 0.06  # share of tokens replaced by [MASK]
    kind_weight: float = 0.1
    weight_decay: float = 0.01
    warm_up: float = 0.08
    averaging: float = 0.997  # of the weights over steps
    seed: int = 23


@dataclass(frozen=True)
class Example:
    """One window to learn from."""

    tokens: np.ndarray
    label: int
    is_jailbreak: bool
    text: Text | None = None  # what it is a window of


def drawn(texts: Sequence[Text], settings: Settings, epoch: int) -> list[Example]:
    """The windows of an epoch: classes balanced; in one, a source counts by the root of its size."""
    rng = random.Random(settings.seed * 1000 + epoch)
    sizes = Counter((t.source, t.language, t.label) for t in texts)
    examples = []
    for label in (0, 1):
        pool = [t for t in texts if t.label == label]
        weights = np.array([emphasis(t) * sizes[t.source, t.language, t.label] ** -0.5 for t in pool])
        # Weighted sampling without replacement (Efraimidis and Spirakis, 2006).
        keys = np.random.default_rng(rng.randrange(2**31)).exponential(size=len(pool)) / weights
        for index in np.argsort(keys)[: settings.rows // 2]:
            text = pool[index]
            examples.append(Example(chosen_window(text, epoch, rng), label, text.is_jailbreak, text))
    for tokens, text in embedded(texts, rng, count=settings.documents):
        examples.append(Example(tokens, text.label, text.is_jailbreak))
    return examples


def hardened(examples: Sequence[Example], network: Network, rng: random.Random) -> list[Example]:
    """The same, but of a long harmless text the window that the network finds worst: what fires decides."""
    long = [e for e in examples if e.label == 0 and e.text is not None and len(e.text.starts) > 1]
    choices = [rng.sample(range(len(e.text.starts)), min(len(e.text.starts), MOST_CHOICES)) for e in long]
    windows = [e.text.window(n) for e, numbers in zip(long, choices, strict=True) for n in numbers]
    logits = iter(window_logits(network, windows).tolist())
    worst = {}
    for example, numbers in zip(long, choices, strict=True):
        number = max((next(logits), number) for number in numbers)[1]
        worst[id(example)] = replace(example, tokens=example.text.window(number))
    return [worst.get(id(example), example) for example in examples]


def emphasis(text: Text) -> float:
    """How much more often a text is drawn than the size of its source says.

    Public texts are the most varied. The templates of other languages are few, and the many small groups of
    their rows would crowd out the rest.
    """
    if not text.source.startswith("made:"):
        return 2.0
    return 0.4 if text.source == f"made:{text.language}" else 1.0


def batches(examples: Sequence[Example], settings: Settings, rng: random.Random) -> list[list[Example]]:
    """Examples of like length together, about `settings.tokens` tokens each, in random order."""
    ordered = sorted(examples, key=lambda e: len(e.tokens) + rng.random() * 4)
    made: list[list[Example]] = []
    start = 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and (end - start + 1) * (len(ordered[end].tokens) + 2) <= settings.tokens:
            end += 1
        end = max(end, start + 1)
        made.append(ordered[start:end])
        start = end
    rng.shuffle(made)
    return made


def collated(windows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Ids with the special ones, and where they are not padding."""
    longest = max(len(window) for window in windows) + 2
    ids = np.full((len(windows), longest), PAD, dtype=np.int64)
    for row, window in enumerate(windows):
        ids[row, 0] = CLS
        ids[row, 1 : len(window) + 1] = window
        ids[row, len(window) + 1] = SEP
    tensor = torch.from_numpy(ids)
    return tensor, tensor != PAD


def learn(
    network: Network,
    texts: Sequence[Text],
    settings: Settings,
    *,
    told: Callable[[str], None],
    after_epoch: Callable[[int, Network], None] = lambda epoch, network: None,
) -> Network:
    """The trained network: the running average of the weights.

    Sums are made in bfloat16 where the processor can; `torch.set_num_threads(1)` keeps their order.
    """
    torch.manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(_groups(network, settings), weight_decay=settings.weight_decay, fused=True)
    plan = [drawn(texts, settings, epoch) for epoch in range(settings.epochs)]
    total = sum(len(_batches(epoch, plan[epoch], settings)) for epoch in range(settings.epochs))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, total, settings))
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.averaging)
    )
    step, running = 0, 0.0
    for epoch, examples in enumerate(plan):
        if epoch > 0 and epoch == settings.epochs - 1:
            told("looking for the worst windows of long harmless texts")
            examples = hardened(examples, averaged.module, random.Random(settings.seed))
        network.train()
        for batch in _batches(epoch, examples, settings):
            loss = _step(network, batch, settings)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            averaged.update_parameters(network)
            step += 1
            running = loss if step == 1 else 0.98 * running + 0.02 * loss
            if step % 100 == 0:
                told(f"step {step} of {total}: loss {running:.4f}")
        after_epoch(epoch, averaged.module)
    return averaged.module


def _batches(epoch: int, examples: Sequence[Example], settings: Settings) -> list[list[Example]]:
    return batches(examples, settings, random.Random(settings.seed + epoch))


def _pace(step: int, total: int, settings: Settings) -> float:
    warm = settings.warm_up * total
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def _groups(network: Network, settings: Settings) -> Iterator[dict]:
    """Parameters with their rates: lower layers learn more slowly, and words keep the places they had.

    A word that the corpus never uses thus stays near the ones that mean the same.
    """
    top = settings.layers
    modules = [(network.read, 0), (network.decide, 0)]
    modules += [(layer, top - number) for number, layer in enumerate(network.layers, 1)]
    for module, depth in modules:
        rate = settings.rate * settings.decay_by_layer**depth
        yield {"params": list(module.parameters()), "lr": rate}
    lowest = settings.rate * settings.decay_by_layer**top
    yield {"params": [*network.places.parameters(), *network.embedded_norm.parameters()], "lr": lowest}
    network.words.requires_grad_(False)


def _step(network: Network, batch: Sequence[Example], settings: Settings) -> float:
    tokens, mask = collated([example.tokens for example in batch])
    hide = (torch.rand(tokens.shape) < settings.hidden_words) & (tokens > MASK)
    tokens = tokens.masked_fill(hide, MASK)
    labels = torch.tensor([float(example.label) for example in batch])
    kinds = torch.tensor([float(example.is_jailbreak) for example in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(tokens, mask).float()
    soft = labels * (1 - 2 * settings.smoothing) + settings.smoothing
    loss = functional.binary_cross_entropy_with_logits(logits[:, 0], soft)
    kind = functional.binary_cross_entropy_with_logits(logits[:, 1], kinds, reduction="none")
    loss = loss + settings.kind_weight * (kind * labels).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    return float(loss.detach())


def highest_logits(network: Network, texts: Sequence[Text]) -> np.ndarray:
    """The attack logit of the worst window of each text, in bfloat16: for progress, not for calibration."""
    owners = [owner for owner, text in enumerate(texts) for _ in text.starts]
    windows = [text.window(number) for text in texts for number in range(len(text.starts))]
    found = np.full(len(texts), -np.inf)
    np.maximum.at(found, owners, window_logits(network, windows))
    return found


@torch.no_grad()
def window_logits(network: Network, windows: Sequence[np.ndarray], *, tokens: int = 8192) -> np.ndarray:
    """The attack logit of each window, about `tokens` tokens at once."""
    network.eval()
    order = sorted(range(len(windows)), key=lambda number: len(windows[number]))
    found = np.empty(len(windows))
    start = 0
    while start < len(order):
        size = max(tokens // (len(windows[order[min(start + 63, len(order) - 1)]]) + 2), 1)
        part = order[start : start + size]
        ids, mask = collated([windows[number] for number in part])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found[part] = network(ids, mask)[:, 0].float().numpy()
        start += size
    return found
