"""Training on MosaicML Composer, which is imported nowhere else: replacing it touches this package only."""
