"""From a model to what a device loads: ONNX graphs, their precision, their legality, TensorRT plans."""
