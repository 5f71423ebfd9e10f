# Every target works from nothing: a fresh clone, Python 3.10 or later, and a package index.
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0

help:
	@echo "make setup     virtual environment in .venv with everything that the other targets need"
	@echo "make demo      export HRViT-b1, and a trained nano in INT8 that answers for examples/street.jpg"
	@echo "make cpp       what building cpp/ needs, and the C++ library, its program and its example in cpp/build"
	@echo "make test      what CI runs: ruff, mypy, the tests without the slow ones"
	@echo "make test-all  the same with the slow ones"
	@echo "make bench     run every script in benchmarks/ but the training and what needs a GPU"
	@echo "make clean     remove .venv, demo/ and all caches"

setup: .venv/installed

# torch first, as a CPU wheel: the default one for Linux x86-64 brings gigabytes of CUDA. It is taken from where pip
# looks anyway and, if it is not there, from PyTorch's own index; what has no CPU-only wheel has one wheel for all.
.venv/installed: pyproject.toml hiresvit/version.py
	@$(PYTHON) -c 'import sys; sys.exit("hiresvit needs Python 3.10 or later, this is %d.%d: make PYTHON=python3.11" \
		% sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@echo "== setup: virtual environment in .venv"
	@$(PYTHON) -m venv .venv
	@echo "== setup: $(TORCH) for the CPU (200 MB)"
	@$(BIN)/pip install -qq '$(TORCH)+cpu' 2>/dev/null || \
		$(BIN)/pip install -qq --extra-index-url https://download.pytorch.org/whl/cpu '$(TORCH)'
	@echo "== setup: hiresvit with TensorRT-RTX, OpenVINO, Qualcomm's compiler (under Qualcomm's licence) and the"
	@echo "==        development tools (350 MB)"
	@$(BIN)/pip install -qq -e '.[export,rtx,openvino,qnn,dev]'
	@touch $@

demo: setup
	@echo "== demo: exports HRViT-b1 with its plan, then a small trained network in INT8, and paints what that sees in"
	@echo "==       examples/street.jpg: about 4 minutes on two cores, 250 MB in demo/"
	$(BIN)/hiresvit export hrvit_b1 --fp16 --force -o demo/hrvit_b1-segment-512x512
	$(BIN)/hiresvit export hrvit_nano --weights examples/hrvit_nano.safetensors --imgsz 384x672 \
		--classes cityscapes --int8 --calib scenes --calib-images 16 --force -o demo/hrvit_nano-segment-384x672
	$(BIN)/hiresvit run demo/hrvit_nano-segment-384x672 examples/street.jpg --graph int8 -o demo/street-overlay.png

cpp:
	@cpp/get-tools.sh
	cmake -S cpp -B cpp/build -G Ninja -DCMAKE_BUILD_TYPE=Release
	cmake --build cpp/build

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes with a thread each: tests mean the same on every machine as on CI's two cores. A file stays in one
# process, so that what its tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

# The tests build and run cpp/, also for aarch64 on an emulator, and look at a report in a browser.
tools:
	@cpp/get-tools.sh --cross
	@tests/get-browser.sh

test: lint tools
	$(PYTEST) -m 'not slow'

test-all: lint tools
	$(PYTEST)

# What takes hours, what needs a GPU, and what needs weights that are not in the repository.
NOT_HERE := benchmarks/train_scenes.py benchmarks/cuda_layer.py benchmarks/gpu_torch.py benchmarks/frame.py \
	benchmarks/label_agreement.py benchmarks/sliding_window.py benchmarks/htp_accuracy.py

bench: setup
	@for script in $(filter-out $(NOT_HERE),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv demo cpp/build* cpp/third_party build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo cpp tools lint test test-all bench clean
