"""An ONNX graph, read once: its file, its types and sizes, its attentions and products."""
