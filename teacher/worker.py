"""What Retort adds to vLLM's worker, inside the engine: other weights of the same architecture, in place.

Loaded by the engine alone (`--worker-extension-cls`); `teacher/swap.py` calls it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class WeightSwap:
    """Mixed into vLLM's worker, whose `reload_weights` and `model_runner` it uses."""

    model_runner: Any
    reload_weights: Any

    def swap_weights(self, folder: str) -> dict[str, Any]:
        """Load the weights of a folder in place of those served.

        Returns:
            {"unlike": names}: the weights now served that are not the folder's; none where all is well.
            On the CPU most matrices live packed, out of sight: seen are the embedding, the norms, the
            biases and, by what it computes, the output layer.
        """
        self.reload_weights(weights_path=folder)
        model = self.model_runner.get_model()
        if self.model_runner.model_config.hf_config.tie_word_embeddings and hasattr(model, "lm_head"):
            # vLLM 0.32 packs a tied output layer for the CPU when it starts and leaves that packing as it
            # was on a reload ("ParallelLMHead: Failed to load weights"): the old weights would answer.
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
        return {"unlike": unlike(model, Path(folder))}


def unlike(model: Any, folder: Path) -> list[str]:
    """Return the names of a model's visible weights that differ from those in the folder's files."""
    import torch
    from safetensors import safe_open

    served = dict(model.named_parameters())
    found = []
    with torch.inference_mode():
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                    if name not in served:
                        continue
                    wanted = weights.get_tensor(name)
                    # Vocabularies are padded when they are served.
                    held = served[name][: len(wanted)]
                    if held.shape == wanted.shape and not held.cpu().equal(wanted.to(held.dtype)):
                        found.append(name)
        head = getattr(model, "lm_head", None)
        weight = getattr(head, "weight", None)
        if head is not None and weight is not None and weight.ndim == 2 and weight.numel():
            probe = torch.linspace(-1, 1, 2 * weight.shape[1], device=weight.device, dtype=weight.dtype)
            probe = probe.reshape(2, -1)
            said = head.quant_method.apply(head, probe).float()
            wanted = probe.float() @ weight.float().T
            if (said - wanted).abs().max() > 0.02 * wanted.abs().max():  # bfloat16 keeps 8 bits
                found.append("lm_head (packed)")
    return found
