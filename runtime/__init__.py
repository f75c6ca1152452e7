"""What everything else stands on: linear primitives, the linear program, the map, onnxruntime, errors."""
