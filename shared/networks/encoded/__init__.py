"""Networks on the features of an encoder: the encoder stays as it is, and a small head learns."""
