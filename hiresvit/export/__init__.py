"""From a model to ONNX graphs: exported, simplified, in FP16, and for a CPU."""
