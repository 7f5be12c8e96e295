"""How good a model is: held-out masked-language-modelling loss, and masks filled through transformers."""
