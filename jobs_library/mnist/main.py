"""Train a small convolutional network on handwritten digits: MNIST in IDX format, or the digits set of scikit-learn.

After every epoch it prints the accuracy on images it was not trained on and hands over a checkpoint of everything that the
rest depends on, so that an attempt that resumes ends with the very same model.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import qubix_job
import torch
from idx import Images, load_digits, load_idx
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

STATE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What the consumer can choose."""

    epochs: int
    batch: int
    passes: int
    learning_rate: float
    seed: int

    @classmethod
    def read(cls, digits: bool) -> Settings:
        """From the job's parameters. passes: how often an epoch sees each image, each time distorted anew."""
        params = qubix_job.params
        return cls(
            epochs=int(params.get("epochs", "5")),
            batch=int(params.get("batch", "32" if digits else "64")),
            passes=int(params.get("passes", "4" if digits else "1")),
            learning_rate=float(params.get("learning_rate", "0.001")),
            seed=int(params.get("seed", "1")),
        )


class Network(nn.Module):
    """Two convolutions, two full layers, 28 × 28 pixels in, ten digits out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Linear(128, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to scores."""
        scores: torch.Tensor = self.layers(images)
        return scores


class Training:
    """Model, optimiser, random state and history: all that a checkpoint holds."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        torch.manual_seed(settings.seed)
        self.model = Network().to(device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate)
        self.history: list[dict[str, float]] = []

    def save(self, path: Path) -> None:
        """Write the state to a file."""
        state = {
            "version": STATE_VERSION,
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "history": self.history,
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        """Become the state of a file. Raises: any error, and then this object must not be used."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["version"] != STATE_VERSION or state["settings"] != asdict(self.settings):
            raise ValueError("it was written with other settings")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and len(state["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.history = state["history"]

    def epoch(self, images: Images, number: int) -> float:
        """Train one epoch. Returns: the mean loss."""
        self.model.train()
        total = seen = 0.0
        steps = self.settings.passes * -(-len(images.labels) // self.settings.batch)
        step = 0
        for _ in range(self.settings.passes):
            for chosen in torch.randperm(len(images.labels)).split(self.settings.batch):  # type: ignore[no-untyped-call]
                pixels = distorted(images.pixels[chosen]).to(self.device)
                loss = functional.cross_entropy(self.model(pixels), images.labels[chosen].to(self.device))
                self.optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
                total, seen, step = total + loss.item() * len(chosen), seen + len(chosen), step + 1
                qubix_job.progress(
                    100 * (number + 0.98 * step / steps) / self.settings.epochs, f"epoch {number + 1}/{self.settings.epochs}"
                )
        return total / seen

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        """The part of the images that it reads rightly."""
        self.model.eval()
        right = 0
        for pixels, labels in zip(images.pixels.split(500), images.labels.split(500), strict=True):
            right += int((self.model(pixels.to(self.device)).argmax(1).cpu() == labels).sum())
        return right / len(images.labels)


def distorted(pixels: torch.Tensor) -> torch.Tensor:
    """Turn, shift and scale each image a little, each differently."""
    count = len(pixels)
    angle = (torch.rand(count) - 0.5) * 0.4
    scale = 1 + (torch.rand(count) - 0.5) * 0.2
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale, -angle.sin() * scale, shift[:, 0]], 1),
            torch.stack([angle.sin() * scale, angle.cos() * scale, shift[:, 1]], 1),
        ],
        1,
    )
    grid = functional.affine_grid(matrix, [count, 1, 28, 28], align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


def prepared(settings: Settings, device: torch.device) -> Training:
    """A training at its start, or where the checkpoint left it."""
    training = Training(settings, device)
    restored = qubix_job.restored()
    if restored is None:
        return training
    try:
        training.load(restored)
    except Exception as error:
        print(f"the checkpoint cannot be used ({error}); starting from the beginning")
        qubix_job.restore_failed(f"{type(error).__name__}: {error}")
        return Training(settings, device)
    print(f"resuming after epoch {len(training.history)}")
    return training


def main() -> None:
    """Entry point."""
    wanted = qubix_job.params.get("data", "")
    qubix_job.progress(0, "loading the images")
    train, test = load_idx(qubix_job.input_dir / wanted) if wanted else load_digits()
    settings = Settings.read(digits=not wanted)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = prepared(settings, device)
    print(f"{len(train.labels)} images to train on, {len(test.labels)} to test on, device {device}")
    for number in range(len(training.history), settings.epochs):
        began = time.monotonic()
        loss = training.epoch(train, number)
        accuracy = training.accuracy(test)
        training.history.append({"epoch": number + 1, "loss": loss, "accuracy": accuracy})
        print(
            f"epoch {number + 1}/{settings.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}  {time.monotonic() - began:.1f} s", flush=True
        )
        state = qubix_job.checkpoint_dir / "state.pt"
        state.parent.mkdir(exist_ok=True)
        training.save(state)
        qubix_job.checkpoint(state, pct=100 * (number + 1) / settings.epochs)
        qubix_job.progress(100 * (number + 1) / settings.epochs, f"epoch {number + 1}/{settings.epochs} done")
    if not training.history:
        sys.exit("epochs must be at least 1")
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in training.model.state_dict().items()},
        qubix_job.output_dir / "model.safetensors",
    )
    metrics = {"settings": asdict(settings), "accuracy": training.history[-1]["accuracy"], "history": training.history}
    Path(qubix_job.output_dir, "metrics.json").write_text(json.dumps(metrics, indent=1))
    print(f"test accuracy {training.history[-1]['accuracy']:.4f}")


if __name__ == "__main__":
    main()
