"""The other process of an index refresh: embeds a store with a model that was written for it.

python -m consilience.training.refreshing MODEL STORE
"""

import sys
from pathlib import Path

from consilience.model.loading import load_any_encoder
from consilience.store import Store


def refresh(model: Path, store: Path) -> int:
    """Embed everything in a store with a model's encoder; the store's new sequence."""
    with Store.open(store, create=False) as opened:
        return opened.re_embed(load_any_encoder(model)).generation


if __name__ == "__main__":
    refresh(Path(sys.argv[1]), Path(sys.argv[2]))
