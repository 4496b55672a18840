from pathlib import Path

import lightning
import pytest
import torch

from consilience.model import Rag
from consilience.store import Store
from consilience.training.batches import LengthBuckets
from consilience.training.config import TrainConfig
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.lightning import RagLightningModule
from consilience.training.preparing import prepare
from consilience.training.proposals import PassageIndex
from consilience.training.work import LearnerOptions
from tests.training.small import THINGS, config_of, number_of, write_world


@pytest.mark.filterwarnings("ignore")
def test_lightnings_loop_moves_what_learns(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    config: TrainConfig = config_of(world, tmp_path / "run")
    rag = Rag.load(world["model"])
    prepare(rag, config)
    examples = [
        Example(f"what is the {thing}", number_of(place), (number_of(place),))
        for place, thing in enumerate(THINGS)
    ]
    with Store.open(world["store"], create=False) as store:
        learner = Learner(
            rag.model,
            rag.encoder,  # type: ignore[arg-type]
            index=PassageIndex(store),
            options=LearnerOptions({"sequence": 1.0}, k=8),
        )
        before = {name: value.clone() for name, value in learner.named_parameters()}
        first = float(learner(examples)["loss"])
        trainer = lightning.Trainer(
            max_steps=40,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        module = RagLightningModule(learner, learning_rate=3e-3)
        batches = LengthBuckets([1] * len(examples), size=4, seed=0)
        trainer.fit(module, module.loader(examples, batches))
        assert float(learner(examples)["loss"]) < 0.5 * first
    for name, value in learner.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name
