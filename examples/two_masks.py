"""Use one network under two attention masks: to predict next tokens, and to fill a mask.

RUN=runs/quickstart python examples/two_masks.py    # or cell by cell, in an editor that supports `# %%`
"""

# %% Load two models of one run: the one after the CLM phase, and the one after the decay
import json
import os
import sys
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import AutoTokenizer

from clm_detour import ModernBertForPretraining, next_token_labels

run = Path(os.environ.get("RUN", "runs/quickstart"))
detour = run / "models" / "detour"
if not detour.is_dir():
    sys.exit(f"{detour} is missing; make it with `make quickstart`, or set RUN to another run's folder.")
clm_phase = json.loads((run / "arms.json").read_text())["detour"][-2]
folders = {"after CLM": run / "phases" / clm_phase / "model", "after the decay": detour}
models = {name: ModernBertForPretraining.from_pretrained(folder) for name, folder in folders.items()}
tokenizer = AutoTokenizer.from_pretrained(detour, clean_up_tokenization_spaces=False)
texts = ["The patient was admitted with chest pain.", "Patients were assigned to aspirin or placebo."]
masked = f"Patients were assigned to {tokenizer.mask_token} or placebo."


# %% Causal: compute next-token perplexity. All texts are in one row, and do not see each other
@torch.no_grad()
def perplexities(model: ModernBertForPretraining, texts: list[str]) -> list[float]:
    """Return the perplexity of each text: 1 if certain, the size of the vocabulary for a random guess."""
    ids = [tokenizer(text).input_ids for text in texts]
    row, document_ids = torch.tensor([[(t, i) for i, text in enumerate(ids) for t in text]]).unbind(-1)
    labels = next_token_labels(row, document_ids)
    model.causal = True
    losses = cross_entropy(model(row, document_ids=document_ids).logits[0], labels[0], reduction="none")
    return [losses[(document_ids == i)[0] & (labels[0] >= 0)].mean().exp().item() for i in range(len(texts))]


print(f"Next-token perplexity (vocabulary {len(tokenizer):,})")
for name, model in models.items():
    print(f"  {name:>15}", *(f"  {value:7,.1f}" for value in perplexities(model, texts)))

# %% Bidirectional: fill a mask with the same networks
inputs = tokenizer(masked, return_tensors="pt").input_ids
print(f"\n{masked}")
for name, model in models.items():
    model.causal = False
    with torch.no_grad():
        best = model(inputs).logits[inputs == tokenizer.mask_token_id].softmax(-1).topk(5)
    guesses = zip(tokenizer.batch_decode(best.indices.T), best.values[0], strict=True)
    print(f"  {name:>15}", *(f"  {guess.strip()} {probability:.0%}" for guess, probability in guesses))

# %% Hidden states: compare those of each layer under the two masks
model, states = models["after the decay"], {}
for causal in (True, False):
    model.causal = causal
    with torch.no_grad():
        states[causal] = model(inputs, output_hidden_states=True).hidden_states
print("\nCosine similarity of the hidden states under the two masks, after the decay")
for layer, (left, both) in enumerate(zip(states[True], states[False], strict=True)):
    similarity = cosine_similarity(left, both, dim=-1).mean().item()
    name = f"layer {layer}" if layer else "embeddings"
    print(f"  {name:>15}  {similarity:5.2f} {'█' * round(30 * similarity)}")
