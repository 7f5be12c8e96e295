"""A ledger of claims about the method, the runs that they need, and a verdict for each claim."""
