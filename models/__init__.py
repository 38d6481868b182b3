"""Workloads: recipes that build ONNX models; run them from a checkout as README.md here says."""
