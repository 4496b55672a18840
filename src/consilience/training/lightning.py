"""A learner as a LightningModule, for those whose loop is Lightning's.

    module = RagLightningModule(learner, learning_rate=2e-5)
    lightning.Trainer(max_steps=1000).fit(module, module.loader(examples, batches))

It hands the learner's loss on and knows nothing of checkpoints, refresh or collapse: those belong
to `RagTrainer`, which `consilience train` uses.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from consilience.training.batches import LengthBuckets
from consilience.training.examples import Example
from consilience.training.learner import Learner


class RagLightningModule(LightningModule):
    """Implements Lightning's side of a training step.

    Args:
        learner: Model, index and objectives; which weights learn was decided there.
        learning_rate: Of AdamW.
        decay: Weight decay.
    """

    def __init__(self, learner: Learner, *, learning_rate: float, decay: float = 0.01) -> None:
        super().__init__()
        self.learner = learner
        self.learning_rate, self.decay = learning_rate, decay

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        """The loss of a batch, with the value of each objective logged beside it."""
        del batch_idx
        found = self.learner(batch)
        loss: Tensor = found["loss"]
        values = {f"loss_{name}": value for name, value in found["parts"].items()}
        self.log_dict({"loss": loss.detach(), **values}, batch_size=len(batch))
        return loss

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """As it is: a batch is texts; the learner puts what it makes of them where its model is."""
        del device, dataloader_idx
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the weights that learn."""
        weights = [weight for weight in self.learner.parameters() if weight.requires_grad]
        return torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.decay)

    @staticmethod
    def loader(examples: Sequence[Example], batches: LengthBuckets) -> DataLoader[Any]:
        """Examples in the order of `batches`."""
        return DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=list,
        )
