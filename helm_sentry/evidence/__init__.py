"""Evidence in the formats of HELM AI Kernel, made from verified runs and checked before use."""
