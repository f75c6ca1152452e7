"""Verify a saved map without ilin: python verify_standalone.py OUT.npz MODEL.onnx [EXTERNAL_DATA ...]."""

import hashlib
import json
import sys

import numpy as np
import onnxruntime

file = np.load(sys.argv[1], allow_pickle=False)
arrays = {name: file[name] for name in sorted(file.files)}
header = json.loads(arrays.pop("header").tobytes())
results = {"certificate": header["certificate"]["verified"]}

hashes = {"input": hashlib.sha256(), "result": hashlib.sha256(), "evidence": hashlib.sha256()}
parts = {name: "input" if name[0] in "xh" else "evidence" for name in arrays}
parts |= dict.fromkeys(["W", "W_data", "W_indices", "W_indptr", "b", "rows"], "result")
for name, a in arrays.items():
    hashes[parts[name]].update(f"{name} {a.dtype.str} {list(a.shape)}\n".encode() + a.tobytes())
unsealed = {**header, "sha256": {part: header["sha256"][part] for part in hashes}}
hashes["header"] = hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode())
results |= {f"{part} hash": found.hexdigest() == header["sha256"][part] for part, found in hashes.items()}
model = b"".join(np.fromfile(path, np.uint8) for path in sys.argv[2:])
results["model hash"] = hashlib.sha256(model).hexdigest() == header["model_sha256"]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # as it is written
run = onnxruntime.InferenceSession(sys.argv[2], options).run
held = {name: arrays[f"held{i}"] for i, name in enumerate(header["held"])}
for p, bound in enumerate(arrays["bounds"]):  # x, then the fresh points
    z = {name: arrays[f"z{i}"][p - 1] if p else arrays[f"x{i}"] for i, name in enumerate(header["inputs"])}
    y = np.concatenate([np.ravel(value) for value in run(header["outputs"], {**held, **z})])[arrays["rows"]]
    flat = np.concatenate([np.ravel(value) for value in z.values()]).astype(float)
    error = np.abs(arrays["W"] @ flat + arrays["b"] - y)
    results[f"W z + b, point {p}" if p else "W x + b"] = bool((error <= bound).all())
    if p == 0:  # either run is within the bound of W x + b
        was = np.concatenate([np.ravel(arrays[f"y{i}"]) for i in range(len(header["outputs"]))])
        results["y"] = bool((np.abs(y - was[arrays["rows"]]) <= 2 * bound).all())
for check, holds in results.items():
    print("pass" if holds else "FAIL", check)
sys.exit(not all(results.values()))
